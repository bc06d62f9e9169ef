#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# root.sh - the lab host's kernel and root file system, made once per machine; prints the directory that holds both.
#
# usage: tests/lab/root.sh everyday|bench
#
# The directory is in the user's cache, named by the digest of this recipe and of the packages' versions, and holds `vmlinuz`
# (Debian's cloud kernel, whose NVMe and ext4 are built in), `root.img` (ext4; its modules include kvm-amd) and `packages`.
# It appears whole or not at all; whoever comes second waits. Packages come from where this machine's apt gets them. Root
# is not needed: fakechroot and fakeroot stand in.
set -eu
export LC_ALL=C

kind=${1:?usage: root.sh everyday|bench}
# What husk is linked to; what its tests call; what a person who looks into a lab wants.
packages='kmod procps mount time iproute2 e2fsprogs util-linux strace python3 busybox-static ca-certificates socat
	libarchive13 libsquashfs1 libcurl4 libjansson4 libisal2 libzstd1 liblz4-1 libssl3 libseccomp2 zlib1g
	libasan8 libubsan1'
case $kind in
everyday) ;;
bench) packages="$packages qemu-system-x86" ;; # to compare with
*)
	echo "root.sh: unknown kind '$kind'; they are everyday and bench" >&2
	exit 2
	;;
esac
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/husk-test

# To ask apt takes seconds. While its lists and this recipe are as they were, so is the answer.
answer=$cache/lab-$kind.answer
now="$(sha256sum <"$0") $(stat -c %Y /var/lib/apt/lists 2>/dev/null)"
if [ -e "$answer" ] && [ "$(sed -n 1p "$answer")" = "$now" ] && [ -e "$(sed -n 2p "$answer")/root.img" ]; then
	sed -n 2p "$answer"
	exit 0
fi
tell() {
	printf '%s\n%s\n' "$now" "$1" >"$answer.$$"
	mv "$answer.$$" "$answer"
	echo "$1"
}
kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
[ -n "$kernel" ] || {
	echo "root.sh: apt knows no linux-image-cloud-amd64; apt-get update may help" >&2
	exit 1
}

# Versions are part of the key, so that the lab's libraries are never older than those that the build was linked to.
versions=$(apt-cache show --no-all-versions "$kernel" $packages | grep -E '^(Package|Version):')
key=$(printf '%s\n' "$kind" "$versions" | cat "$0" - | sha256sum | cut -c1-16)
made=$cache/lab-$kind-$key
if [ -e "$made/root.img" ]; then
	tell "$made"
	exit 0
fi
mkdir -p "$cache"
exec 9>"$cache/lab-$kind.lock"
flock 9
if [ -e "$made/root.img" ]; then
	tell "$made"
	exit 0
fi

echo "lab: making the $kind lab's Debian root with mmdebstrap (once, about two minutes) ..." >&2
work=$(mktemp -d "$cache/lab-part.XXXXXX")
trap 'rm -rf "$work"' EXIT
mode=fakechroot as_root=fakeroot
if [ "$(id -u)" -eq 0 ]; then
	mode=root as_root=
fi
# apt's own list of sources, as one-line entries; without any of this suite mmdebstrap falls back to its default.
# shellcheck disable=SC2016 # apt's own variables
sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
	sort -u | grep -E ' bookworm(-updates|-security)? main$' || true)
include=$(echo $packages | tr ' ' ',')
[ -z "$sources" ] && from=/dev/null || { from=$work/sources && printf '%s\n' "$sources" >"$from"; }
# TMPDIR: apt unpacks as its sandbox user, which must be able to get there.
TMPDIR=/tmp mmdebstrap --quiet --mode="$mode" --variant=essential --include="$include" \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='APT::Install-Recommends "false"' \
	bookworm "$work/root.tar" ${sources:+"$from"} </dev/null 9>&- >&2

echo "lab: its kernel and its disk ..." >&2
# Unpacked, not installed: nothing there needs an initramfs or a boot loader.
(cd "$work" && apt-get download -q "$kernel" >/dev/null && dpkg-deb -x "$kernel"_*.deb kernel)
mkdir -p "$work/out" "$work/root"
cp "$work"/kernel/boot/vmlinuz-* "$work/out/vmlinuz"
$as_root sh -eu -c '
	work=$1
	tar -C "$work/root" --exclude="./dev/*" -xf "$work/root.tar"
	cp -a "$work/kernel/lib/modules" "$work/root/usr/lib/"
	chown -R 0:0 "$work/root/usr/lib/modules"
	depmod -b "$work/root" "$(ls "$work/root/usr/lib/modules")"
	mkdir -p "$work/root/lab"
	echo lab >"$work/root/etc/hostname"
	printf "127.0.0.1 localhost lab\n::1 localhost\n" >"$work/root/etc/hosts"
	: >"$work/root/etc/resolv.conf"
	mke2fs -q -F -t ext4 -O ^has_journal -E assume_storage_prezeroed=1,root_owner=0:0 -L lab-root \
		-d "$work/root" "$work/out/root.img" 6G
' sh "$work" 9>&-
printf '%s\n' "$versions" >"$work/out/packages"
rm -rf "$made"
mv "$work/out" "$made"
tell "$made"
