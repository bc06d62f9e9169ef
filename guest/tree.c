/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree.c - PUT and GET: who does them, and how it talks
 *
 * Theory of operation: a tree may be large and a disk slow, so a process of its own does the work, with the connection as its
 * descriptor 0. It joins the workload's namespaces and cgroup as a program does and becomes the request's user, so every path
 * is the workload's, and every right its user's. It reads and writes frames with calls that block: the connection's own flow
 * control is all there is. The agent waits for nothing but its end, takes the connection back and lets it drain, so that an
 * ERROR is not lost in a reset by what the client was still sending.
 *
 * When the process ends in any other way than by saying END, OK or ERROR, a frame may be half written: the connection ends.
 */
#include "guest/tree.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/tlv.h"
#include "guest/exec.h"
#include "guest/launch.h"
#include "guest/program.h"
#include "guest/user.h"

#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define READ_SIZE (256u << 10)

/* ---- the request ---- */

void tree_request_free(struct tree_request *request)
{
	free(request->path);
	free(request->user);
	free(request->name);
	*request = (struct tree_request){0};
}

static bool is_component(const char *name)
{
	return name[0] && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
	       strlen(name) <= NAME_MAX;
}

/** Keep @entry's text in *@to, which must still be free. */
static bool store_text(const struct tlv *entry, char **to)
{
	if (*to || entry->size > AGENT_NAME_MAX)
		return false;
	*to = tlv_string(entry);
	return *to != NULL;
}

static bool store(const struct tlv *entry, struct tree_request *out, bool *flags)
{
	uint32_t known = out->put ? AGENT_TREE_FLAG_OWNER : AGENT_TREE_FLAG_FOLLOW;

	switch (entry->tag) {
	case AGENT_TREE_PATH:
		return store_text(entry, &out->path) && out->path[0] == '/';
	case AGENT_TREE_USER:
		return store_text(entry, &out->user);
	case AGENT_TREE_NAME:
		return out->put && store_text(entry, &out->name) && is_component(out->name);
	case AGENT_TREE_FLAGS:
		if (*flags)
			return false;
		*flags = true;
		return tlv_u32(entry, &out->flags) && !(out->flags & ~known);
	default:
		return false;
	}
}

int tree_request_parse(const struct agent_frame *frame, struct tree_request *out, struct husk_error *err)
{
	struct tlv_reader reader;
	struct tlv entry;
	bool flags = false, fine = true;

	*out = (struct tree_request){.put = frame->type == AGENT_PUT};
	tlv_start(&reader, frame->payload, frame->size);
	while (fine && tlv_next(&reader, &entry))
		fine = store(&entry, out, &flags);
	if (fine && !reader.broken && out->path)
		return 0;
	tree_request_free(out);
	return error_set(err, -EPROTO, "%s: an entry is malformed, twice there, unknown or missing",
		frame->type == AGENT_PUT ? "PUT" : "GET");
}

/* ---- the process's side ---- */

static void give_up(struct tree *tree)
{
	if (tree->abort)
		tree->abort(tree->data);
	tree->abort = NULL;
}

/** There is nobody to tell. */
_Noreturn static void client_gone(struct tree *tree)
{
	give_up(tree);
	_exit(1);
}

void tree_send(struct tree *tree, size_t enough)
{
	while (tree->out.size && tree->out.size >= enough) {
		ssize_t n = send(tree->fd, buffer_bytes(&tree->out), tree->out.size, MSG_NOSIGNAL);
		if (n > 0)
			buffer_consume(&tree->out, (size_t)n);
		else if (n == 0 || errno != EINTR)
			client_gone(tree);
		enough = 0;
	}
}

struct agent_frame tree_receive(struct tree *tree)
{
	struct agent_frame frame;

