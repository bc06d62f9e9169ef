/* SPDX-License-Identifier: Apache-2.0 */
/* dial.c - connections of guest programs to the host (theory of operation: dial.h) */
#include "vmm/dial.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/loop.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ANSWERS_MAX 32 /* per round of the supervisor's loop */

/** Wait for the answer to @question: its descriptor or -errno. */
static int await(int channel, const struct dial *question)
{
	uint64_t until = clock_monotonic_ns() + DIAL_TIMEOUT_MS * 1000000ull, now;

	while ((now = clock_monotonic_ns()) < until) {
		struct pollfd p = {.fd = channel, .events = POLLIN};
		struct dial answer = {0};
		int fd = -1;
		size_t n_fds = 1;
		if (poll(&p, 1, (int)((until - now) / 1000000) + 1) <= 0)
			continue;
		ssize_t n = fd_receive_now(channel, &answer, sizeof(answer), &fd, &n_fds);
		if (n == 0 || (n < 0 && n != -EAGAIN && n != -EPROTO))
			return -ECONNREFUSED; /* the supervisor is gone, and we are to follow */
		/* -EPROTO: it came with a descriptor for which there is no number left here. */
		bool ours = (n == sizeof(answer) || n == -EPROTO) && answer.number == question->number;
		if (ours && n_fds == 1)
			return fd;
		while (n_fds)
			close(fd), n_fds--;
		if (ours)
			return answer.code < 0 ? answer.code : -EMFILE;
	}
	return -ETIMEDOUT;
}

int dial_ask(int channel, uint32_t port)
{
	static uint32_t number;
	struct dial question = {.number = ++number, .port = port};

	if (send(channel, &question, sizeof(question), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return -errno;
	return await(channel, &question);
}

static int connect_out(uint32_t port)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	snprintf(address.sun_path, sizeof(address.sun_path), "vsock.sock_%u", port);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -ECONNREFUSED;
	return steal_fd(&fd);
}

static bool allows(enum vmm_reach reach, uint32_t port, uint32_t asked)
{
	return reach == VMM_REACH_ANY || (reach == VMM_REACH_ONE && asked == port);
}

int dial_answer(
	int channel, enum vmm_reach reach, uint32_t port, void (*denied)(void *data, uint32_t asked), void *data)
{
	struct {
		struct dial dial;
		char beyond;
	} got;

	for (int i = 0; i < ANSWERS_MAX; i++) {
		ssize_t n = recv(channel, &got, sizeof(got), MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (n == 0)
			return -ECONNRESET;
		if (n != sizeof(got.dial))
			continue; /* no question of our worker's */
		bool allowed = allows(reach, port, got.dial.port);
		CLEANUP_FD int fd = allowed ? connect_out(got.dial.port) : -ECONNREFUSED;
		got.dial.code = fd < 0 ? fd : 0;
		/* A worker that does not take its answers goes without. */
		(void)fd_send(channel, &got.dial, sizeof(got.dial), &fd, fd >= 0 ? 1 : 0);
		if (!allowed)
			denied(data, got.dial.port);
	}
	return 0;
}
