/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logs.c - husk logs: what a VM's workload, or with --boot its console and husk, has said
 *
 * Theory of operation: pieces come from the library in order and go out unchanged, stdout's to stdout and stderr's to stderr, past
 * stdio's buffers so that both keep their order. With -t each line begins with the time of the piece that it began in.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/parse.h"
#include "base/rfc3339.h"
#include "base/when.h"
#include "cli/interrupt.h"
#include "cli/verbs.h"

#include <string.h>

struct output {
	bool timestamps;
	bool in_line[3]; /* of descriptors 1 and 2: the last line has no end yet */
};

static int put(int fd, const void *bytes, size_t n)
{
	return fd_write_all(fd, bytes, n);
}

static int put_lines(struct output *o, int fd, uint64_t time_ns, const char *bytes, size_t n)
{
	char time[RFC3339_SIZE];
	int rc = 0;

	rfc3339_format(time_ns, time);
	strcat(time, " ");
	while (n && rc == 0) {
		const char *newline = memchr(bytes, '\n', n);
		size_t size = newline ? (size_t)(newline + 1 - bytes) : n;
		if (!o->in_line[fd])
			rc = put(fd, time, strlen(time));
		rc = rc < 0 ? rc : put(fd, bytes, size);
		o->in_line[fd] = !newline;
		bytes += size;
		n -= size;
	}
	return rc;
}

static int tell_lost(size_t n)
{
	char line[80];
	return put(STDERR_FILENO, line,
		(size_t)snprintf(line, sizeof(line), "[husk: %zu bytes of output were dropped here]\n", n));
}

static int on_piece(void *data, enum husk_stream stream, uint64_t time_ns, const void *bytes, size_t n)
{
	struct output *o = data;
	int fd = stream == HUSK_STDERR ? STDERR_FILENO : STDOUT_FILENO;

	if (stream == HUSK_LOST)
		return tell_lost(n);
	return o->timestamps ? put_lines(o, fd, time_ns, bytes, n) : put(fd, bytes, n);
}

static int read_time(const struct cli *cli, const char *name, uint64_t *out, struct husk_error *err)
{
	const char *text = cli_value(cli, name);
	char what[16];

	snprintf(what, sizeof(what), "--%s", name);
	return text ? when_parse(text, what, clock_realtime_ns(), out, err) : 0;
}

static int read_options(const struct cli *cli, struct husk_log_options *options, struct husk_error *err)
{
	const char *tail = cli_value(cli, "tail");
	uint64_t n;
	int rc = 0;

	husk_log_options_init(options);
	options->boot = cli_flag(cli, "boot");
	options->follow = cli_flag(cli, "follow");
	if (tail && strcmp(tail, "all") != 0) {
		rc = parse_number(tail, "--tail", 0, INT64_MAX, &n, err);
		options->tail = rc < 0 ? -1 : (int64_t)n;
	}
	rc = rc < 0 ? rc : read_time(cli, "since", &options->since_ns, err);
	return rc < 0 ? rc : read_time(cli, "until", &options->until_ns, err);
}

int verb_logs(struct cli *cli)
{
	struct output output = {.timestamps = cli_flag(cli, "timestamps")};
	struct husk_log_options options;
	struct husk_vm *vm = NULL;
	struct husk_error err;

	int rc = read_options(cli, &options, &err);
	rc = rc < 0 ? rc : husk_vm_open(cli->husk, cli->operands[0], &vm, &err);
	if (rc < 0)
		return cli_fail(&err, 1);
	interrupt_ends();
	err = (struct husk_error){0};
	rc = husk_vm_logs(vm, &options, on_piece, &output, &err);
	husk_vm_close(vm);
	if (rc < 0 && err.code != rc) { /* it is what on_piece() returned */
		cli_say("write to stdout: %s", strerror(-rc));
		return 1;
	}
	return rc < 0 ? cli_fail(&err, 1) : 0;
}
