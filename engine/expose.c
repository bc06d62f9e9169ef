/* SPDX-License-Identifier: Apache-2.0 */
/*
 * expose.c - open and close doors of a VM that runs
 *
 * Theory of operation: the door's sockets are bound here and sent to the VM's supervisor over supervisor.sock, one message
 * there and one back. The supervisor removes a door's path at its end; we do when it was refused or does not answer in time,
 * and the supervisor closes a door whose asker has gone. A path is asked for by its name or by any other way to write it.
 */
#include "engine/expose.h"

#include "base/fd.h"
#include "base/loop.h"
#include "base/path.h"
#include "engine/check.h"
#include "engine/door.h"
#include "engine/vm.h"

#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ANSWER_MS 10000

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

static int connect_supervisor(const struct husk *husk, const char *id, struct husk_error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s/" VM_SERVICE_NAME, husk->runtime, id);
	if (n >= (int)sizeof(address.sun_path))
		return error_set(
			err, -ENAMETOOLONG, "reach the supervisor of VM %s: %s is too long", id, husk->runtime);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return steal_fd(&fd);
	if (errno == ENOENT || errno == ECONNREFUSED)
		return error_set(err, -ESRCH, "VM %s has ended", id);
	return error_errno(err, "reach the supervisor of VM %s", id);
}

/** One message there, one back, *@answer. */
static int ask(const struct husk *husk, const char *id, const struct vm_message *message, const int *fds, size_t n_fds,
	struct vm_message *answer, struct husk_error *err)
{
	uint64_t deadline = clock_monotonic_ns() / 1000000 + ANSWER_MS;
	CLEANUP_FD int sock = connect_supervisor(husk, id, err);
	if (sock < 0)
		return sock;
	ssize_t n = fd_send(sock, message, sizeof(*message), fds, n_fds);
	if (n < 0)
		return error_set(
			err, n == -EPIPE ? -ESRCH : (int)n, "tell the supervisor of VM %s: %s", id, strerror(-(int)n));
	for (;;) {
		uint64_t now = clock_monotonic_ns() / 1000000;
		struct pollfd one = {.fd = sock, .events = POLLIN};
		if (now >= deadline)
			return error_set(err, -ETIMEDOUT, "VM %s did not answer within %d s", id, ANSWER_MS / 1000);
		if (poll(&one, 1, (int)(deadline - now)) <= 0)
			continue;
		n = recv(sock, answer, sizeof(*answer), MSG_DONTWAIT | MSG_TRUNC);
		if (n >= 0 || (errno != EAGAIN && errno != EINTR))
			break;
	}
	if (n <= 0)
		return error_set(err, -ESRCH, "VM %s ended before it answered", id);
	if (n != sizeof(*answer) || !vm_message_check(answer) || answer->kind != VM_MESSAGE_EXPOSED)
		return error_set(err, -EPROTO, "VM %s gave an answer that is none; is it another version of husk?", id);
	return 0;
}

/** The answer's own words say what was tried. */
static int judge(const char *id, const struct vm_message *answer, struct husk_error *err)
{
	if (!answer->value)
		return 0;
	return error_set(err, -(int)answer->value, "VM %s: %s", id,
		answer->text[0] ? answer->text : strerror((int)answer->value));
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
	rc = name ? ask(husk, id, &message, door.fd, vmm_door_fds(door.door.kind), &answer, err)
		  : error_set(err, -ENOMEM, "out of memory");
	if (rc < 0)
		error_prefix(err, rc, "open the %s door %s", vm_door_kind_name(door.door.kind), door.door.endpoint);
	rc = rc < 0 ? rc : judge(id, &answer, err);
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
	rc = ask(husk, id, &message, NULL, 0, &answer, err);
	return rc < 0 ? error_prefix(err, rc, "close the door %s", endpoint) : judge(id, &answer, err);
}