	buffer_consume(&tree->in, tree->used);
	tree->used = 0;
	for (;;) {
		long used = agent_frame_decode(buffer_bytes(&tree->in), tree->in.size, &frame);
		if (used < 0 || (used > 0 && frame.stream))
			tree_fail(tree, AGENT_ERROR_PROTOCOL, "malformed frame");
		if (used > 0) {
			tree->used = (size_t)used;
			return frame;
		}
		ssize_t n = buffer_read(&tree->in, tree->fd, READ_SIZE);
		if (n == 0 || (n < 0 && n != -EINTR))
			client_gone(tree);
	}
}

_Noreturn void tree_finish(struct tree *tree)
{
	tree_send(tree, 0);
	_exit(0);
}

_Noreturn void tree_fail(struct tree *tree, enum agent_error code, const char *format, ...)
{
	char text[1001];
	va_list ap;

	give_up(tree);
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	agent_error_put(&tree->out, code, "%s", text);
	tree_finish(tree);
}

_Noreturn void tree_fail_text(struct tree *tree, int rc, const char *name, const char *text)
{
	const char *slash = name[0] && tree->path[strlen(tree->path) - 1] != '/' ? "/" : "";

	tree_fail(tree, rc == -ENOENT ? AGENT_ERROR_NOT_FOUND : AGENT_ERROR_ERRNO - rc, "%s%s%s: %s", tree->path, slash,
		name, text);
}

_Noreturn void tree_fail_at(struct tree *tree, int rc, const char *name)
{
	tree_fail_text(tree, rc, name, strerror(-rc));
}

void *tree_memory(struct tree *tree, size_t size)
{
	void *memory = malloc(size);
	if (!memory)
		tree_fail(tree, AGENT_ERROR_ERRNO + ENOMEM, "out of memory");
	return memory;
}

/** @data: the tree, as the agent has filled it. */
static void run(const struct workload_setup *setup, const void *data, int status)
{
	static struct user user;
	struct tree tree = *(const struct tree *)data;
	struct husk_error err = {0};

	close(status);
	tree.fd = STDIN_FILENO;
	umask(0);
	if (fd_set_nonblocking(tree.fd, false) < 0)
		_exit(1);
	int rc = user_lookup(tree.request->user, NULL, 0, &user, &err);
	if (rc < 0)
		tree_fail(&tree, AGENT_ERROR_USER, "%s", err.message);
	launch_become(&user, -1);
	if (tree.request->put)
		put_tree(&tree);
	get_tree(&tree);
}

/* ---- the agent's side ---- */

void tree_open(struct connection *c, const struct agent_frame *frame)
{
	const struct exec *workload = c->agent->main;
	struct tree_request request CLEANUP(tree_request_free) = {0};
	struct program program = {.pidfd = -1, .status = -1};
	const int stdio[3] = {c->watch.fd, -1, -1};
	struct husk_error err = {0};

	if (tree_request_parse(frame, &request, &err) < 0)
		return connection_error(c, AGENT_ERROR_PROTOCOL, "%s", err.message);
	if (!workload || exec_pidfd(workload) < 0)
		return connection_error(c, AGENT_ERROR_BUSY, "no workload runs");
	/* What is under way in both directions is the process's from here on: it has a copy of all our memory. */
	const struct tree tree = {.request = &request, .path = request.path, .in = c->in, .out = c->out};
	int rc = program_join(c->agent->setup, exec_pidfd(workload), stdio, run, &tree, &program, &err);
	if (rc < 0)
		return connection_error(c, rc == -ESRCH ? AGENT_ERROR_BUSY : AGENT_ERROR_SYSTEM, "%s", err.message);
	c->helper = program.pid;
	c->state = CONNECTION_TREE;
	program_close(&program);
	buffer_free(&c->in);
	buffer_free(&c->out);
	loop_remove(&c->agent->loop, &c->watch);
}

void tree_reaped(struct connection *c, int status)
{
	int fd = c->watch.fd;

	c->broken = !WIFEXITED(status) || WEXITSTATUS(status) || fd_set_nonblocking(fd, true) < 0 ||
		    connection_watch(c) < 0;
	c->state = CONNECTION_CLOSING;
}
