/* SPDX-License-Identifier: Apache-2.0 */
/*
 * streams.c - the caller's streams, in a form that a worker may have
 *
 * Theory of operation: the worker is not trusted with a terminal (it could push input into it or change its modes), and it
 * has to be able to make its descriptors non-blocking, which is a property of the open file description and would show in
 * every process that shares it. So:
 *
 *   regular files, /dev/null and its like   are passed as they are: they never block for long, and their offset is shared
 *                                           with the caller as it is with any child
 *   pipes                                   are opened anew through /proc/self/fd: the same pipe, a description of our own
 *   terminals, sockets, all else            are copied by a thread between the caller's descriptor and a pipe
 *
 * A relay thread waits in poll() only, for its stop event as well. It has every signal blocked but SIGTTIN and SIGTTOU,
 * which the terminal sends to stop a background job; so a write to a pipe without reader is an error here and no SIGPIPE.
 * When its destination is gone it closes its source, which the other end sees just as it would see the destination's end.
 */
#include "engine/streams.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define RELAY_CHUNK (64 << 10)
#define MEMORY_DEVICES 1 /* major number of null, zero, full, random, urandom: Linux devices.txt */

/** Wait until @fd is ready for @events; false when told to stop. */
static bool relay_wait(const struct stdio_relay *relay, int fd, short events)
{
	for (;;) {
		struct pollfd fds[2] = {{.fd = fd, .events = events}, {.fd = relay->stop, .events = POLLIN}};
		int n = poll(fds, 2, -1);
		if (n < 0 && errno != EINTR)
			return false;
		if (n > 0 && fds[1].revents)
			return false;
		if (n > 0 && fds[0].revents)
			return true;
	}
}

/** Write all of it; false when the destination is gone or we are to stop. Sockets that we share are not made non-blocking:
 *  MSG_DONTWAIT does that for one call. */
