/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy_tar.c - files of a running VM as tar archives
 *
 * Theory of operation: an archive is hostile bytes, so husk-image parses it, confined (image/verb_tar.c), between the caller's
 * descriptor and a socket pair of ours, in a thread that waits for its end. On our end of the pair is a tree in the agent's frames,
 * which we check and hand on between it and the agent. Waiting for the helper is waiting for the caller's own stream: no deadline of
 * the agent's runs meanwhile, but cancel_fd is heard. When either side fails the pair is shut down, which ends the other.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/loop.h"
#include "engine/copy.h"
#include "engine/helper.h"
#include "engine/tree.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define READ_SIZE (256u << 10)

/** husk-image at work. */
struct tar_helper {
	const struct husk *husk;
	const char *argv[6];
	char *path;
	int stdin_fd, stdout_fd; /* the helper's */
	int theirs; /* its end of the pair; closed once it has ended */
	int ours;
	int stop; /* eventfd: it is to end */
	int cancel_fd; /* the caller's */
	pthread_t thread;
	bool running;
	int rc;
	struct husk_error error;
	struct buffer in; /* what it said */
	size_t used;
};

static void *run_helper(void *data)
{
	struct tar_helper *t = data;
	const struct helper how = {
		.path = t->path,
		.argv = t->argv,
		.stdin_fd = t->stdin_fd,
		.stdout_fd = t->stdout_fd,
		.stderr_fd = -1,
		.cancel_fd = t->stop,
		.error_fd = true,
	};
	t->rc = helper_run(&how, NULL, &t->error);
	shutdown(t->theirs, SHUT_RDWR);
	return NULL;
}

/** Start it: @in says whether it reads the archive @fd, or writes it. */
static int helper_begin(struct tar_helper *t, bool in, int fd, const char *name, struct husk_error *err)
{
	int pair[2];
	sigset_t all, old;
	int rc = engine_helper(t->husk, "husk-image", &t->path, err);
	if (rc < 0)
		return rc;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, "make a socket pair");
	t->ours = pair[0];
	t->theirs = pair[1];
	t->stop = eventfd(0, EFD_CLOEXEC);
	if (t->stop < 0 || fd_set_nonblocking(t->ours, true) < 0)
		return error_errno(err, "make an event");
	t->stdin_fd = in ? fd : t->theirs;
	t->stdout_fd = in ? t->theirs : fd;
	const char *const argv[] = {
		"husk-image", "--home", t->husk->home, in ? "tar-in" : "tar-out", in ? NULL : name, NULL};
	memcpy(t->argv, argv, sizeof(argv));
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* of this thread, for the new one to inherit */
	rc = pthread_create(&t->thread, NULL, run_helper, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	t->running = rc == 0;
	return rc ? error_set(err, -rc, "start a thread: %s", strerror(rc)) : 0;
}

/** Wait until it has ended; with @failed it is told to. Its own word counts where it failed by itself. */
static int helper_end(struct tar_helper *t, int failed, struct husk_error *err)
{
	uint64_t one = 1;
	if (t->running && failed < 0) {
		shutdown(t->ours, SHUT_RDWR);
		if (failed != -EPIPE && write(t->stop, &one, sizeof(one)) < 0)
			failed = -EIO; /* cannot be: the counter would have to overflow */
	} else if (t->running) {
		shutdown(t->ours, SHUT_WR);
	}
	if (t->running)
		pthread_join(t->thread, NULL);
	bool own = t->running && t->rc < 0 && t->rc != -ECANCELED && (failed == 0 || failed == -EPIPE);
	int rc = own ? error_set(err, t->rc, "%s", t->error.message) : failed;
	cleanup_fd(&t->ours);
	cleanup_fd(&t->theirs);
	cleanup_fd(&t->stop);
	buffer_free(&t->in);
	free(t->path);
	return rc;
}

/** Wait until our end is ready for @events, or the caller has enough. */
static int wait_for(struct tar_helper *t, short events, struct husk_error *err)
{
	struct pollfd fds[2] = {{.fd = t->ours, .events = events}, {.fd = t->cancel_fd, .events = POLLIN}};
	while (poll(fds, 2, -1) < 0)
		if (errno != EINTR)
			return error_errno(err, "wait for an archive");
	return fds[1].revents ? error_set(err, -ECANCELED, "canceled") : 0;
}

/* ---- in ---- */

/** The helper's next frame; its bytes are valid until the next call. -EPIPE: it has ended. */
static int helper_frame(struct tar_helper *t, struct agent_frame *frame, struct husk_error *err)
{
	buffer_consume(&t->in, t->used);
	t->used = 0;
	for (;;) {
		long n = t->in.size ? agent_frame_decode(buffer_bytes(&t->in), t->in.size, frame) : 0;
		if (n < 0)
			return error_set(err, -EPROTO, "husk-image said something odd");
		if (n > 0) {
			t->used = (size_t)n;
			return 0;
		}
		int rc = wait_for(t, POLLIN, err);
		ssize_t got = rc < 0 ? rc : buffer_read(&t->in, t->ours, READ_SIZE);
		if (rc < 0)
			return rc;
		if (got == 0 || (got < 0 && got != -EAGAIN && got != -EINTR))
			return error_set(err, -EPIPE, "husk-image ended early");
	}
}

