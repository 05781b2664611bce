package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// twoObjects are of one kind each.
const twoObjects = `
apiVersion: v1
kind: ConfigMap
metadata: {name: one}
data: {a: b}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: two}
spec:
  replicas: 0
  selector: {matchLabels: {app: two}}
  template:
    metadata: {labels: {app: two}}
    spec: {containers: [{name: main, image: none}]}
`

func writeChart(home string) (string, error) {
	dir := filepath.Join(home, "chart")
	if err := os.MkdirAll(filepath.Join(dir, "templates"), 0o700); err != nil {
		return "", err
	}
	return dir, errors.Join(
		os.WriteFile(filepath.Join(dir, "Chart.yaml"), []byte("apiVersion: v2\nname: bench\nversion: 1.0.0\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "templates", "objects.yaml"), []byte(twoObjects), 0o600),
	)
}

// helm returns the path of helm, which is built once into the cache of the test
// control plane. In the quick form it is left out unless it is there.
func (b *bench) helm(ctx context.Context) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "test", "bench", "helm")
	sum, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", err
	}
	cache := os.Getenv("ZT_TEST_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(user, "zt-test")
	}
	path := filepath.Join(cache, "helm", fmt.Sprintf("%x", sha256.Sum256(sum))[:16], "helm")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if b.options.quick {
		b.say("helm is not built; without -quick it will be")
		return "", nil
	}
	b.say("building helm; once, about two minutes on 2 cores")
	part := path + ".part"
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", part, "helm.sh/helm/v3/cmd/helm")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build helm: %w\n%s", err, out)
	}
	return path, os.Rename(part, path)
}

// moduleRoot walks up from the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "test", "bench", "helm", "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("not inside a checkout of the module")
		}
		dir = filepath.Dir(dir)
	}
}
