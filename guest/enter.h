/* SPDX-License-Identifier: Apache-2.0 */
/* enter.h - the workload's own view: its root, /proc, /dev and the rest */
#ifndef GUEST_ENTER_H
#define GUEST_ENTER_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nodes;

/** What the agent knows of the world that workloads live in. */
struct workload_setup {
	const char *root; /* a mount point */
	int cgroup; /* directory of the workload's cgroup; -1: none */
	const char *hostname;
	bool read_only;
	char *const *volumes; /* they exist */
	size_t n_volumes;
	uint64_t shm_size;
	uint32_t nofile;
	uint32_t vsock_port; /* in the environment of programs; 0: it is not */
	const struct nodes *nodes; /* of the VM's own devices; NULL: none */
};

/** In the main workload's first process, in its new namespaces: make the setup's root the root and mount what programs
 *  expect to find. @cwd is made where missing while the root is still writable. */
int enter_root(const struct workload_setup *setup, const char *cwd, struct husk_error *err);

#endif
