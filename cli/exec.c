/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.c - husk exec: run a command in a VM that runs
 *
 * Theory of operation: streams are the library's work, but for a terminal's input, which is fed to it through the detach keys.
 * Until the program has started signals do what they do to any command; from then on they are the program's, and the third Ctrl-C
 * ends it.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/parse.h"
#include "cli/environment.h"
#include "cli/feed.h"
#include "cli/run.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#define INTERRUPTS_TO_END 3
#define FILE_MAX (1u << 20) /* all that goes with one exec */

/** A file of --file; path lies in the command line. */
struct staged {
	struct buffer bytes;
	uint32_t mode;
	const char *path;
};

/** A configuration with what it points to. */
struct exec_request {
	struct husk_exec_config config;
	struct environment env;
	struct staged *staged;
	struct husk_staged_file *files;
	const char **groups;
	struct detach_keys keys;
	bool typed; /* stdin is our terminal: it is fed */
	int input; /* the writing end of what is fed; -1: none */
	int stdin_fd; /* its reading end */
};

static void request_free(struct exec_request *r)
{
	environment_free(&r->env);
	for (size_t i = 0; r->staged && i < r->config.n_files; i++)
		buffer_free(&r->staged[i].bytes);
	free(r->staged);
	free(r->files);
	free(r->groups);
	cleanup_fd(&r->input);
	cleanup_fd(&r->stdin_fd);
}

static int take_environment(struct cli *cli, struct exec_request *r, struct husk_error *err)
{
	const char *value;
	int rc = 0;
	for (size_t i = 0; rc == 0 && (value = cli_nth(cli, "env-file", i)); i++)
		rc = environment_add_file(&r->env, value, err);
	for (size_t i = 0; rc == 0 && (value = cli_nth(cli, "env", i)); i++) {
		rc = environment_add(&r->env, value, err);
		if (rc < 0)
			error_prefix(err, rc, "--env");
	}
	r->config.env = (const char *const *)r->env.list;
	return rc;
}

/** How often option @name was given. */
static size_t count(const struct cli *cli, const char *name)
{
	size_t n = 0;
	while (cli_nth(cli, name, n))
		n++;
	return n;
}

/** HOST:GUEST, the file read. */
static int stage(const char *text, struct staged *staged, struct husk_error *err)
{
	struct stat st;
	const char *colon = strchr(text, ':');
	if (!colon || colon == text || !colon[1])
		return error_set(err, -EINVAL, "--file: '%s' is not HOST:GUEST", text);
	CLEANUP_FREE char *path = strndup(text, (size_t)(colon - text));
	CLEANUP_FD int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY) : -1;
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, "--file: open %s", path ? path : text);
	int rc = S_ISDIR(st.st_mode) ? -EISDIR : fd_read_to_end(fd, &staged->bytes, FILE_MAX);
	if (rc < 0)
		return error_set(err, rc, "--file: read %s: %s", path,
			rc == -EFBIG ? "it has more than 1 MiB; 'husk cp' takes any size" : strerror(-rc));
	staged->mode = S_ISREG(st.st_mode) ? st.st_mode & 0777 : 0644;
	staged->path = colon + 1;
	return 0;
}

static int take_files(struct cli *cli, struct exec_request *r, struct husk_error *err)
{
	size_t n = count(cli, "file"), n_groups = count(cli, "group-add");
	r->staged = calloc(n + 1, sizeof(*r->staged));
	r->files = calloc(n + 1, sizeof(*r->files));
	r->groups = calloc(n_groups + 1, sizeof(*r->groups));
	if (!r->staged || !r->files || !r->groups)
		return error_set(err, -ENOMEM, "exec: out of memory");
	r->config.n_files = n;
	r->config.files = r->files;
	r->config.groups = r->groups;
	for (size_t i = 0; i < n_groups; i++)
		r->groups[i] = cli_nth(cli, "group-add", i);
	for (size_t i = 0; i < n; i++) {
		struct staged *staged = &r->staged[i];
		int rc = stage(cli_nth(cli, "file", i), staged, err);
		if (rc < 0)
			return rc;
		husk_staged_file_init(&r->files[i]);
		r->files[i].path = staged->path;
		r->files[i].data = buffer_bytes(&staged->bytes);
		r->files[i].n = staged->bytes.size;
		r->files[i].mode = staged->mode ? staged->mode : 0400;
	}
	return 0;
}

/** Streams and terminal. Docker's rule and words for a terminal that is not there. */
static int take_streams(struct cli *cli, struct exec_request *r, struct husk_error *err)
{
	bool interactive = cli_flag(cli, "interactive");
	int ends[2];
	r->config.tty = cli_flag(cli, "tty");
	r->config.detach = cli_flag(cli, "detach");
	if (r->config.detach && (interactive || r->config.tty))
		return error_set(err, -EINVAL, "--detach: what runs on alone has no terminal and no input");
	if (r->config.detach)
		return 0;
	if (r->config.tty && interactive && !isatty(STDIN_FILENO))
		return error_set(err, -ENOTTY, "the input device is not a TTY");
	r->config.stdout_fd = STDOUT_FILENO;
	r->config.stderr_fd = STDERR_FILENO;
	r->typed = r->config.tty && interactive;
	if (r->config.tty)
		terminal_size(&r->config.rows, &r->config.columns);
	if (!r->typed) {
		r->config.stdin_fd = interactive ? STDIN_FILENO : -1;
		return 0;
	}
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_errno(err, "make a pipe for what is typed");
	r->config.stdin_fd = r->stdin_fd = ends[0];
	r->input = ends[1];
	return 0;
}

