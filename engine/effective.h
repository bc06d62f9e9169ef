/* SPDX-License-Identifier: Apache-2.0 */
/* effective.h - the configuration that a VM really has, for its record */
#ifndef ENGINE_EFFECTIVE_H
#define ENGINE_EFFECTIVE_H

#include "engine/boot.h"
#include "engine/disks.h"
#include "engine/machine.h"

#include <jansson.h>

/** What was decided beyond the configuration itself. Borrowed. */
struct effective {
	const struct husk_vm_config *config;
	const struct machine_choice *machine;
	const struct boot *boot;
	const struct open_disks *disks;
	uint64_t memory, scratch; /* as rounded */
	uint64_t listen_wait_ms;
	uint32_t vsock_port;
};

/** The configuration as JSON that config_json_read() takes: what was left to husk is filled in, paths are absolute. NULL
 *  without memory. */
json_t *effective_write(const struct effective *effective);

#endif