/** Hand the helper's tree on to the agent. */
static int pump_in(struct tar_helper *t, struct tree_link *link, struct husk_error *err)
{
	CLEANUP_FREE struct agent_entry *entry = calloc(1, sizeof(*entry));
	struct agent_frame frame;
	const uint8_t *bytes;
	uint64_t offset;
	size_t n;
	int rc = entry ? 0 : error_set(err, -ENOMEM, "copy: out of memory");
	while (rc == 0) {
		rc = helper_frame(t, &frame, err);
		if (rc < 0 || frame.type == AGENT_END)
			break;
		bool data = frame.type == AGENT_DATA && agent_data_get(&frame, &offset, &bytes, &n);
		bool thing = frame.type == AGENT_ENTRY && agent_entry_get(&frame, entry);
		if (!data && !thing)
			return error_set(err, -EPROTO, "husk-image said something odd");
		if (agent_frame_put(&link->out, frame.type, 0, frame.payload, frame.size) < 0)
			return error_set(err, -ENOMEM, "copy: out of memory");
		if (data)
			tree_link_count(link, n);
		link->moved_ns = clock_monotonic_ns(); /* what we waited for was the caller's stream */
		rc = tree_link_send(link, false, err);
	}
	return rc < 0 ? rc : tree_link_finish(link, err);
}

int copy_in_tar(const struct husk *husk, const char *id, int fd, const char *to,
	const struct husk_copy_options *options, struct husk_error *err)
{
	CLEANUP(tree_link_close) struct tree_link link = TREE_LINK_INIT;
	struct tar_helper t = {.husk = husk, .ours = -1, .theirs = -1, .stop = -1, .cancel_fd = options->cancel_fd};
	int rc = tree_link_open(
		&link, husk, id, AGENT_PUT, to, NULL, options->archive ? AGENT_TREE_FLAG_OWNER : 0, options, err);
	rc = rc < 0 ? rc : helper_begin(&t, true, fd, NULL, err);
	rc = rc < 0 ? rc : pump_in(&t, &link, err);
	return helper_end(&t, rc, err);
}

/* ---- out ---- */

/** Hand one frame to the helper. -EPIPE: it has ended. */
static int tell_helper(struct tar_helper *t, const struct agent_frame *frame, struct husk_error *err)
{
	uint8_t header[AGENT_HEADER_SIZE] = {0};
	const void *parts[2] = {header, frame->payload};
	const size_t sizes[2] = {sizeof(header), frame->size};
	put_le32(header, frame->size);
	header[4] = frame->type;
	for (int i = 0; i < 2; i++)
		for (size_t at = 0; at < sizes[i];) {
			ssize_t n = send(t->ours, (const char *)parts[i] + at, sizes[i] - at, MSG_NOSIGNAL);
			if (n > 0)
				at += (size_t)n;
			else if (errno != EAGAIN && errno != EINTR)
				return error_set(err, -EPIPE, "husk-image ended early");
			int rc = n < 0 ? wait_for(t, POLLOUT, err) : 0;
			if (rc < 0)
				return rc;
		}
	return 0;
}

static int pump_out(struct tar_helper *t, struct tree_link *link, struct husk_error *err)
{
	CLEANUP_FREE struct agent_entry *entry = calloc(1, sizeof(*entry));
	struct agent_frame frame = {0};
	const uint8_t *bytes;
	uint64_t offset;
	size_t n;
	int rc = entry ? 0 : error_set(err, -ENOMEM, "copy: out of memory");
	while (rc == 0 && frame.type != AGENT_END) {
		rc = tree_link_receive(link, &frame, err);
		if (rc < 0)
			break;
		bool data = frame.type == AGENT_DATA && agent_data_get(&frame, &offset, &bytes, &n);
		bool thing = frame.type == AGENT_ENTRY && agent_entry_get(&frame, entry);
		if (!data && !thing && (frame.type != AGENT_END || frame.size))
			return error_set(err, -EPROTO, "VM %s: the guest's agent broke the protocol", link->id);
		if (thing && entry->type == AGENT_SOCKET) {
			tree_link_skip(link, entry->name, "a socket");
			continue;
		}
		rc = tell_helper(t, &frame, err);
		if (data)
			tree_link_count(link, n);
		link->moved_ns = clock_monotonic_ns();
	}
	return rc;
}

int copy_out_tar(const struct husk *husk, const char *id, const char *from, int fd,
	const struct husk_copy_options *options, struct husk_error *err)
{
	CLEANUP(tree_link_close) struct tree_link link = TREE_LINK_INIT;
	struct tar_helper t = {.husk = husk, .ours = -1, .theirs = -1, .stop = -1, .cancel_fd = options->cancel_fd};
	char name[256];
	int rc = copy_own_name(from, name, err);
	rc = rc < 0 ? rc
		    : tree_link_open(&link, husk, id, AGENT_GET, from, NULL,
			      options->follow ? AGENT_TREE_FLAG_FOLLOW : 0, options, err);
	rc = rc < 0 ? rc : helper_begin(&t, false, fd, name, err);
	rc = rc < 0 ? rc : pump_out(&t, &link, err);
	return helper_end(&t, rc, err);
}