static int take_request(struct cli *cli, struct exec_request *r, struct husk_error *err)
{
	const char *timeout = cli_value(cli, "timeout");
	husk_exec_config_init(&r->config);
	r->config.command = cli->operands + 1;
	r->config.user = cli_value(cli, "user");
	r->config.working_dir = cli_value(cli, "workdir");
	int rc = detach_keys_parse(cli_value(cli, "detach-keys"), &r->keys, err);
	if (rc == 0 && timeout)
		rc = parse_duration(timeout, "--timeout", &r->config.timeout_ms, err);
	if (rc == 0 && timeout && r->config.timeout_ms == 0)
		return error_set(err, -ERANGE, "--timeout: a time of 0 leaves none for the command");
	rc = rc < 0 ? rc : take_environment(cli, r, err);
	rc = rc < 0 ? rc : take_files(cli, r, err);
	return rc < 0 ? rc : take_streams(cli, r, err);
}

/* ---- while it runs ---- */

/** What is under way. */
struct session {
	struct husk_exec *exec;
	struct run_signals signals;
	struct feed *feed;
	bool tty;
	int interrupts;
};

/** True when it is to be ended. */
static bool pass_on(struct session *s, int signal_number)
{
	uint16_t rows, columns;
	if (signal_number == SIGWINCH) {
		if (s->tty && terminal_size(&rows, &columns))
			husk_exec_resize(s->exec, rows, columns, NULL);
		return false;
	}
	if (signal_number == SIGINT && ++s->interrupts == INTERRUPTS_TO_END) {
		cli_say("interrupted three times: ending the command");
		return true;
	}
	husk_exec_signal(s->exec, signal_number, NULL);
	return false;
}

/** One turn: wait for something and do it. False when the program has ended, or is to be left or ended, with *@status set. */
static bool turn(struct session *s, int *status)
{
	struct pollfd fds[5] = {
		{.fd = husk_exec_fd(s->exec), .events = POLLIN},
		{.fd = s->signals.ending, .events = POLLIN},
		{.fd = s->signals.other, .events = POLLIN},
	};
	feed_poll(s->feed, fds + 3);
	if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
		return errno == EINTR;
	feed_move(s->feed, fds + 3);
	for (size_t i = 1; i < 3; i++) {
		int signal_number = fds[i].revents ? run_signals_take(fds[i].fd) : 0;
		if (signal_number && pass_on(s, signal_number)) {
			*status = 128 + signal_number;
			return false;
		}
	}
	return !fds[0].revents && !s->feed->detached;
}

/** The program's exit status, or husk's own. */
static int conclude(struct husk_exec *exec)
{
	struct husk_exec_outcome outcome = {.size = sizeof(outcome)};
	struct husk_error err;
	if (husk_exec_wait(exec, 0, &outcome, &err) < 0)
		return cli_fail(&err, CLI_FAILED);
	if (outcome.reason[0])
		cli_say("%s", outcome.reason);
	return outcome.exit_code;
}

static int leave(struct husk_exec *exec)
{
	struct husk_error err;
	if (husk_exec_leave(exec, &err) < 0)
		return cli_fail(&err, CLI_FAILED);
	cli_say("left by the detach keys; the command runs on");
	return 0;
}

static int attend(struct husk_exec *exec, struct exec_request *r)
{
	CLEANUP_FREE struct feed *feed = calloc(1, sizeof(*feed));
	struct session s = {.exec = exec, .feed = feed, .tty = r->config.tty};
	struct husk_error err;
	int status = -1;
	if (!feed || run_signals_open(&s.signals, &err) < 0)
		return cli_fail(feed ? &err : &(struct husk_error){.message = "exec: out of memory"}, CLI_FAILED);
	feed->from = feed->to = -1;
	if (r->typed) {
		signal(SIGPIPE, SIG_IGN); /* a program that ends closes its end of the pipe */
		feed->keys = r->keys;
		feed_init(feed, STDIN_FILENO, steal_fd(&r->input));
	}
	pass_on(&s, SIGWINCH); /* the size may have changed since it was asked for */
	if (r->typed && terminal_raw(&err) < 0)
		status = cli_fail(&err, CLI_FAILED);
	while (status < 0 && turn(&s, &status))
		;
	terminal_restore();
	if (status < 0)
		status = feed->detached ? leave(exec) : conclude(exec);
	feed_close(feed);
	run_signals_close(&s.signals);
	return status;
}

int verb_exec(struct cli *cli)
{
	CLEANUP(request_free) struct exec_request request = {.input = -1, .stdin_fd = -1};
	struct husk_vm *vm = NULL;
	struct husk_exec *exec = NULL;
	struct husk_error err;
	int rc = take_request(cli, &request, &err);
	rc = rc < 0 ? rc : husk_vm_open(cli->husk, cli->operands[0], &vm, &err);
	rc = rc < 0 ? rc : husk_exec_start(vm, &request.config, &exec, &err);
	int status = rc < 0                  ? cli_fail(&err, CLI_FAILED)
		     : request.config.detach ? conclude(exec)
					     : attend(exec, &request);
	husk_exec_close(exec);
	husk_vm_close(vm);
	return status;
}
