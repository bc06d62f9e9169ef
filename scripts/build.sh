#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh - configure DIR once and build it. usage: scripts/build.sh DIR [meson option...]
set -eu
cd "$(dirname "$0")/.."
dir=$1
shift
if [ -f "$dir/build.ninja" ]; then
	# An option that changed (a prefix, a sanitizer) reaches a tree that exists already.
	wanted="$*"
	[ "$(cat "$dir/.husk-options" 2>/dev/null)" = "$wanted" ] || meson setup --reconfigure "$dir" "$@"
else
	rm -rf "$dir"
	meson setup "$dir" "$@"
fi
printf '%s\n' "$*" >"$dir/.husk-options"
ninja -C "$dir"
