/* SPDX-License-Identifier: Apache-2.0 */
/* tree_link.c - a connection to a VM's agent that carries a tree of files (theory of operation: tree_link.h) */
#include "engine/tree_link.h"

#include "base/bytes.h"
#include "base/loop.h"
#include "base/tlv.h"
#include "engine/reach.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define SEND_MAX (1u << 20) /* waits to be sent */
#define READ_SIZE (256u << 10)
#define CONTROL_MAX 2048 /* payload of a frame that is neither ENTRY nor DATA */
#define ENTRY_MAX 16384

const char *tree_name_text(const char *name, char *text, size_t room)
{
	size_t i = 0;
	for (; name[i] && i + 1 < room; i++)
		text[i] = name[i] >= 0x20 && name[i] < 0x7f ? name[i] : '?';
	text[i] = 0;
	return text;
}

int tree_link_canceled(const struct tree_link *link, struct husk_error *err)
{
	struct pollfd one = {.fd = link->options->cancel_fd, .events = POLLIN};
	return one.fd >= 0 && poll(&one, 1, 0) > 0 ? error_set(err, -ECANCELED, "canceled") : 0;
}

/** Wait until the connection is ready for one of @events; *@ready: which. */
static int wait_for(struct tree_link *link, short events, short *ready, struct husk_error *err)
{
	uint64_t limit_ns = (uint64_t)link->options->timeout_ms * 1000000;
	for (;;) {
		struct pollfd fds[2] = {
			{.fd = link->fd, .events = events}, {.fd = link->options->cancel_fd, .events = POLLIN}};
		uint64_t waited = clock_monotonic_ns() - link->moved_ns;
		if (waited >= limit_ns)
			return error_set(err, -ETIMEDOUT, "VM %s: nothing has moved for %lld ms", link->id,
				(long long)link->options->timeout_ms);
		uint64_t left = (limit_ns - waited) / 1000000 + 1;
		int n = poll(fds, 2, left > INT32_MAX ? INT32_MAX : (int)left);
		if (n < 0 && errno != EINTR)
			return error_errno(err, "wait for VM %s", link->id);
		if (n > 0 && fds[1].revents)
			return error_set(err, -ECANCELED, "canceled");
		if (n > 0 && fds[0].revents) {
			*ready = fds[0].revents;
			return 0;
		}
	}
}

static int broke(struct tree_link *link, const char *how, struct husk_error *err)
{
	return error_set(err, -EPROTO, "VM %s: the guest's agent broke the protocol: %s", link->id, how);
}

/** The frame at the front of what has come, HELLO and ERROR judged: 1, 0 when more is needed, or -errno. */
static int next_frame(struct tree_link *link, struct agent_frame *frame, struct husk_error *err)
{
	char text[512];
	uint32_t number;
	for (;;) {
		buffer_consume(&link->in, link->used);
		link->used = 0;
		if (link->in.size < AGENT_HEADER_SIZE)
			return 0;
		const uint8_t *bytes = buffer_bytes(&link->in);
		uint32_t limit = bytes[4] == AGENT_DATA    ? AGENT_PAYLOAD_MAX
				 : bytes[4] == AGENT_ENTRY ? ENTRY_MAX
							   : CONTROL_MAX;
		long n = agent_frame_decode(bytes, link->in.size, frame);
		if (n < 0 || get_le32(bytes) > limit)
			return broke(link, "a malformed or oversized frame", err);
		if (n == 0)
			return 0;
		link->used = (size_t)n;
		if (frame->stream)
			return broke(link, "a stream's frame", err);
		if (frame->type == AGENT_ERROR)
			return agent_error_get(frame, &number, text, sizeof(text))
				       ? reach_refused(link->id, number, text, err)
				       : broke(link, "malformed ERROR", err);
		if (link->greeted)
			return 1;
		if (frame->type != AGENT_HELLO || !agent_u32_get(frame, &number) || number != AGENT_VERSION)
			return broke(link, "another version, or no HELLO", err);
		link->greeted = true;
	}
}

