/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent-fuzz.c - libFuzzer target: bytes as frames of the agent protocol
 *
 * Theory of operation: the input's first byte is a frame's type and the rest its payload; with 0 the rest is a stream of
 * frames, as a connection brings them. Every decoder looks at every frame, whatever its type: none may read beyond the frame,
 * and what one takes is within the limits that agent/protocol.h writes down. What can be written is written again and read
 * again, and is the same.
 *
 * Without libFuzzer: replay.c. With it, in bash:
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Iinclude -o agent-fuzz fuzz/agent-fuzz.c \
 *     $(find guest -maxdepth 1 -name '*.c' ! -name main.c ! -name modules.c) agent/protocol.c base/{buffer,error,fd,loop,tlv}.c &&
 *     ./agent-fuzz -max_len=4096 fuzz/corpus/agent
 */
#include "agent/protocol.h"
#include "fuzz/fuzz.h"
#include "guest/request.h"
#include "guest/tree.h"

#include <string.h>

/** The frame that was put into @b, which is empty again afterwards but for its memory. */
static struct agent_frame written(struct buffer *b)
{
	struct agent_frame frame;
	must(agent_frame_decode(buffer_bytes(b), b->size, &frame) == (long)b->size, "a frame that was written is one");
	b->size = 0;
	return frame;
}

static bool is_number(uint32_t code)
{
	return code > AGENT_ERROR_ERRNO && code <= AGENT_ERROR_ERRNO + AGENT_ERRNO_MAX;
}

static void check_error(const struct agent_frame *frame)
{
	CLEANUP_BUFFER struct buffer b = {0};
	char text[64];
	uint32_t code = 0, again = 0;

	if (!agent_error_get(frame, &code, text, sizeof(text)))
		return;
	must((code >= AGENT_ERROR_PROTOCOL && code <= AGENT_ERROR_UNSUPPORTED) || is_number(code), "a code is known");
	must(strlen(text) < sizeof(text), "a text ends");
	for (const char *c = text; *c; c++)
		must(*c >= 0x20 && *c < 0x7f, "a text can be printed");
	agent_error_put(&b, code, "%s", text);
	struct agent_frame f = written(&b);
	must(agent_error_get(&f, &again, text, sizeof(text)) && again == code, "an error reads back");
}

static void check_exit(const struct agent_frame *frame)
{
	CLEANUP_BUFFER struct buffer b = {0};
	struct agent_exit got = {0};

	if (!agent_exit_get(frame, &got))
		return;
	must(got.kind == AGENT_EXITED ? got.value <= 255 : got.value >= 1 && got.value <= 64, "an end is one");
	must(got.step < AGENT_STEPS_MAX && got.flags <= (AGENT_EXIT_TIMED_OUT | AGENT_EXIT_OOM), "of a command");
	agent_exit_put(&b, &got);
	struct agent_frame f = written(&b);
	must(memcmp(f.payload, frame->payload, AGENT_EXIT_SIZE) == 0, "an end is written as it was");
}

/** No component of a name leads elsewhere. */
static void check_name(const char *name)
{
	char copy[AGENT_NAME_MAX + 1], *rest = copy;

	strcpy(copy, name);
	for (char *component; (component = strsep(&rest, "/"));)
		must(component[0] && strcmp(component, ".") != 0 && strcmp(component, "..") != 0,
			"a name is below the root");
}

static void check_entry(const struct agent_frame *frame)
{
	static struct agent_entry first, second;
	CLEANUP_BUFFER struct buffer b = {0};

	if (!agent_entry_get(frame, &first))
		return;
	must(first.type >= AGENT_FILE && first.type <= AGENT_SOCKET && first.mode <= 07777,
		"an entry has a type and a mode");
	must(first.size <= INT64_MAX && (first.type == AGENT_FILE || !first.size), "a file has a size");
	bool link = first.type == AGENT_SYMLINK || first.type == AGENT_HARDLINK;
	must(link == (first.link[0] != 0), "a link has a target");
	if (first.name[0])
		check_name(first.name);
	if (first.type == AGENT_HARDLINK)
		check_name(first.link);
	must(agent_entry_put(&b, &first) == 0, "an entry can be written");
	struct agent_frame f = written(&b);
	must(agent_entry_get(&f, &second) && strcmp(first.name, second.name) == 0 &&
			strcmp(first.link, second.link) == 0 && first.type == second.type &&
			first.mode == second.mode && first.uid == second.uid && first.gid == second.gid &&
			first.mtime_ns == second.mtime_ns && first.size == second.size && first.device == second.device,
		"an entry reads back");
}

