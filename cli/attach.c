/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attach.c - husk attach: being with a VM that lives on
 *
 * Theory of operation: its output takes one way, the log, which a thread follows from now on (or from the VM's start) and writes to
 * our stdout and stderr, never for longer than a descriptor has room, so that it can be called off. Its input is a pipe whose
 * reading end the VM gets and which we feed. This thread has everything else: signals, the terminal, the detach keys. The log ends
 * when the VM has ended and all of it was shown; then we end with its exit status.
 */
#include "cli/attach.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/feed.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>

#define PIECE 4096 /* poll(2) promises room for so much in a pipe */

/** The thread that follows the log. */
struct follower {
	struct husk_vm *vm;
	struct husk_log_options options;
	int done; /* eventfd: the log has ended */
	int cancel; /* eventfd: it shall */
	pthread_t thread;
	int rc;
	struct husk_error err;
};

/** 0, -ECANCELED, or why it cannot be written. */
static int write_piece(const struct follower *f, int fd, const void *bytes, size_t n)
{
	struct pollfd fds[] = {{.fd = fd, .events = POLLOUT}, {.fd = f->cancel, .events = POLLIN}};
	while (n > 0) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return -errno;
		if (fds[1].revents)
			return -ECANCELED;
		if (!fds[0].revents)
			continue;
		ssize_t written = write(fd, bytes, n < PIECE ? n : PIECE);
		if (written < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (written > 0) {
			bytes = (const char *)bytes + written;
			n -= (size_t)written;
		}
	}
	return 0;
}

static int show(void *data, enum husk_stream stream, uint64_t time_ns, const void *bytes, size_t n)
{
	const struct follower *f = data;
	if (stream == HUSK_LOST) {
		cli_say("%zu bytes of output were dropped here", n);
		return 0;
	}
	return write_piece(f, stream == HUSK_STDERR ? STDERR_FILENO : STDOUT_FILENO, bytes, n);
}

static void *follow(void *argument)
{
	struct follower *f = argument;
	f->rc = husk_vm_logs(f->vm, &f->options, show, f, &f->err);
	eventfd_write(f->done, 1);
	return NULL;
}

static int follower_start(struct follower *f, struct husk_vm *vm, bool from_start, struct husk_error *err)
{
	sigset_t all, before;
	f->vm = vm;
	f->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	f->cancel = eventfd(0, EFD_CLOEXEC);
	husk_log_options_init(&f->options);
	f->options.follow = true;
	f->options.last_start = from_start;
	f->options.tail = from_start ? -1 : 0;
	f->options.cancel_fd = f->cancel;
	if (f->done < 0 || f->cancel < 0)
		return error_errno(err, "follow the log");
	sigfillset(&all);
	pthread_sigmask(
		SIG_BLOCK, &all, &before); /* signals are the other thread's; a reader that has gone is an error here */
	int rc = -pthread_create(&f->thread, NULL, follow, f);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc < 0 ? error_set(err, rc, "start a thread to follow the log: %s", strerror(-rc)) : 0;
}

/** Call it off if it is not over; it has ended when this returns. */
static void follower_end(struct follower *f)
{
	eventfd_write(f->cancel, 1);
	pthread_join(f->thread, NULL);
	close(f->done);
	close(f->cancel);
}

/** What the VM was made with, from its JSON. */
static int look(struct attach *attach, struct husk_vm *vm, struct husk_error *err)
{
	CLEANUP_FREE char *text = NULL;
	int rc = husk_vm_inspect(vm, &text, err);
	if (rc < 0)
		return rc;
	json_t *json = json_loads(text, 0, NULL), *config = json_object_get(json, "config");
	attach->tty = json_is_true(json_object_get(config, "tty"));
	attach->open_stdin = json_is_true(json_object_get(config, "open_stdin"));
	json_decref(json);
	return 0;
}

int attach_prepare(struct attach *attach, const struct cli *cli, struct husk_vm *vm, bool input, struct husk_error *err)
{
	const char *proxy = cli_value(cli, "sig-proxy");
	attach->proxy = !proxy || cli_flag(cli, "sig-proxy");
	int rc = detach_keys_parse(cli_value(cli, "detach-keys"), &attach->keys, err);
	rc = rc < 0 ? rc : look(attach, vm, err);
	attach->input = rc == 0 && input && attach->open_stdin;
	if (attach->input && attach->tty && !isatty(STDIN_FILENO))
		return error_set(err, -ENOTTY,
			"the input device is not a TTY; without stdin (%s) the VM's output is to be had",
			strcmp(cli->verb->name, "attach") == 0 ? "--no-stdin" : "--attach alone");
	return rc;
}

/** Have our stdin fed to the workload's. One whose stdin has ended, or that has ended itself, gets nothing more. */
static int open_input(struct feed *feed, const struct attach *attach, struct husk_vm *vm, struct husk_error *err)
{
	int ends[2];
	bool terminal = isatty(STDIN_FILENO);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_errno(err, "attach to stdin");
	int rc = husk_vm_attach_stdin(vm, ends[0], !terminal && !attach->tty, err);
	close(ends[0]);
	if (rc < 0)
		close(ends[1]);
	if (rc == -EPIPE || rc == -ESRCH)
		return 0;
	if (rc == -EBUSY)
		return error_prefix(
			err, rc, "attach to stdin (another husk may have it; its output is to be had without)");
	if (rc < 0)
		return rc;
	feed_init(feed, STDIN_FILENO, ends[1]);
	if (attach->tty) {
		feed->keys = attach->keys;
		rc = terminal_raw(err);
	}
	return rc;
}

/** A program that was there before does not know that somebody looks: a size that changes makes it draw anew. */
static void draw_anew(struct husk_vm *vm)
{
	uint16_t rows, columns;
	if (terminal_size(&rows, &columns)) {
		husk_vm_resize(vm, (uint16_t)(rows + 1), columns, NULL);
		husk_vm_resize(vm, rows, columns, NULL);
	}
}

/** One turn: wait for something and do it. False when it is time to leave, with *@status set. */
static bool turn(struct attendance *a, const struct attach *attach, struct follower *f, struct feed *feed,
	struct run_signals *signals, int *status)
{
	struct pollfd fds[5] = {
		{.fd = f->done, .events = POLLIN},
		{.fd = signals->ending, .events = POLLIN},
		{.fd = signals->other, .events = POLLIN},
	};
	feed_poll(feed, fds + 3);
	if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
		return errno == EINTR;
	feed_move(feed, fds + 3);
	for (size_t i = 1; i < 3; i++) {
		int signal_number = fds[i].revents ? run_signals_take(fds[i].fd) : 0;
		*status = 128 + signal_number;
		if (signal_number && !attach->proxy && signal_number != SIGWINCH)
			return false;
		if (signal_number)
			attend_signal(a, signal_number);
		if (a->leave)
			return false;
	}
	*status = 0;
	return !fds[0].revents && !feed->detached;
}

int attach_stay(struct husk_vm *vm, const struct attach *attach, struct run_signals *signals)
{
	struct attendance a = {.vm = vm, .tty = attach->tty, .guest = true};
	CLEANUP_FREE struct feed *feed = calloc(1, sizeof(*feed));
	struct follower f = {.done = -1, .cancel = -1};
	struct husk_error err;
	uint64_t over;
	int status = 0;

	if (!feed) {
		cli_say("attach: out of memory");
		return 1;
	}
	feed->from = feed->to = -1;
	signal(SIGPIPE, SIG_IGN); /* a VM that ends closes its end of the pipe */
	if (follower_start(&f, vm, attach->from_start, &err) < 0)
		return cli_fail(&err, 1);
	if (attach->input && open_input(feed, attach, vm, &err) < 0) {
		follower_end(&f);
		feed_close(feed);
		return cli_fail(&err, 1);
	}
	if (attach->tty)
		draw_anew(vm);
	while (turn(&a, attach, &f, feed, signals, &status))
		;
	bool ended = eventfd_read(f.done, &over) == 0;
	terminal_restore();
	feed_close(feed);
	follower_end(&f);
	if (ended && f.rc < 0 && f.rc != -EPIPE)
		return cli_fail(&f.err, 1);
	if (ended)
		return attend_end(&a, 1);
	if (feed->detached)
		cli_say("left by the detach keys; the VM lives on");
	return status;
}

int verb_attach(struct cli *cli)
{
	struct attach attach = {0};
	struct run_signals signals;
	struct husk_status now = {.size = sizeof(now)};
	struct husk_error err;
	struct husk_vm *vm;
	int status;
	if (husk_vm_open(cli->husk, cli->operands[0], &vm, &err) < 0)
		return cli_fail(&err, 1);
	int rc = husk_vm_status(vm, &now, &err);
	if (rc == 0 && now.state == HUSK_STATE_PAUSED)
		rc = error_set(
			&err, -EAGAIN, "attach to '%s': it is paused; 'husk unpause' lets it go on", cli->operands[0]);
	else if (rc == 0 && now.state != HUSK_STATE_RUNNING && now.state != HUSK_STATE_STARTING)
		rc = error_set(&err, -ESRCH, "attach to '%s': it does not run; 'husk start --attach' starts it",
			cli->operands[0]);
	rc = rc < 0 ? rc : attach_prepare(&attach, cli, vm, !cli_flag(cli, "no-stdin"), &err);
	rc = rc < 0 ? rc : run_signals_open(&signals, &err);
	if (rc < 0) {
		status = cli_fail(&err, 1);
	} else {
		status = attach_stay(vm, &attach, &signals);
		run_signals_close(&signals);
	}
	husk_vm_close(vm);
	return status;
}
