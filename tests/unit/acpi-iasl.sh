#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# acpi-iasl.sh ACPI-TOOL - what ACPICA's compiler reads in the tables that acpi-tool writes
#
# Each table is disassembled, the DSDT and the data tables compiled again, without an error or a warning; and what stands in
# the disassembly is what layout.h says. An opinion on AML that is not ours.
set -u
tool=$(realpath "$1")
n=0 failed=0
check() { # NAME COMMAND...
	local name=$1
	shift
	n=$((n + 1))
	if "$@"; then echo "ok $n - $name"; else echo "not ok $n - $name"; failed=1; fi
}
command -v iasl >/dev/null || { echo "1..0 # SKIP no iasl (package acpica-tools)"; exit 0; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

clean() { # TABLE: disassembled and compiled again with nothing said against it
	iasl -d "$1.dat" >"$1.log" 2>&1 && [ -s "$1.dsl" ] && ! grep -E 'Error|Warning|Invalid' "$1.log" "$1.dsl" &&
		iasl -p "$1-again" "$1.dsl" >"$1.again" 2>&1 && grep -q '0 Errors, 0 Warnings' "$1.again" ||
		{ sed 's/^/# /' "$1.log" "$1.again"; return 1; }
}
has() { # COUNT TABLE PATTERN: so many lines
	local found
	found=$(grep -Ec -- "$3" "$2.dsl")
	[ "$found" = "$1" ] || { echo "# $found lines instead of $1 have: $3"; return 1; }
}
after() { # DEVICE PATTERN...: in that device, in one line once white space is squeezed
	local text
	text=$(sed -n "/Device ($1)/,/^        }/p" dsdt.dsl | tr -s ' \n' ' ')
	shift
	for pattern; do grep -Eq -- "$pattern" <<<"$text" || { echo "# not there: $pattern"; return 1; }; done
}
interrupt() { # GSI SHARING
	printf 'Interrupt \(ResourceConsumer, Edge, ActiveHigh, %s, ,, \) \{ 0x%08X, \}' "$2" "$1"
}

for shape in '2 8' '32 24'; do
	read -r cpus slots <<<"$shape"
	rm -f ./*.dsl ./*.dat
	check "tables for $cpus processors and $slots slots" "$tool" "$cpus" "$slots" .
	for table in xsdt facp apic dsdt; do check "$table is clean" clean $table; done
	check "a device and an enabled local APIC per processor" eval \
		"has $cpus dsdt 'ACPI0007' && has $cpus apic 'Processor Enabled : 1'"
	check "a device per slot" has "$slots" dsdt '"LNRO0005"'
	for ((i = 0; i < slots; i += slots > 18 ? 1 : 7)); do
		sharing=Exclusive
		((i % 18 + 18 < slots)) && sharing=Shared
		check "slot $i: its window, its interrupt" after "$(printf V%03d $i)" "_UID, $([ $i -gt 1 ] && printf '0x%02X' $i)" \
			"Memory32Fixed \(ReadWrite, $(printf '0x%08X' $((0xd0000000 + 4096 * i))), .* 0x00001000," \
			"$(interrupt $((5 + i % 18)) $sharing)"
	done
done

check "the serial port" after COM1 PNP0501 'IO \(Decode16, 0x03F8, .* 0x03F8, .* 0x08,' "$(interrupt 4 Exclusive)"
check "the power button" after PWRB PNP0C0C
check "the VM generation id" after VGEN '_CID, Package \(0x02\) .* "VM_Gen_Counter", "VMGENCTR" \}' \
	'_DDN, "VM_Gen_Counter"' 'ADDR, Package \(0x02\) .* 0x000E0000, Zero \}'
check "the generic event device reads its port once and notifies" after GED ACPI0013 "$(interrupt 23 Exclusive)" \
	'OperationRegion \(EVTR, SystemIO, 0x0603, One\)' 'Field \(EVTR, ByteAcc, NoLock, Preserve\) \{ EVTS, 8 \}' \
	'Method \(_EVT, 1, Serialized\)' '\{ Local0 = EVTS ' 'If \(\(Local0 & One\)\) \{ Notify \(PWRB, 0x80\)' \
	'If \(\(Local0 & 0x02\)\) \{ Notify \(VGEN, 0x80\)'
check "the port is read in one place" has 1 dsdt '= EVTS'
check "soft off" eval "tr -s ' \n' ' ' <dsdt.dsl | grep -Eq '_S5, Package \(0x04\) .*\{ 0x05, Zero, Zero, Zero \}'"
check "the I/O APIC" eval "has 1 apic 'Address : FEC00000' && has 1 apic 'Interrupt : 00000000'"
check "an NMI at LINT1 of all processors" eval "has 1 apic 'Processor ID : FF' && has 1 apic 'Interrupt Input LINT : 01'"
check "hardware-reduced, with a reset register" eval \
	"has 1 facp 'Hardware Reduced \(V5\) : 1' && has 1 facp 'Reset Register Supported \(V2\) : 1'"
check "no VGA, no CMOS clock, no keyboard controller" eval "has 1 facp 'VGA Not Present \(V4\) : 1' &&
	has 1 facp 'CMOS RTC Not Present \(V5\) : 1' && has 1 facp '8042 Present on ports 60/64 \(V2\) : 0'"
check "where to reset and to sleep" eval "has 1 facp 'Address : 0000000000000602' &&
	has 1 facp 'Address : 0000000000000600' && has 1 facp 'Address : 0000000000000601'"
echo "1..$n"
exit $failed
