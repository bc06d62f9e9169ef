#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# credits.sh - the example of credits runs end to end: all work is done, in windows, under one call. usage: credits.sh CREDITS GUEST
if [ ! -w /dev/kvm ]; then
	echo "1..0 # skip no /dev/kvm here; the KVM lab runs this"
	exit 0
fi
said=$("$1" "$2" 2>&1)
code=$?
printf '%s\n' "$said" | sed 's/^/# /'
fails=0
check() {
	number=$((number + 1))
	if [ "$1" = 0 ]; then echo "ok $number - $2"; else
		echo "not ok $number - $2"
		fails=1
	fi
}
says() {
	printf '%s\n' "$said" | grep -Eq "$1"
	check $? "$2"
}
check $code "it succeeds"
says '^2000 items of work through a window of 512: 210132 steps' "every item is worked on once, and its result is right"
says 'without credit [1-9][0-9]* times' "the window was closed at times"
says 'left for the host [0-9] times$' "the guest did not leave for the host for each item"
"$1" /nonexistent.elf >/dev/null 2>&1
[ $? = 1 ]
check $? "without its guest it fails"
echo "1..$number"
exit $fails
