/* SPDX-License-Identifier: Apache-2.0 */
/* qemu_argv.h - the command line of a VM's QEMU */
#ifndef VMM_MACHINE_QEMU_QEMU_ARGV_H
#define VMM_MACHINE_QEMU_QEMU_ARGV_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define QEMU_DISKS_MAX 20

/** What QEMU is told. Descriptors are numbers in QEMU's process. */
struct qemu_start {
	const char *path, *id, *cmdline;
	uint64_t memory; /* bytes */
	uint32_t cpus;
	int memory_fd, kernel_fd, initrd_fd; /* initrd: -1 for none */
	int qmp_fd, console_fd, vsock_fd;
	int hvc_fd; /* hvc0, the workload's console; -1 for none */
	int disk_fd[QEMU_DISKS_MAX]; /* vhost-user, in the guest's order */
	size_t n_disks;
};

/** Make the NULL-terminated argv; free it with qemu_argv_free(). */
int qemu_argv_make(const struct qemu_start *start, char ***argv, struct husk_error *err);
void qemu_argv_free(char ***argv);

#endif
