#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# debian-root.sh - a Debian root file system as a tar, made once per machine; prints its path.
# usage: scripts/debian-root.sh [PACKAGE...]    packages beside the essential ones
#
# Lives in the user's cache directory under the digest of this recipe, so that another recipe makes another file. Packages
# come from where this machine's apt gets them. Root is not needed: fakechroot stands in.
set -eu
export LC_ALL=C

cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/husk
key=$({ cat "$0" && echo "$*"; } | sha256sum | cut -c1-16)
more=$(echo "$*" | tr ' ' ,)
tar=$cache/debian-$key.tar
if [ -s "$tar" ]; then
	echo "$tar"
	exit 0
fi
mkdir -p "$cache"

# One builder at a time; whoever waited finds the tar made.
exec 9>"$cache/debian.lock"
flock 9
if [ -s "$tar" ]; then
	echo "$tar"
	exit 0
fi

mode=fakechroot
[ "$(id -u)" -eq 0 ] && mode=root
echo "making a Debian root file system with mmdebstrap (once, about 25 s) ..." >&2
part=$cache/debian-$key.part.tar
rm -f "$part"
# apt's own list of sources, as one-line entries; without any of this suite mmdebstrap falls back to its default.
# shellcheck disable=SC2016 # apt's own variables
sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
	sort -u | grep -E ' bookworm(-updates|-security)? main$' || true)
# TMPDIR: apt unpacks as its sandbox user, which must be able to get there.
if [ -n "$sources" ]; then
	printf '%s\n' "$sources" |
		TMPDIR=/tmp mmdebstrap --mode="$mode" --variant=essential ${more:+"--include=$more"} bookworm "$part" - 9>&- >&2
else
	TMPDIR=/tmp mmdebstrap --mode="$mode" --variant=essential ${more:+"--include=$more"} bookworm "$part" </dev/null 9>&- >&2
fi
mv "$part" "$tar"
echo "$tar"
