/* SPDX-License-Identifier: Apache-2.0 */
/*
 * console.c - husk console: our terminal as that of a VM's serial console
 *
 * Theory of operation: the console is a pseudo-terminal whose path is in the VM's record. We open it as anybody could, put both
 * terminals into raw mode and carry bytes, until the detach keys come or the VM's end hangs it up. It is the kernel's: nothing of
 * ours has to be there for the next one.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "cli/feed.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

#include <fcntl.h>
#include <string.h>
#include <termios.h>

/** The console of the VM called @name, opened. */
static int open_console(struct husk *husk, const char *name, struct husk_error *err)
{
	struct husk_status status = {.size = sizeof(status)};
	struct husk_vm *vm;
	int rc = husk_vm_open(husk, name, &vm, err);
	if (rc < 0)
		return rc;
	rc = husk_vm_status(vm, &status, err);
	husk_vm_close(vm);
	if (rc < 0)
		return rc;
	if (!status.console[0])
		return error_set(err, -ESRCH,
			"console of '%s': it has none; VMs have one while they run, if they were started with --detach "
			"or 'husk "
			"start'",
			name);
	int fd = open(status.console, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? error_errno(err, "console of '%s': open %s", name, status.console) : fd;
}

static int make_raw(int fd, struct husk_error *err)
{
	struct termios modes;
	if (tcgetattr(fd, &modes) < 0)
		return error_errno(err, "read the console's modes");
	cfmakeraw(&modes);
	return tcsetattr(fd, TCSANOW, &modes) < 0 ? error_errno(err, "set the console's modes") : 0;
}

/** Carry bytes until the one or the other ends; 0, or an error of our output. */
static int relay(int console, struct feed *feed, struct husk_error *err)
{
	char said[4096];
	while (!feed->detached) {
		struct pollfd fds[3] = {{.fd = console, .events = POLLIN}};
		feed_poll(feed, fds + 1);
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return error_errno(err, "wait for the console");
		feed_move(feed, fds + 1);
		if (!fds[0].revents)
			continue;
		ssize_t n = read(console, said, sizeof(said));
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return 0; /* hung up */
		int rc = n > 0 ? fd_write_all(STDOUT_FILENO, said, (size_t)n) : 0;
		if (rc < 0)
			return error_set(err, rc, "write the console's output: %s", strerror(-rc));
	}
	return 0;
}

int verb_console(struct cli *cli)
{
	CLEANUP_FREE struct feed *feed = calloc(1, sizeof(*feed));
	struct husk_error err;
	if (!feed || detach_keys_parse(cli_value(cli, "detach-keys"), &feed->keys, &err) < 0)
		return feed ? cli_fail(&err, 1) : 1;
	CLEANUP_FD int console = open_console(cli->husk, cli->operands[0], &err);
	if (console < 0 || make_raw(console, &err) < 0)
		return cli_fail(&err, 1);
	int to = fcntl(console, F_DUPFD_CLOEXEC, 3);
	if (to < 0 || (isatty(STDIN_FILENO) && terminal_raw(&err) < 0))
		return to < 0 ? 1 : cli_fail(&err, 1);
	feed_init(feed, STDIN_FILENO, to);
	int rc = relay(console, feed, &err);
	feed_close(feed);
	terminal_restore();
	if (rc < 0)
		return cli_fail(&err, 1);
	cli_say(feed->detached ? "left by the detach keys; the VM lives on" : "the console has ended");
	return 0;
}