static bool relay_write(const struct stdio_relay *relay, const char *bytes, size_t n)
{
	while (n) {
		if (!relay_wait(relay, relay->to, POLLOUT))
			return false;
		ssize_t written = send(relay->to, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (written < 0 && errno == ENOTSOCK)
			written = write(relay->to, bytes, n);
		if (written < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (written <= 0)
			return false;
		bytes += written;
		n -= (size_t)written;
	}
	return true;
}

static void *relay_run(void *data)
{
	struct stdio_relay *relay = data;
	char *chunk = malloc(RELAY_CHUNK);
	while (chunk && relay_wait(relay, relay->from, POLLIN)) {
		ssize_t n = read(relay->from, chunk, RELAY_CHUNK);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0 || !relay_write(relay, chunk, (size_t)n))
			break;
	}
	free(chunk);
	if (relay->from_ours)
		close(steal_fd(&relay->from));
	if (relay->to_ours)
		close(steal_fd(&relay->to));
	uint64_t one = 1;
	if (!relay->input && write(relay->done, &one, sizeof(one)) < 0)
		return NULL; /* cannot be: the counter would have to overflow */
	return NULL;
}

/** A description of our own of what @fd is: -1 when there cannot be one. */
static int reopen(int fd, bool input)
{
	char path[32];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, (input ? O_RDONLY : O_WRONLY) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static int prepare_relay(struct stdio *io, int i, int given, struct husk_error *err)
{
	bool input = i == STDIN_FILENO;
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_errno(err, "make a pipe for stream %d", i);
	/* Our own description where there can be one: a write into a terminal that was stopped by ^S must not hold us. */
	int own = isatty(given) ? reopen(given, input) : -1;
	int theirs = own >= 0 ? own : given;
	io->relay[i] = (struct stdio_relay){
		.from = input ? theirs : ends[0],
		.to = input ? ends[1] : theirs,
		.from_ours = !input || own >= 0,
		.to_ours = input || own >= 0,
		.stop = io->stop,
		.done = io->done,
		.input = input,
	};
	io->way[i] = STDIO_RELAY;
	io->fd[i] = input ? ends[0] : ends[1];
	int rc = fd_set_nonblocking(ends[0], true);
	rc = rc < 0 ? rc : fd_set_nonblocking(ends[1], true);
	return rc < 0 ? error_set(err, rc, "prepare stream %d: %s", i, strerror(-rc)) : 0;
}

static int prepare_one(struct stdio *io, int i, int given, struct husk_error *err)
{
	struct stat st;
	io->way[i] = STDIO_NONE;
	if (given < 0)
		return 0;
	int flags = fcntl(given, F_GETFL);
	if (flags < 0 || fstat(given, &st) < 0)
		return error_errno(err, "use descriptor %d as the workload's %s", given,
			(const char *[]){"stdin", "stdout", "stderr"}[i]);
	if ((flags & O_ACCMODE) == (i == STDIN_FILENO ? O_WRONLY : O_RDONLY) || (flags & O_PATH))
		return error_set(err, -EBADF, "descriptor %d is not open for %s", given, i ? "writing" : "reading");
	bool pass = S_ISREG(st.st_mode) || (S_ISCHR(st.st_mode) && major(st.st_rdev) == MEMORY_DEVICES);
	int fd = pass ? fcntl(given, F_DUPFD_CLOEXEC, 3) : S_ISFIFO(st.st_mode) ? reopen(given, i == STDIN_FILENO) : -1;
	if (pass && fd < 0)
		return error_errno(err, "use descriptor %d", given);
	if (fd < 0)
		return prepare_relay(io, i, given, err);
	io->way[i] = pass ? STDIO_PASS : STDIO_REOPEN;
	io->fd[i] = fd;
	return 0;
}

int stdio_prepare(struct stdio *io, const int given[3], struct husk_error *err)
{
	*io = (struct stdio)STDIO_INIT;
	io->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	io->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
	if (io->stop < 0 || io->done < 0)
		return error_errno(err, "prepare the streams");
	for (int i = 0; i < 3; i++) {
		int rc = prepare_one(io, i, given[i], err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int stdio_start(struct stdio *io, struct husk_error *err)
{
	sigset_t blocked, old;
	int rc = 0;
	sigfillset(&blocked);
	sigdelset(&blocked, SIGTTIN);
	sigdelset(&blocked, SIGTTOU);
	for (int i = 0; i < 3; i++)
		if (io->fd[i] >= 0)
			close(steal_fd(&io->fd[i]));
	pthread_sigmask(SIG_SETMASK, &blocked, &old); /* of this thread, for the new one to inherit */
	for (int i = 0; i < 3 && rc == 0; i++) {
		if (io->way[i] != STDIO_RELAY)
			continue;
		rc = pthread_create(&io->relay[i].thread, NULL, relay_run, &io->relay[i]);
		io->relay[i].running = rc == 0;
		io->outputs += rc == 0 && i != STDIN_FILENO;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc ? error_set(err, -rc, "start a thread for the streams: %s", strerror(rc)) : 0;
}

int stdio_done_fd(const struct stdio *io)
{
	return io->outputs ? io->done : -1;
}

bool stdio_delivered(struct stdio *io)
{
	uint64_t one;
	while (io->outputs && read(io->done, &one, sizeof(one)) == sizeof(one))
		io->outputs--;
	return io->outputs == 0;
}

void stdio_destroy(struct stdio *io)
{
	uint64_t one = 1;
	bool told = io->stop >= 0 && write(io->stop, &one, sizeof(one)) == sizeof(one);
	for (int i = 0; i < 3; i++) {
		struct stdio_relay *relay = &io->relay[i];
		if (relay->running && told)
			pthread_join(relay->thread, NULL);
		else if (io->way[i] == STDIO_RELAY) {
			if (relay->from_ours && relay->from >= 0)
				close(relay->from);
			if (relay->to_ours && relay->to >= 0)
				close(relay->to);
		}
		if (io->fd[i] >= 0)
			close(io->fd[i]);
	}
	if (io->stop >= 0)
		close(io->stop);
	if (io->done >= 0)
		close(io->done);
	*io = (struct stdio)STDIO_INIT;
}
