#!/bin/sh
# Installs the Debian packages that tests use when they are missing and this
# runs as root on a Debian system; otherwise says loudly what will be skipped.
set -eu

missing=
need() { # program package
	command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need chromium chromium
need gcc gcc # the race detector links with cgo

[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "packages: installing$missing" >&2
	export DEBIAN_FRONTEND=noninteractive
	{ apt-get update -q && apt-get install -qy --no-install-recommends $missing; } >/tmp/zt-packages.log 2>&1 || {
		tail -n 20 /tmp/zt-packages.log >&2
		echo "packages: NOT INSTALLED:$missing — the tests that need them will be SKIPPED" >&2
	}
	exit 0
fi

echo "**********************************************************************" >&2
echo "packages: MISSING:$missing" >&2
echo "The tests that need them will be SKIPPED. On Debian, as root:" >&2
echo "  apt-get install$missing" >&2
echo "**********************************************************************" >&2
