# zt – `make` alone prints this help.

SHELL       := /bin/sh
export CGO_ENABLED ?= 0
export GOFLAGS     := -mod=readonly -buildvcs=false

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)
TOOL     := go tool -modfile=test/tools/go.mod

.PHONY: help build demo test soak lint bench fuzz generate verify controlplane packages

help: ## this text
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## kubectl-zt and zt-gateway into bin/
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

packages: ## the Debian packages that tests use (as root; else says what is missing)
	@test/packages.sh

controlplane: ## the real control plane, built once into a cache outside the tree
	@test/controlplane/build.sh >/dev/null

demo: controlplane ## the main job on loopback, then stays up; ONCE=1 ends by itself
	go run ./test/demo $(if $(ONCE),--once)

# A test that fails on a crowded machine is run again, twice at most, and only
# when few have failed; the summary names it all the same. A data race may hide
# in a second run, so whoever has seen one says so at the end.
GOTESTSUM := $(TOOL) gotestsum --format pkgname-and-test-fails --rerun-fails=2 --rerun-fails-max-failures=5
RACES     := $(or $(TMPDIR),/tmp)/zt-race-$(shell echo $$$$).json

test: packages controlplane ## unit, race, end to end on the real control plane, fences, lint
	$(GOTESTSUM) --packages ./... -- -timeout 20m
	CGO_ENABLED=1 $(GOTESTSUM) --jsonfile $(RACES) --packages './pkg/... ./cmd/...' -- -race -short -timeout 20m
	@if grep -q 'WARNING: DATA RACE' $(RACES); then echo 'a data race was seen: $(RACES)' >&2; exit 1; fi; rm -f $(RACES)
	$(MAKE) lint

soak: packages controlplane ## the long and full-count forms of the tests
	ZT_SOAK=1 $(TOOL) gotestsum --format standard-verbose -- -timeout 4h ./...

bench: controlplane ## zt beside its floors, as ratios of one run
	go run ./test/bench

lint: ## golangci-lint with the import fences
	$(TOOL) golangci-lint run ./...

FUZZTIME ?= 30s
fuzz: ## every fuzz target for FUZZTIME each
	@for p in $$(go list ./pkg/...); do \
	  for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p || exit 1; \
	  done; done

generate: ## what is generated: deepcopy of the API objects
	$(TOOL) controller-gen object paths=./pkg/api/...

verify: generate ## generated files and modules are current; other systems compile
	go mod tidy -diff
	cd test/tools && GOFLAGS= go mod tidy -diff
	git diff --exit-code -- pkg/api
	GOOS=darwin GOARCH=arm64 go build -o /dev/null ./cmd/kubectl-zt
	GOOS=linux GOARCH=arm64 go build -o /dev/null ./cmd/kubectl-zt
	GOOS=linux GOARCH=arm64 go build -o /dev/null ./cmd/zt-gateway
	go vet ./...
