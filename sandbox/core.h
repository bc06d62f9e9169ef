/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core.h - what a guest was, as an ELF core file that a debugger opens together with the program
 *
 * Theory of operation: the file has one note segment and a PT_LOAD for each piece of memory that the guest can read; zeroes
 * are holes where the file can have such. The notes are those of a Linux process, since that is what debuggers know:
 * general registers (NT_PRSTATUS), floating-point ones (NT_FPREGSET), and an auxiliary vector (NT_AUXV) whose AT_ENTRY
 * tells how far from its own addresses the program lies. There is no NT_PRPSINFO: a debugger compares the name in it with
 * that of the program's file, which is not known here.
 *
 * A guest that faulted stands in one of the library's stubs (cpu.h), on the fault stack. Nobody wants to see that: the
 * registers of the core are those that the CPU pushed there, and the vector becomes a signal.
 *
 * What is in the file is a guest's, to be read by people.
 */
#ifndef SANDBOX_CORE_H
#define SANDBOX_CORE_H

#include "sandbox/area.h"
#include "sandbox/cpu.h"
#include "sandbox/image.h"

/** Write the core of a guest with this program, memory and CPU to @fd at its position: a file, where it makes holes, a
 *  pipe, or whatever else can be written. Not done: -errno; part of it may have been written. */
int core_write(int fd, const struct husk_sandbox_image *image, const struct areas *areas, const struct cpu_state *cpu,
	struct husk_error *err);

#endif
