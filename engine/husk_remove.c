/* SPDX-License-Identifier: Apache-2.0 */
/*
 * husk_remove.c - husk-remove HOME RUNTIME ID: remove the record of a VM that has ended
 *
 * Theory of operation: the supervisor of a VM that was started with `remove` becomes this program once it has written the VM's last
 * state and nothing of the VM lives any more, so that its pid, by which others know it, stays until the record is gone. It
 * parses JSON and walks directories, which the supervisor does not. Only the VM's own supervisor is served: a record that
 * names another process that lives is not ours. Should it be killed, the next command finds the record (cleanup.c).
 */
#include "engine/cleanup.h"
#include "engine/status.h"

#include <fcntl.h>
#include <stdio.h>

static int fail(const struct husk_error *err)
{
	fprintf(stderr, "husk-remove: %s\n", err->message);
	return 1;
}

int main(int argc, char **argv)
{
	CLEANUP_VM_RECORD struct vm_record record = VM_RECORD_INIT;
	struct husk_error err = {0};
	struct status now;
	if (argc != 4 || !vm_id_check(argv[3])) {
		fprintf(stderr, "husk-remove is started by husk; see husk(1).\n");
		return 2;
	}
	const struct husk husk = {.home = argv[1], .runtime = argv[2]};
	int rc = vm_record_open_within(&husk, argv[3], VM_LOCK_MS, &record, &err);
	if (rc == -ENOENT)
		return 0; /* somebody was faster */
	rc = rc < 0 ? rc : status_read_locked(&record, &now, &err);
	if (rc < 0)
		return fail(&err);
	if (now.alive && (now.state.supervisor.pid != getpid() || !now.ending)) {
		error_set(&err, -EBUSY, "VM %s lives", argv[3]);
		return fail(&err);
	}
	cleanup_after(&record, &now.state);
	return vm_record_remove(&husk, &record, &err) < 0 ? fail(&err) : 0;
}
