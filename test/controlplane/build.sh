#!/bin/sh
# Builds the programs of the test control plane into a cache outside the tree
# and prints the directory that holds them, on stdout, alone. The cache is keyed
# by everything that decides what comes out: the modules' files, the sources in
# this folder, this script and the Go version. Progress goes to stderr.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${ZT_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/zt-test}/controlplane
key=$( (cd "$here" && go version && find . -type f \( -name 'go.*' -o -name '*.go' -o -name '*.sh' \) -print | LC_ALL=C sort | xargs cat) | sha256sum | cut -c1-16)
out=$cache/$key

if [ -f "$out/complete" ]; then
	echo "$out"
	exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
if command -v flock >/dev/null 2>&1; then flock 9; fi
if [ -f "$out/complete" ]; then # another run built it while this one waited
	echo "$out"
	exit 0
fi

part=$out.part
rm -rf "$part"
mkdir -p "$part"

say() { echo "controlplane: $*" >&2; }

# Clients judge the server by its version, which only the linker writes.
flags="-s -w"
for v in gitVersion=v1.36.3 gitMajor=1 gitMinor=36; do
	flags="$flags -X k8s.io/component-base/version.$v"
done

build() { # name package [directory]
	say "building $1"
	(cd "$here/${3:-.}" && CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false -trimpath" go build -ldflags "$flags" -o "$part/$1" "$2")
}

say "building the test control plane; once, about 8 minutes on 2 cores, then cached in $cache"
build kubectl k8s.io/kubernetes/cmd/kubectl
build etcd go.etcd.io/etcd/server/v3
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
build kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
build kwok sigs.k8s.io/kwok/cmd/kwok
for old in 1.27 1.32; do
	flags="-s -w -X k8s.io/component-base/version.gitVersion=v$old.0 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${old#1.}"
	build "kubectl-$old" . "kubectl-$old"
done

# The simulated nodes and pods follow the stages that kwok itself ships.
stage=$(cd "$here" && go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
mkdir -p "$part/stage"
cp "$stage"/node/fast/*.yaml "$part/stage/" 2>/dev/null || true
cp -r "$stage" "$part/kwok-stage"
chmod -R u+w "$part"

touch "$part/complete"
rm -rf "$out"
mv "$part" "$out"
say "done"
echo "$out"
