/* SPDX-License-Identifier: Apache-2.0 */
/* request.h - what `run` and `create` are asked for */
#ifndef CLI_REQUEST_H
#define CLI_REQUEST_H

#include "cli/config.h"
#include "cli/doors.h"
#include "cli/environment.h"

/** A configuration with what it points to. */
struct vm_request {
	struct husk_vm_config config;
	struct husk_vm_json *json;
	struct environment env;
	struct door_list doors;
	struct disk_list disks;
	const char *entrypoint[2];
	bool create; /* set before: it is not to be started now, so that it lives on */
	bool raw; /* our own terminal hands on what is typed as it is */
};

int vm_request_take(struct cli *cli, struct vm_request *request, struct husk_error *err);
void vm_request_free(struct vm_request *request);

#endif
