/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.c - requests to a VM's supervisor over supervisor.sock
 *
 * Theory of operation: a connection per request, one struct vm_message there and one back, and a deadline over both: neither a
 * supervisor that hangs nor one whose backlog is full holds the caller longer. Whatever comes back is checked as if a stranger had
 * sent it. A VM that has ended has no such socket, or nobody listens on it.
 */
#include "engine/control.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/loop.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/** Wait for @events of @fd; false at @deadline. */
static bool ready(int fd, short events, uint64_t deadline)
{
	for (;;) {
		uint64_t now = clock_monotonic_ms();
		struct pollfd one = {.fd = fd, .events = events};
		int n = poll(&one, 1, now < deadline ? (int)(deadline - now) : 0);
		if (n > 0 || (n == 0 && now >= deadline))
			return n > 0;
	}
}

static int connect_supervisor(const struct husk *husk, const char *id, unsigned timeout_ms, struct husk_error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	/* connect(2) waits for room in the backlog, and SO_SNDTIMEO is how long: unix(7), socket(7). */
	struct timeval patience = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s/" VM_SERVICE_NAME, husk->runtime, id);
	if (n >= (int)sizeof(address.sun_path))
		return error_set(
			err, -ENAMETOOLONG, "reach the supervisor of VM %s: %s is too long", id, husk->runtime);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return steal_fd(&fd);
	if (errno == ENOENT || errno == ECONNREFUSED)
		return error_set(err, -ESRCH, "VM %s does not run", id);
	if (errno == EAGAIN)
		return error_set(err, -ETIMEDOUT, "VM %s: its supervisor takes no requests", id);
	return error_errno(err, "reach the supervisor of VM %s", id);
}

int control_ask(const struct husk *husk, const char *id, const struct vm_message *message, const int *fds, size_t n_fds,
	enum vm_message_kind kind, unsigned timeout_ms, struct vm_message *answer, struct husk_error *err)
{
	uint64_t deadline = clock_monotonic_ms() + timeout_ms;
	CLEANUP_FD int sock = connect_supervisor(husk, id, timeout_ms, err);
	if (sock < 0)
		return sock;
	ssize_t n = fd_send(sock, message, sizeof(*message), fds, n_fds);
	if (n < 0)
		return error_set(
			err, n == -EPIPE ? -ESRCH : (int)n, "tell the supervisor of VM %s: %s", id, strerror(-(int)n));
	do {
		if (!ready(sock, POLLIN, deadline))
			return error_set(err, -ETIMEDOUT, "VM %s: its supervisor did not answer within %.3g s", id,
				timeout_ms / 1000.0);
		n = recv(sock, answer, sizeof(*answer), MSG_DONTWAIT | MSG_TRUNC);
	} while (n < 0 && (errno == EAGAIN || errno == EINTR));
	if (n <= 0)
		return error_set(err, -ESRCH, "VM %s ended before it answered", id);
	if (n != sizeof(*answer) || !vm_message_check(answer) || answer->kind != kind)
		return error_set(err, -EPROTO, "VM %s gave an answer that is none; is it another version of husk?", id);
	return 0;
}

int control_judge(const char *id, const struct vm_message *answer, struct husk_error *err)
{
	if (!answer->value)
		return 0;
	return error_set(err, -(int)answer->value, "VM %s: %s", id,
		answer->text[0] ? answer->text : strerror((int)answer->value));
}

int control_request(const struct husk *husk, const char *id, const struct vm_message *message, int fd,
	unsigned timeout_ms, struct husk_error *err)
{
	struct vm_message answer;
	int rc = control_ask(husk, id, message, &fd, fd >= 0, VM_MESSAGE_ANSWER, timeout_ms, &answer, err);
	return rc < 0 ? rc : control_judge(id, &answer, err);
}
