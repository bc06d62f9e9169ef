/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registers.h - the first vCPU's registers as a kernel wants to be entered
 *
 * 64-bit: long mode on the loader's page tables, rsi to boot_params (Documentation/arch/x86/boot.rst, "64-bit Boot
 * Protocol"). PVH: 32-bit protected mode without paging, ebx to hvm_start_info (Xen, docs/misc/pvh.pandoc). Interrupts are
 * off, and without an interrupt table a fault ends the guest, as on hardware.
 */
#ifndef VMM_MACHINE_ARCH_X86_64_REGISTERS_H
#define VMM_MACHINE_ARCH_X86_64_REGISTERS_H

#include "vmm/machine/arch/x86_64/boot.h"

#include <linux/kvm.h>

/** @sregs: in as KVM_GET_SREGS gave it after a reset (the APIC's base stays), out for KVM_SET_SREGS; @regs: out. */
void x86_entry_registers(const struct x86_entry *entry, struct kvm_sregs *sregs, struct kvm_regs *regs);

#endif
