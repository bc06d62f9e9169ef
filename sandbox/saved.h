/* SPDX-License-Identifier: Apache-2.0 */
/*
 * saved.h - a sandbox's snapshot as sections of a container (snapshot/container.h)
 *
 * Theory of operation: the state file is a container of machine kind "sandbox" with the sections below, each of version 1;
 * the memory is a file beside it (snapshot/memory_file.h). All integers are little-endian; names are padded with NULs to 64
 * bytes.
 *
 *   program   the ELF file, whole: what the image is made of again
 *   sizes     u64 stack, heap, input, output
 *   areas     records of 96 bytes, in the order in which their bytes lie in the memory, without gaps: u32 kind (enum
 *             area_kind) | u32 rights (enum husk_sandbox_rights) | u64 address, size | u64 offset in the memory | name
 *   cells     records of 88 bytes: name | u32 owner (enum husk_sandbox_cell_owner) | u32 0 | u64 address | u64 shadow
 *   cpuid     what the guest is told of its CPU; records of 28 bytes: u32 function, index, flags, eax, ebx, ecx, edx
 *   memory    u8[16] identity of the memory file | u64 its size
 *
 * and the CPU's state as KVM's structs for x86 are laid out (Linux, arch/x86/include/uapi/asm/kvm.h), which are part of the
 * kernel's stable interface:
 *
 *   regs      144 bytes, struct kvm_regs: u64 rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8 to r15, rip, rflags
 *   sregs     312 bytes, struct kvm_sregs: cs, ds, es, fs, gs, ss, tr, ldt (24 bytes each: u64 base, u32 limit, u16
 *             selector, u8 type, present, dpl, db, s, l, g, avl, unusable, padding), gdt, idt (16 bytes each: u64 base,
 *             u16 limit, u16[3] padding), u64 cr0, cr2, cr3, cr4, cr8, efer, apic_base, u64[4] pending interrupts
 *   debug     128 bytes, struct kvm_debugregs: u64[4] db, u64 dr6, dr7, flags, u64[9] reserved
 *   events    64 bytes, struct kvm_vcpu_events
 *   xcrs      392 bytes, struct kvm_xcrs: u32 number, flags, 16 records of 16 bytes (u32 register, u32 0, u64 value),
 *             u64[16] padding
 *   xsave     4096 bytes, struct kvm_xsave: the XSAVE area in its standard format (Intel SDM vol. 1, 13.4)
 *   msrs      records of 16 bytes: u32 register, u32 0, u64 value
 *
 * A file may come from a stranger. What load.c hands out is a sandbox that this library could have made: every area lies
 * where the program and the sizes put it or where a caller could have put it, with the rights of its kind; what is in
 * registers and memory is the guest's affair, and KVM's to check. Which functions the host has is no part of it: the program
 * says which it needs.
 */
#ifndef SANDBOX_SAVED_H
#define SANDBOX_SAVED_H

#include "sandbox/snapshot.h"
#include "snapshot/container.h"
#include "snapshot/memory_file.h"

#define SAVED_MACHINE "sandbox"
#define SAVED_MEMORY_SUFFIX ".memory"
#define SAVED_NAME (SANDBOX_NAME_MAX + 1)
#define SAVED_SIZES 32
#define SAVED_AREA 96
#define SAVED_CELL 88
#define SAVED_CPUID 28
#define SAVED_MSR 16
#define SAVED_MEMORY 24

enum saved_section {
	SAVED_AT_PROGRAM,
	SAVED_AT_SIZES,
	SAVED_AT_AREAS,
	SAVED_AT_CELLS,
	SAVED_AT_CPUID,
	SAVED_AT_MSRS,
	SAVED_AT_MEMORY,
	SAVED_AT_CPU, /* the first of the parts below */
};

/** The parts of the CPU's state that are one struct of KVM's each. */
struct saved_part {
	size_t at, size; /* in struct cpu_state */
};

#define SAVED_PARTS 6
#define SAVED_SECTIONS (SAVED_AT_CPU + SAVED_PARTS)

/** In the order of enum saved_section. */
extern const struct container_known saved_sections[SAVED_SECTIONS];
extern const struct saved_part saved_parts[SAVED_PARTS];

/** Put all of @snapshot but its memory, which will be called @identity, into @writer. */
int saved_encode(const struct husk_sandbox_snapshot *snapshot, const uint8_t identity[MEMORY_FILE_IDENTITY],
	struct container_writer *writer, struct husk_error *err);
/** Make a snapshot from @container, checked, without its memory: fd is -1, and size and *@identity say which memory belongs
 *  to it. -EBADMSG with the reason; -ENOMEM. */
int saved_decode(const struct container *container, struct husk_sandbox_snapshot **out,
	uint8_t identity[MEMORY_FILE_IDENTITY], struct husk_error *err);

#endif
