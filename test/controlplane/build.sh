#!/bin/sh
# Builds the programs of the test control plane into a cache outside the tree
# and prints the directory that holds them, alone, on stdout; progress goes to
# stderr. The cache is keyed by everything that decides what comes out: the
# files of the modules, the sources here, this script and the Go version.
#
# The directory holds etcd, kube-apiserver, kube-controller-manager, kwok,
# kubectl, kubectl-1.27, kubectl-1.32 and kwok.yaml.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${ZT_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/zt-test}/controlplane
key=$(
	cd "$here"
	{
		go version
		find . -type f \( -name 'go.*' -o -name '*.go' -o -name '*.sh' \) -print | LC_ALL=C sort | xargs cat
	} | sha256sum | cut -c1-16
)
out=$cache/$key

finished() {
	[ -f "$out/complete" ] || return 1
	touch "$out/complete" # the date of the last use, see the end
	echo "$out"
}

finished && exit 0

mkdir -p "$cache"
exec 9>"$cache/lock"
if command -v flock >/dev/null 2>&1; then flock 9; fi
finished && exit 0 # another run built it while this one waited

say() { echo "controlplane: $*" >&2; }

part=$out.part
rm -rf "$part"
mkdir -p "$part"

# version MODULE [FOLDER] prints the version that the module graph selected.
version() { (cd "$here/${2:-.}" && go list -m -f '{{.Version}}' "$1"); }

# build NAME PACKAGE RELEASE [FOLDER]. Clients judge a server by its version,
# and servers log that of a client; only the linker writes either.
build() {
	say "building $1"
	minor=${3#v1.}
	stamp=k8s.io/component-base/version
	(
		cd "$here/${4:-.}"
		CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false -trimpath" go build -o "$part/$1" \
			-ldflags "-s -w -X $stamp.gitVersion=$3 -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*}" "$2"
	)
}

say "building the test control plane; once, about 9 minutes on 2 cores, then cached in $cache"
release=$(version k8s.io/kubernetes)
build kubectl k8s.io/kubernetes/cmd/kubectl "$release"
build etcd go.etcd.io/etcd/server/v3 "$release"
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver "$release"
build kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager "$release"
build kwok sigs.k8s.io/kwok/cmd/kwok "$release"
for old in 1.27 1.32; do
	library=$(version k8s.io/kubectl "kubectl-$old") # v0.X.Y is the library of release v1.X.Y
	build "kubectl-$old" . "v1${library#v0}" "kubectl-$old"
done

# kwok does nothing without stages. These are its own quick ones, handed over as
# a configuration file, so that the API server needs none of its CRDs: a node
# becomes ready, a pod runs, a job's pod completes, a deleted pod goes.
stage=$(cd "$here" && go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
for file in node/fast/node-initialize pod/fast/pod-ready pod/fast/pod-complete pod/fast/pod-delete; do
	echo ---
	cat "$stage/$file.yaml"
done >"$part/kwok.yaml"

touch "$part/complete"
rm -rf "$out"
mv "$part" "$out"
# Half a gigabyte each: what no run has used for a month goes.
find "$cache" -mindepth 2 -maxdepth 2 -name complete -mtime +30 -exec dirname {} \; | while read -r old; do rm -rf "$old"; done
say "done"
echo "$out"
