/* SPDX-License-Identifier: Apache-2.0 */
/* fd.c - helpers around descriptors */
#include "base/fd.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RIGHTS_MAX 253 /* SCM_MAX_FD of the kernel */

int fd_write_all(int fd, const void *bytes, size_t n)
{
	const uint8_t *at = bytes;
	while (n) {
		ssize_t done = write(fd, at, n);
		if (done < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		at += done;
		n -= (size_t)done;
	}
	return 0;
}

int fd_write_all_at(int fd, const void *bytes, size_t n, uint64_t offset)
{
	const uint8_t *at = bytes;
	while (n) {
		ssize_t done = pwrite(fd, at, n, (off_t)offset);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -ENOSPC;
		at += done;
		offset += (uint64_t)done;
		n -= (size_t)done;
	}
	return 0;
}

int fd_read_all(int fd, void *bytes, size_t n)
{
	uint8_t *at = bytes;
	size_t left = n;
	while (left) {
		ssize_t done = read(fd, at, left);
		if (done < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (!done)
			return left == n ? 0 : -EPIPE;
		at += done;
		left -= (size_t)done;
	}
	return 1;
}

int fd_read_to_end(int fd, struct buffer *b, size_t limit)
{
	for (;;) {
		size_t room = limit - b->size;
		ssize_t n = buffer_read(b, fd, room < 65536 ? room + 1 : 65536);
		if (n == -EINTR)
			continue;
		if (n <= 0)
			return (int)n;
		if (b->size > limit)
			return -EFBIG;
	}
}

static int set_flag(int fd, int get, int set, int flag, bool on)
{
	int flags = fcntl(fd, get);
	if (flags < 0)
		return -errno;
	int wanted = on ? flags | flag : flags & ~flag;
	return wanted == flags || fcntl(fd, set, wanted) == 0 ? 0 : -errno;
}

int fd_set_nonblocking(int fd, bool on)
{
	return set_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

int fd_set_cloexec(int fd, bool on)
{
	return set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

ssize_t fd_send(int sock, const void *bytes, size_t n, const int *fds, size_t n_fds)
{
	union {
		char room[CMSG_SPACE(sizeof(int) * RIGHTS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = (void *)bytes, .iov_len = n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	if (n_fds > RIGHTS_MAX)
		return -EINVAL;
	if (n_fds) {
		msg.msg_control = control.room;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		memset(control.room, 0, msg.msg_controllen);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	for (;;) {
		ssize_t done = sendmsg(sock, &msg, MSG_NOSIGNAL);
		if (done >= 0)
			return done;
		if (errno != EINTR)
			return -errno;
	}
}

static ssize_t receive(int sock, void *bytes, size_t n, int *fds, size_t *n_fds, int flags)
{
	union {
		char room[CMSG_SPACE(sizeof(int) * RIGHTS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = bytes, .iov_len = n};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof(control.room)};
	ssize_t done;
	do
		done = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | flags);
	while (done < 0 && errno == EINTR);
	if (done < 0)
		return -errno;

	size_t room = *n_fds, count = 0;
	bool too_many = msg.msg_flags & MSG_CTRUNC;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t in_message = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < in_message; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (count < room) {
				fds[count++] = fd;
			} else {
				close(fd);
				too_many = true;
			}
		}
	}
	if (too_many) {
		while (count)
			close(fds[--count]);
		*n_fds = 0;
		return -EPROTO;
	}
	*n_fds = count;
	return done;
}

ssize_t fd_receive(int sock, void *bytes, size_t n, int *fds, size_t *n_fds)
{
	return receive(sock, bytes, n, fds, n_fds, 0);
}

ssize_t fd_receive_now(int sock, void *bytes, size_t n, int *fds, size_t *n_fds)
{
	return receive(sock, bytes, n, fds, n_fds, MSG_DONTWAIT);
}
