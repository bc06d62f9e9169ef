/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_modules.h - the modules of the distribution's kernel that guests use, and what a guest of which machine does with each
 *
 * Theory of operation: a fetch keeps what kernel_modules_wanted() names and what that needs, and writes the names into the
 * kernel's directory ("wanted"), so that a kernel that was fetched for other names is seen and fetched anew. Which of the
 * modules a VM gets is decided when it starts, by the name of each: a table has those that only one machine has devices for
 * and those that can wait until the agent is ready. What the table does not know is loaded by every guest, first.
 */
#ifndef ENGINE_KERNEL_MODULES_H
#define ENGINE_KERNEL_MODULES_H

#include "base/error.h"
#include "vmm/config.h"

#include <stdbool.h>
#include <stddef.h>

#define KERNEL_MODULES_MAX 64

enum kernel_module_use {
	KERNEL_MODULE_BOOT, /* before the root is mounted */
	KERNEL_MODULE_LATE, /* once the agent is ready */
	KERNEL_MODULE_UNUSED, /* its devices do not exist on that machine */
};

/** The names of the modules that a fetch keeps, one a line. Static. */
const char *kernel_modules_wanted(void);

/** What the text @dep (modules.dep of depmod) says that the wanted modules need, themselves included: paths in load order,
 *  NULL-terminated, malloc'ed with the list. What @builtin (modules.builtin) has is left out. -ENOENT: neither has a module. */
int kernel_modules_collect(const char *dep, const char *builtin, char ***list, struct husk_error *err);

/** What a guest of @machine does with the module in @file ("virtio-rng.ko"); @hvc: its workload has hvc0 for a console. */
enum kernel_module_use kernel_module_use(const char *file, enum vmm_machine machine, bool hvc);

void kernel_modules_free(char ***list);

#endif
