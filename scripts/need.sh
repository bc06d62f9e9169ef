#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# need.sh - Debian packages per purpose: install what is missing, or say the one line that does.
#
# usage: scripts/need.sh build|demo|test|kernel...
# As root, or with a sudo that asks for no password, missing packages are installed. Otherwise one line that begins with
# `apt-get update` goes to standard output and the exit status is 1. Nothing is touched when nothing is missing.
set -eu

# What compiles husk.
build='gcc libc6-dev make meson ninja-build pkg-config musl-tools linux-libc-dev
	libarchive-dev libsquashfs-dev libcurl4-openssl-dev libjansson-dev libisal-dev libzstd-dev liblz4-dev
	libseccomp-dev libssl-dev zlib1g-dev python3'
# What husk runs on (QEMU, mke2fs, kernel packages), and what makes the Debian root of the demo.
demo='qemu-system-x86 e2fsprogs kmod xz-utils lz4 dpkg apt ca-certificates mmdebstrap fakechroot fakeroot
	debian-archive-keyring'
# What the end-to-end tests and the benches compare with and write images with.
test='git acpica-tools strace busybox-static cpio squashfs-tools squashfs-tools-ng docker-registry skopeo umoci buildah gdisk socat
	zstd util-linux libasan8 libubsan1 s6 curl wrk redis-tools postgresql-client openssl libarchive-tools attr gdb'
# What `husk kernel build` compiles the tuned guest kernel with, beside gcc and make.
kernel='binutils flex bison bc libelf-dev perl tar gzip xz-utils'

wanted=
for purpose; do
	case $purpose in
	build) wanted="$wanted $build" ;;
	demo) wanted="$wanted $demo" ;;
	test) wanted="$wanted $test" ;;
	kernel) wanted="$wanted $kernel" ;;
	*)
		echo "need.sh: unknown purpose '$purpose'; they are build, demo, test and kernel" >&2
		exit 2
		;;
	esac
done

missing=
for package in $wanted; do
	# A package may also be provided by another one; what dpkg calls installed is enough.
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
	[ "$status" = installed ] || missing="$missing $package"
done
# Packages may be there without the lists that `husk kernel fetch` needs (a trimmed base image).
lists=no
case " $* " in *' demo '*) apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || lists=missing ;; esac
[ -n "$missing" ] || [ $lists = missing ] || exit 0

line="apt-get update"
[ -z "$missing" ] || line="$line && apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" -eq 0 ]; then
	as_root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
	as_root='sudo -n'
else
	echo "$line"
	exit 1
fi
echo "installing:${missing:- package lists}" >&2
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # both are lists of words
{
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update
	[ -z "$missing" ] || $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $missing
} </dev/null >&2
