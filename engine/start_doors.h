/* SPDX-License-Identifier: Apache-2.0 */
/* start_doors.h - what a start holds of doors until the supervisor has it: sockets, counters, the supervisor's own socket */
#ifndef ENGINE_START_DOORS_H
#define ENGINE_START_DOORS_H

#include "engine/door.h"
#include "engine/envelope.h"
#include "engine/vm.h"

/** Owned. */
struct start_doors {
	struct open_door *doors;
	size_t n;
	int stats_fd, service_fd;
	char *tls_path; /* NULL: no husk-tls here */
};

#define START_DOORS_INIT                                                                                               \
	{                                                                                                              \
		.stats_fd = -1, .service_fd = -1                                                                       \
	}

/** Open all doors of @config, the counters' file and supervisor.sock, with the doors noted in the VM's state, so that whoever
 *  finds the record knows what to remove. After a failure start_doors_take_down() takes down what was opened. */
int start_doors_open(const struct husk *husk, const struct husk_vm_config *config, const struct vm_record *record,
	struct start_doors *out, struct husk_error *err);
/** Put it all into the envelope. */
void start_doors_put(const struct start_doors *doors, struct envelope *e);
/** The start failed: remove the doors' paths, as far as they are still ours. */
void start_doors_take_down(struct start_doors *doors);
/** Close and free; the supervisor has its copies. */
void start_doors_free(struct start_doors *doors);

#endif
