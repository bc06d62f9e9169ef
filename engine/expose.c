/* SPDX-License-Identifier: Apache-2.0 */
/*
 * expose.c - open and close doors of a VM that runs
 *
 * Theory of operation: the door's sockets are bound here and sent to the VM's supervisor over supervisor.sock, one message
 * there and one back. The supervisor removes a door's path at its end; we do when it was refused or does not answer in time,
 * and the supervisor closes a door whose asker has gone. A path is asked for by its name or by any other way to write it.
 */
#include "engine/expose.h"

#include "base/path.h"
#include "engine/check.h"
#include "engine/control.h"
#include "engine/door.h"
#include "engine/vm.h"

#include <fcntl.h>
#include <libgen.h>
#include <string.h>

/** The VM's runtime directory; -ESRCH when it has ended. */
static int open_runtime(const struct husk *husk, const char *id, struct husk_error *err)
{
	CLEANUP_FREE char *path = path_join(husk->runtime, id);
	int fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
	if (fd >= 0)
		return fd;
	return path && errno == ENOENT ? error_set(err, -ESRCH, "VM %s has ended", id)
				       : error_errno(err, "open the runtime directory of VM %s", id);
}

int expose_open(const struct husk *husk, const char *id, const struct husk_door *wanted, char **endpoint,
	struct husk_error *err)
{
	struct open_door door = OPEN_DOOR_INIT;
	int rc = check_door(wanted, err);
	if (rc < 0)
		return rc;
	CLEANUP_FD int runtime = open_runtime(husk, id, err);
	if (runtime < 0)
		return runtime;
	const struct door_nest nest = {0};
	rc = door_open(husk, runtime, wanted, &nest, &door, err);
	if (rc < 0)
		return rc;
	CLEANUP_FREE char *name = strdup(door.door.endpoint);
	struct vm_message answer, message = {.kind = VM_CONTROL_EXPOSE, .door = door.door};
	rc = name ? control_ask(husk, id, &message, door.fd, vmm_door_fds(door.door.kind), VM_MESSAGE_EXPOSED,
			    CONTROL_ANSWER_MS, &answer, err)
		  : error_set(err, -ENOMEM, "out of memory");
	if (rc < 0)
		error_prefix(err, rc, "open the %s door %s", vm_door_kind_name(door.door.kind), door.door.endpoint);
	rc = rc < 0 ? rc : control_judge(id, &answer, err);
	if (rc < 0) {
		door_take_down(&door);
		return rc;
	}
	door_close(&door);
	if (endpoint)
		*endpoint = steal_pointer(&name);
	return 0;
}

/** An endpoint as it stands in the record: a path with its directory resolved. */
static int canonical(const char *endpoint, char out[VM_ENDPOINT_MAX])
{
	CLEANUP_FREE char *copy = strdup(endpoint);
	CLEANUP_FREE char *again = strdup(endpoint);
	bool is_path = strchr(endpoint, '/') || !strchr(endpoint, ':'); /* a TCP endpoint has its port */
	if (!copy || !again)
		return -ENOMEM;
	CLEANUP_FREE char *directory = is_path ? realpath(dirname(copy), NULL) : NULL;
	int n = directory ? snprintf(out, VM_ENDPOINT_MAX, "%s/%s", strcmp(directory, "/") == 0 ? "" : directory,
				    basename(again))
			  : snprintf(out, VM_ENDPOINT_MAX, "%s", endpoint);
	return n < VM_ENDPOINT_MAX ? 0 : -ENAMETOOLONG;
}

int expose_close(const struct husk *husk, const char *id, const char *endpoint, struct husk_error *err)
{
	struct vm_message answer, message = {.kind = VM_CONTROL_UNEXPOSE};
	int rc = canonical(endpoint, message.door.endpoint);
	if (rc < 0)
		return error_set(err, rc == -ENAMETOOLONG ? -ENOENT : rc, "VM %s has no door at %s", id, endpoint);
	rc = control_ask(
		husk, id, &message, NULL, 0, VM_MESSAGE_EXPOSED, CONTROL_ANSWER_MS, &answer, err);
	return rc < 0 ? error_prefix(err, rc, "close the door %s", endpoint) : control_judge(id, &answer, err);
}
