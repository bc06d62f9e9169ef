/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout.h - where everything of a sandbox lies in guest-physical memory
 *
 * Virtual addresses are the same as physical ones. All that the library places is above 4 GiB, so that a guest which fixes its
 * addresses finds the space below empty. In this order, each in pages of its own (places.h):
 *
 *   SANDBOX_SUPPORT   descriptor tables, exception stubs (cpu.h)      read-only by memslot
 *   SANDBOX_PROGRAM   the program's code and constants                read-only by memslot
 *   core              its data | guard | fault stack | guard | heap | guard | stack | guard | input | guard | output
 *   info              the info page and the names                     read-only by memslot
 *   tables            page tables; their pages are not mapped by themselves
 *   cells             the host's and the guest's, a page each, when there are any
 *   SANDBOX_REGIONS   regions for which the caller chose no address
 *
 * A guard is a page that the page tables leave out: it stops a stack that grows too far, and does not stop a guest that writes
 * page tables of its own. Only what the memslots say is a wall.
 */
#ifndef SANDBOX_LAYOUT_H
#define SANDBOX_LAYOUT_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define SANDBOX_PAGE 4096ull
#define SANDBOX_SUPPORT_SIZE (2 * SANDBOX_PAGE)
#define SANDBOX_PROGRAM 0x100200000ull /* a multiple of 2 MiB: the greatest alignment that a program may ask for */
#define SANDBOX_SUPPORT (SANDBOX_PROGRAM - SANDBOX_SUPPORT_SIZE)
#define SANDBOX_REGIONS 0x800000000ull /* 32 GiB */
#define SANDBOX_ADDRESS_MAX (1ull << 39) /* one entry of the top page table; below it everything is */
#define SANDBOX_INFO_SIZE (16 * SANDBOX_PAGE)
#define SANDBOX_TSS_ROOM 128 /* at the end of the info pages: the task state segment, which says where the fault stack is */

static inline uint64_t page_up(uint64_t n)
{
	return (n + SANDBOX_PAGE - 1) & ~(SANDBOX_PAGE - 1);
}

#endif