/** Take in what has come: 1, 0 when there was nothing, or -errno. */
static int take_in(struct tree_link *link, struct husk_error *err)
{
	void *to = buffer_reserve(&link->in, READ_SIZE);
	if (!to)
		return error_set(err, -ENOMEM, "copy: out of memory");
	ssize_t n = recv(link->fd, to, READ_SIZE, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return reach_lost(link->husk, link->id, err);
	buffer_commit(&link->in, (size_t)n);
	link->moved_ns = clock_monotonic_ns();
	return 1;
}

int tree_link_receive(struct tree_link *link, struct agent_frame *frame, struct husk_error *err)
{
	for (;;) {
		short ready;
		int rc = next_frame(link, frame, err);
		if (rc > 0 && frame->type != AGENT_ENTRY && frame->type != AGENT_DATA && frame->type != AGENT_END &&
			frame->type != AGENT_OK)
			return broke(link, "a frame out of place", err);
		if (rc != 0)
			return rc < 0 ? rc : 0;
		rc = wait_for(link, POLLIN, &ready, err);
		rc = rc < 0 ? rc : take_in(link, err);
		if (rc < 0)
			return rc;
	}
}

/** While we send, the agent has nothing to say but HELLO, and why it wants no more. */
static int hear_early(struct tree_link *link, struct husk_error *err)
{
	struct agent_frame frame;
	int rc = take_in(link, err);
	rc = rc < 0 ? rc : next_frame(link, &frame, err);
	return rc > 0 ? broke(link, "a frame out of place", err) : rc;
}

/** The agent closed while we were sending: what it said before tells more than the pipe that is broken. */
static int sending_failed(struct tree_link *link, int code, struct husk_error *err)
{
	while (code == EPIPE || code == ECONNRESET) {
		int rc = hear_early(link, err);
		if (rc < 0)
			return rc;
	}
	return error_set(err, -code, "send to VM %s: %s", link->id, strerror(code));
}

int tree_link_send(struct tree_link *link, bool all, struct husk_error *err)
{
	while (link->out.size > (all ? 0 : SEND_MAX)) {
		short ready = 0;
		int rc = wait_for(link, POLLIN | POLLOUT, &ready, err);
		if (rc == 0 && ready & POLLIN)
			rc = hear_early(link, err);
		if (rc < 0)
			return rc;
		if (!(ready & (POLLOUT | POLLERR | POLLHUP)))
			continue;
		ssize_t n = send(link->fd, buffer_bytes(&link->out), link->out.size, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return sending_failed(link, errno, err);
		if (n > 0) {
			buffer_consume(&link->out, (size_t)n);
			link->moved_ns = clock_monotonic_ns();
		}
	}
	return 0;
}

int tree_link_finish(struct tree_link *link, struct husk_error *err)
{
	struct agent_frame frame;
	int rc = agent_frame_put(&link->out, AGENT_END, 0, NULL, 0);
	rc = rc < 0 ? error_set(err, rc, "copy: out of memory") : tree_link_send(link, true, err);
	rc = rc < 0 ? rc : tree_link_receive(link, &frame, err);
	return rc == 0 && (frame.type != AGENT_OK || frame.size) ? broke(link, "no OK at the end", err) : rc;
}

void tree_link_count(struct tree_link *link, size_t n)
{
	link->bytes += n;
	if (link->options->progress)
		link->options->progress(link->options->data, link->bytes);
}

void tree_link_skip(const struct tree_link *link, const char *name, const char *why)
{
	if (link->options->skipped)
		link->options->skipped(link->options->data, name, why);
}

int tree_link_open(struct tree_link *link, const struct husk *husk, const char *id, enum agent_type type,
	const char *path, const char *name, uint32_t flags, const struct husk_copy_options *options,
	struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer request = {0};
	if (path[0] != '/')
		return error_set(err, -EINVAL, "'%s' is not an absolute path of the guest", path);
	if (strlen(path) > AGENT_NAME_MAX || (name && strlen(name) > AGENT_NAME_MAX))
		return error_set(err, -ENAMETOOLONG, "a path of %zu bytes is too long", strlen(path));
	if (options->timeout_ms <= 0)
		return error_set(err, -EINVAL, "copy: a time of 0 leaves none");
	*link = (struct tree_link){.husk = husk, .options = options, .fd = -1};
	snprintf(link->id, sizeof(link->id), "%s", id);
	int rc = tlv_put_string(&request, AGENT_TREE_PATH, path);
	rc = rc < 0 ? rc : tlv_put_string(&request, AGENT_TREE_NAME, name);
	rc = rc < 0 ? rc : tlv_put_string(&request, AGENT_TREE_USER, options->user);
	rc = rc < 0 ? rc : tlv_put_u32(&request, AGENT_TREE_FLAGS, flags);
	rc = rc < 0 ? rc : agent_hello_put(&link->out);
	rc = rc < 0 ? rc : agent_frame_put(&link->out, type, 0, buffer_bytes(&request), request.size);
	if (rc < 0)
		return error_set(err, rc, "copy: out of memory");
	link->moved_ns = clock_monotonic_ns();
	rc = link->fd = reach_agent(husk, id, (uint64_t)options->timeout_ms, err);
	return rc < 0 ? rc : tree_link_send(link, type == AGENT_GET, err);
}

void tree_link_close(struct tree_link *link)
{
	cleanup_fd(&link->fd);
	link->fd = -1;
	buffer_free(&link->in);
	buffer_free(&link->out);
}
