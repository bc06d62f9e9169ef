#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# build.sh - compile the runtime of sandbox programs into an archive
# usage: build.sh ARCHIVE AR COMPILER... -- FLAGS... -- SOURCES...
# variadic.c alone is compiled with floating point; it says why.
set -eu
archive=$1 ar=$2
shift 2
compiler=
while [ "$1" != -- ]; do
	compiler="$compiler $1"
	shift
done
shift
flags=
while [ "$1" != -- ]; do
	flags="$flags $1"
	shift
done
shift
objects=
mkdir -p "$archive.p"
for source; do
	object=$archive.p/$(basename "$source" .c).o
	case $source in */variadic.c) registers= ;; *) registers=-mgeneral-regs-only ;; esac
	# shellcheck disable=SC2086 # lists of words
	$compiler $flags $registers -c "$source" -o "$object"
	objects="$objects $object"
done
rm -f "$archive"
# shellcheck disable=SC2086
"$ar" rcsD "$archive" $objects
