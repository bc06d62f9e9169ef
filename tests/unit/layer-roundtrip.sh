#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# layer-roundtrip.sh LAYER-TOOL - what tar packs, layer-tool converts and unsquashfs unpacks is what was there
#
# A tree with everything a root file system has (devices, capabilities, hard links, holes, long names) is packed by GNU tar
# in its formats and by bsdtar, converted, unpacked by unsquashfs (none of our code) and compared: type, mode, owners, size,
# times, link count, target, device, attributes, contents. Needs root, for owners and devices.
set -u
tool=$1
n=0 failed=0
check() { # NAME COMMAND...
	local name=$1
	shift
	n=$((n + 1))
	if "$@"; then echo "ok $n - $name"; else echo "not ok $n - $name"; failed=1; fi
}
for need in unsquashfs bsdtar setfattr getfattr zstd; do
	command -v $need >/dev/null || { echo "1..0 # SKIP no $need"; exit 0; }
done
[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 0; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir "$tree"
(
	cd "$tree" || exit 1
	mkdir -p etc usr/bin tmp many "$(printf 'd%.0s' {1..200})/$(printf 'e%.0s' {1..200})"
	chmod 1777 tmp; chmod 2750 etc
	echo suid >usr/bin/suid; chmod 4755 usr/bin/suid
	echo owned >etc/owned; chown 4000000000:65534 etc/owned
	ln etc/owned usr/owned-too; ln -s owned etc/soft; ln -s "$(printf 't%.0s' {1..250})" long-target
	mknod null c 1 3; mknod disk b 8 17; mkfifo pipe
	head -c 700000 /dev/urandom >noise; head -c 131072 /dev/urandom >one-block; head -c 131073 /dev/urandom >one-more
	: >empty; head -c 300000 /dev/zero >zeros
	truncate -s 150M sparse; echo middle | dd of=sparse bs=1 seek=100000000 conv=notrunc status=none
	truncate -s 1000000 tail-hole; echo x | dd of=tail-hole bs=1 conv=notrunc status=none
	for i in $(seq 300); do echo "$i" >"many/$i"; done
	echo 1 >"$(printf 'n%.0s' {1..255})"; echo 2 >$'latin\xe9\xff'; echo 3 >'with "quotes" and
a newline'
	setfattr -n user.note -v hello etc/owned
	setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 usr/bin/suid
	setfattr -n trusted.thing -v "$(printf 'v%.0s' {1..2000})" etc
	find . -exec touch -h -d '2001-02-03 04:05:06' {} +
	touch -d '1970-01-01 00:00:00 UTC' empty
)
facts() { # DIRECTORY: everything that can be said of a tree
	(
		cd "$1" || exit 1
		find . -type d -printf '%p %y %m %U:%G %n %T@\n' -o -printf '%p %y %m %U:%G %n %T@ %s %l\n' | sort
		find . \( -type c -o -type b \) -exec stat -c '%n %t:%T' {} + | sort
		find . -type f -exec sha256sum {} + | sort
		find . -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex 2>/dev/null
	)
}
facts "$tree" >"$work/want"
compare() { # NAME TAR
	rm -rf "$work/got" "$work/image"
	"$tool" convert "$2" "$work/image" >"$work/said" || return 1
	unsquashfs -q -n -d "$work/got" "$work/image" >/dev/null 2>"$work/unsquashfs" || { sed 's/^/# /' "$work/unsquashfs"; return 1; }
	facts "$work/got" >"$work/have"
	diff "$work/want" "$work/have" | head -20 | sed 's/^/# /'
	cmp -s "$work/want" "$work/have"
}
attributes=(--xattrs '--xattrs-include=*' --numeric-owner)
tar -C "$tree" "${attributes[@]}" --format=pax -cf "$work/pax.tar" .
check "pax, contents in full" compare pax "$work/pax.tar"
gzip -1k "$work/pax.tar"
check "pax, gzip" compare gzip "$work/pax.tar.gz"
zstd -q "$work/pax.tar"
check "pax, zstd" compare zstd "$work/pax.tar.zst"
for version in 0.0 0.1 1.0; do
	tar -C "$tree" "${attributes[@]}" --format=pax --sparse --sparse-version=$version -cf "$work/sparse.tar" .
	check "pax, sparse format $version" compare sparse "$work/sparse.tar"
done
bsdtar -C "$tree" --format=pax --xattrs --numeric-owner -cf "$work/bsd.tar" . 2>/dev/null # it grumbles about names
check "bsdtar's pax" compare bsd "$work/bsd.tar"
setfattr -x user.note "$tree/etc/owned"
setfattr -x security.capability "$tree/usr/bin/suid"
setfattr -x trusted.thing "$tree/etc"
facts "$tree" >"$work/want"
tar -C "$tree" --format=gnu --sparse --numeric-owner -cf "$work/gnu.tar" .
check "GNU, old sparse format" compare gnu "$work/gnu.tar"
"$tool" tree "$tree" "$work/image" >"$work/said"
rm -rf "$work/got"
unsquashfs -q -n -d "$work/got" "$work/image" >/dev/null 2>&1
facts "$work/got" >"$work/have"
check "the tree itself" diff "$work/want" "$work/have"
check "holes take no room" [ "$(stat -c %s "$work/image")" -lt 2000000 ]
"$tool" convert "$work/gnu.tar" "$work/a" >/dev/null
"$tool" convert - "$work/b" <"$work/gnu.tar" >/dev/null
check "the same layer makes the same image" cmp "$work/a" "$work/b"
echo "1..$n"
exit $failed
