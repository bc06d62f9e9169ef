#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# unsafe.sh - raw pointers into a sandbox are in libhusk when it was built with -Dunsafe_raw_memory=true, and only then: the symbol
# tables of this build and, where SOURCE is given, of one with the other setting, which takes minutes to make.
# usage: unsafe.sh LIBHUSK.so LIBHUSK.a true|false [SOURCE]
here=$3
source=${4-}
symbol=husk_sandbox_memory_ptr_unsafe
number=0
fails=0
check() {
	number=$((number + 1))
	if [ "$1" = 0 ]; then echo "ok $number - $2"; else
		echo "not ok $number - $2"
		fails=1
	fi
}
# tables SETTING LIBHUSK.so LIBHUSK.a: as SETTING says.
tables() {
	shared=$(nm -D --defined-only "$2")
	static=$(nm --defined-only "$3" 2>/dev/null)
	printf '%s\n' "$shared" | grep -q ' T husk_sandbox_memory_read@@HUSK_0$' &&
		printf '%s\n' "$static" | grep -q ' T husk_sandbox_memory_read$'
	check $? "$1: both libraries have their other symbols"
	! printf '%s\n' "$shared" | grep -v ' A HUSK' | grep -v ' husk_'
	check $? "$1: the shared one has no symbol of another name"
	if [ "$1" = true ]; then
		printf '%s\n' "$shared" | grep -q " T $symbol@@HUSK_UNSAFE_0\$" &&
			printf '%s\n' "$static" | grep -q " T $symbol\$"
		check $? "true: both have $symbol"
	else
		! printf '%s\n%s\n' "$shared" "$static" | grep "$symbol"
		check $? "false: neither has $symbol"
	fi
}
tables "$here" "$1" "$2"
if [ -z "$source" ]; then
	echo "1..$number"
	exit $fails
fi
there=true
[ "$here" = true ] && there=false
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
if meson setup "$tree" "$source" -Dunsafe_raw_memory=$there >"$tree/log" 2>&1 &&
	ninja -C "$tree" "lib/$(basename "$1")" "lib/$(basename "$2")" >"$tree/log" 2>&1; then
	tables "$there" "$tree/lib/$(basename "$1")" "$tree/lib/$(basename "$2")"
else
	sed 's/^/# /' "$tree/log"
	check 1 "a library with unsafe_raw_memory=$there is built"
fi
echo "1..$number"
exit $fails
