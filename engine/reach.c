/* SPDX-License-Identifier: Apache-2.0 */
/* reach.c - the way to a VM's agent (theory of operation: reach.h) */
#include "engine/reach.h"

#include "agent/protocol.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/state.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

int reach_check(const struct husk *husk, const char *id, struct husk_error *err)
{
	struct vm_state_record state;
	CLEANUP_FREE char *path = path_format("%s/vms/%s/state", husk->home, id);
	CLEANUP_FD int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return path && errno == ENOENT ? error_set(err, -ENOENT, "there is no VM %s", id)
					       : error_errno(err, "open the state of VM %s", id);
	int rc = state_read(fd, &state, err);
	if (rc < 0)
		return error_prefix(err, rc, "read the state of VM %s", id);
	if (state.state == VM_RUNNING)
		return 0;
	if (state.state == VM_PAUSED)
		return error_set(err, -EAGAIN, "VM %s is paused", id);
	if (state.state == VM_STARTING && process_alive(&state.supervisor, state.boot_id))
		return error_set(err, -EAGAIN, "VM %s is starting: its agent has not answered yet", id);
	return error_set(err, -ESRCH, "VM %s does not run", id);
}

int reach_agent(const struct husk *husk, const char *id, uint64_t timeout_ms, struct husk_error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const struct timeval limit = {
		.tv_sec = (time_t)(timeout_ms / 1000), .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};
	int rc = reach_check(husk, id, err);
	if (rc < 0)
		return rc;
	int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s/" REACH_SOCKET, husk->runtime, id);
	if (n >= (int)sizeof(address.sun_path))
		return error_set(err, -ENAMETOOLONG, "reach the agent of VM %s: %s is too long", id, husk->runtime);
	/* Blocking until it is connected, since a full backlog cannot be polled for; unix(7) sockets heed SO_SNDTIMEO there. */
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return error_errno(err, "reach the agent of VM %s", id);
	do
		rc = connect(fd, (struct sockaddr *)&address, sizeof(address));
	while (rc < 0 && errno == EINTR);
	if (rc < 0 && (errno == ENOENT || errno == ECONNREFUSED))
		return error_set(err, -ESRCH, "VM %s does not run: nobody answers for it", id);
	if (rc < 0 && errno == EAGAIN)
		return error_set(
			err, -ETIMEDOUT, "VM %s took no connection within %llu ms", id, (unsigned long long)timeout_ms);
	if (rc < 0 || fd_set_nonblocking(fd, true) < 0)
		return error_errno(err, "reach the agent of VM %s", id);
	return steal_fd(&fd);
}

int reach_refused(const char *id, uint32_t code, const char *text, struct husk_error *err)
{
	static const int codes[] = {
		[AGENT_ERROR_PROTOCOL] = -EPROTO,
		[AGENT_ERROR_VERSION] = -EPROTO,
		[AGENT_ERROR_BUSY] = -ESRCH,
		[AGENT_ERROR_NOT_EXECUTABLE] = -EACCES,
		[AGENT_ERROR_NOT_FOUND] = -ENOENT,
		[AGENT_ERROR_USER] = -EINVAL,
		[AGENT_ERROR_DIRECTORY] = -ENOTDIR,
		[AGENT_ERROR_SYSTEM] = -EIO,
		[AGENT_ERROR_REFUSED] = -ECONNREFUSED,
		[AGENT_ERROR_UNSUPPORTED] = -ENOTSUP,
	};
	int rc = -EPROTO;
	if (code > AGENT_ERROR_ERRNO && code <= AGENT_ERROR_ERRNO + AGENT_ERRNO_MAX)
		rc = -(int)(code - AGENT_ERROR_ERRNO);
	else if (code < ARRAY_SIZE(codes) && codes[code])
		rc = codes[code];
	return error_set(err, rc, "VM %s: %s", id, *text ? text : strerror(-rc));
}

int reach_lost(const struct husk *husk, const char *id, struct husk_error *err)
{
	int rc = reach_check(husk, id, NULL);
	if (rc == -ESRCH || rc == -ENOENT)
		return error_set(err, -ESRCH, "VM %s has ended", id);
	return error_set(err, -EPROTO, "the agent of VM %s ended the connection before it was done", id);
}