static void check_data(const struct agent_frame *frame)
{
	uint64_t offset;
	const uint8_t *bytes;
	size_t n;

	if (!agent_data_get(frame, &offset, &bytes, &n))
		return;
	must(n > 0 && bytes == frame->payload + 8 && n == frame->size - 8, "the bytes are the frame's");
	must(offset <= INT64_MAX && n <= INT64_MAX - offset, "they end at an offset");
}

static void check_listening(const struct agent_frame *frame)
{
	static struct agent_listener listeners[AGENT_LISTENERS_MAX];
	CLEANUP_BUFFER struct buffer b = {0};
	size_t n = AGENT_LISTENERS_MAX;

	if (!agent_listening_get(frame, listeners, &n))
		return;
	must(n * AGENT_LISTENER_SIZE == frame->size, "all listeners are read");
	agent_listening_put(&b, listeners, n);
	struct agent_frame f = written(&b);
	must(n == 0 || memcmp(f.payload, frame->payload, frame->size) == 0, "they are written as they were");
}

static void check_numbers(const struct agent_frame *frame)
{
	uint32_t value;
	uint16_t rows, columns, port = 0;

	must(agent_u32_get(frame, &value) == (frame->size == 4), "four bytes are a number");
	agent_resize_get(frame, &rows, &columns);
	if (agent_forward_get(frame, &port))
		must(port > 0, "a port has a number");
}

static void check_exec(const struct agent_frame *frame)
{
	struct exec_request r;
	struct husk_error err = {0};

	if (exec_request_parse(frame->payload, frame->size, &r, &err) < 0)
		return must(err.code && err.message[0], "a refusal says why");
	must(r.n_commands >= 1 && r.n_commands <= AGENT_STEPS_MAX, "there is a command");
	for (size_t i = 0; i < r.n_commands; i++)
		must(r.commands[i].n && r.commands[i].items[0][0] && !r.commands[i].items[r.commands[i].n],
			"it has a program");
	bool is_main = r.flags & AGENT_EXEC_FLAG_MAIN, detach = r.flags & AGENT_EXEC_FLAG_DETACH;
	must(!is_main || (!r.timeout_ms && !r.n_files && r.n_commands == 1), "a workload is one program");
	must(!detach || !(r.flags & (AGENT_EXEC_FLAG_TTY | AGENT_EXEC_FLAG_STDIN) || r.timeout_ms), "nobody waits");
	for (size_t i = 0; i < r.n_files; i++)
		must(r.files[i].path[0] && r.files[i].mode <= 07777 && r.files[i].size <= frame->size,
			"a file has a path");
	must(exec_request_cwd(&r)[0] == '/', "a directory is absolute");
	exec_request_shrink(&r);
	exec_request_free(&r);
}

static void check_tree(const struct agent_frame *frame)
{
	struct tree_request r;
	struct husk_error err = {0};

	if (tree_request_parse(frame, &r, &err) < 0)
		return must(err.code == -EPROTO && err.message[0], "a refusal says why");
	must(r.path[0] == '/' && strlen(r.path) <= AGENT_NAME_MAX, "a path is absolute");
	must(!r.name || (r.name[0] && !strchr(r.name, '/')), "a name is one");
	tree_request_free(&r);
}

static void check(struct agent_frame *frame)
{
	check_error(frame);
	check_exit(frame);
	check_entry(frame);
	check_data(frame);
	check_listening(frame);
	check_numbers(frame);
	check_exec(frame);
	check_tree(frame);
	frame->type = frame->type == AGENT_PUT ? AGENT_GET : AGENT_PUT; /* they take other entries */
	check_tree(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct agent_frame frame;

	if (size == 0)
		return 0;
	if (data[0]) {
		frame = (struct agent_frame){.type = data[0], .payload = data + 1, .size = (uint32_t)(size - 1)};
		check(&frame);
		return 0;
	}
	long used;
	for (size_t at = 1; (used = agent_frame_decode(data + at, size - at, &frame)) > 0; at += (size_t)used) {
		must(used == AGENT_HEADER_SIZE + (long)frame.size && (size_t)used <= size - at,
			"a frame is within the bytes");
		must(frame.type && frame.size <= AGENT_PAYLOAD_MAX, "and within its limits");
		check(&frame);
	}
	return 0;
}
