/* SPDX-License-Identifier: Apache-2.0 */
/* console.c - the guest's serial console on its way into the VM's log (theory of operation: console.h) */
#include "vmm/console.h"

#include "base/cleanup.h"
#include "base/fd.h"

#include <string.h>

static void end_line(struct console *c)
{
	c->line[c->line_size] = 0;
	c->line_size = 0;
	const char *words = strstr(c->line, "Kernel panic - not syncing");
	if (!words)
		words = strstr(c->line, "husk-init: "); /* the agent ends the VM with a reason */
	if (words && (!c->panic[0] || strncmp(words, "Kernel", 6) != 0))
		memcpy(c->panic, words, strlen(words) + 1);
}

static void flush(struct console *c)
{
	if (c->records)
		record_log_write(c->records, RECORD_CONSOLE, c->held, c->n_held);
	else if (c->log_fd >= 0 && c->n_held)
		(void)fd_write_all(c->log_fd, c->held, c->n_held);
	c->n_held = 0;
}

/** To the log, in whole lines where they come byte by byte. */
static void write_log(struct console *c, const char *bytes, size_t n)
{
	if (n > sizeof(c->held) - c->n_held)
		flush(c);
	if (n > sizeof(c->held)) {
		(void)fd_write_all(c->log_fd, bytes, n);
		return;
	}
	memcpy(c->held + c->n_held, bytes, n);
	c->n_held += (uint32_t)n;
	if (n && bytes[n - 1] == '\n')
		flush(c);
}

static void on_flush(struct loop_watch *watch, uint32_t events)
{
	struct console *c = CONTAINER_OF(watch, struct console, flush);

	(void)events;
	loop_timer_set(watch, 0);
	c->flush_set = false;
	flush(c);
}

/** Into the log of bounded size, likewise; what does not end a line waits for the rest of it, but not long. */
static void write_records(struct console *c, const char *bytes, size_t n)
{
	bool ends = n && bytes[n - 1] == '\n';

	while (n) {
		size_t room = sizeof(c->held) - c->n_held, fits = n < room ? n : room;
		memcpy(c->held + c->n_held, bytes, fits);
		c->n_held += (uint32_t)fits;
		bytes += fits;
		n -= fits;
		if (c->n_held == sizeof(c->held))
			flush(c);
	}
	if (ends)
		flush(c);
	if (c->n_held && !c->flush_set) {
		loop_timer_set(&c->flush, CONSOLE_FLUSH_MS);
		c->flush_set = true;
	}
}

void console_write(struct console *c, const void *data, size_t n)
{
	static const char cut[] = "\n[husk: the guest's console goes on, but the log takes no more of it]\n";
	const char *bytes = data;

	if (c->records) {
		write_records(c, bytes, n);
	} else if (c->log_fd >= 0 && c->logged < CONSOLE_MAX) {
		size_t room = CONSOLE_MAX - c->logged;
		write_log(c, bytes, n < room ? n : room);
		c->logged += (uint32_t)(n < room ? n : room);
		if (c->logged == CONSOLE_MAX)
			write_log(c, cut, sizeof(cut) - 1);
	}
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] == '\n' || c->line_size == CONSOLE_LINE - 1)
			end_line(c);
		if (bytes[i] != '\n' && bytes[i] != '\r')
			c->line[c->line_size++] = bytes[i] >= 0x20 && bytes[i] <= 0x7e ? bytes[i] : '?';
	}
}

/** One read; false when nothing is there now or ever. */
static bool read_once(struct console *c)
{
	char bytes[4096];

	if (c->fd < 0)
		return false;
	ssize_t n = read(c->fd, bytes, sizeof(bytes));
	if (n > 0) {
		console_write(c, bytes, (size_t)n);
		if (!c->records)
			flush(c); /* what came in one piece need not wait for its line's end */
		return true;
	}
	if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		loop_remove(c->loop, &c->watch);
		cleanup_fd(&c->fd);
		c->fd = -1;
	}
	return false;
}

static void on_console(struct loop_watch *watch, uint32_t events)
{
	(void)events;
	read_once(CONTAINER_OF(watch, struct console, watch));
}

int console_open(struct console *c, struct loop *loop, int fd, int log_fd, struct husk_error *err)
{
	*c = (struct console){.loop = loop, .fd = -1, .log_fd = log_fd};
	if (fd < 0)
		return 0;
	int rc = fd_set_nonblocking(fd, true);
	if (rc < 0)
		return error_set(err, rc, "make the console non-blocking");
	rc = loop_add(loop, &c->watch, fd, EPOLLIN, on_console, err);
	if (rc == 0)
		c->fd = fd;
	return rc;
}

int console_record(struct console *c, struct record_log *records, struct husk_error *err)
{
	int rc = loop_timer_open(c->loop, &c->flush, on_flush, err);

	if (rc == 0)
		c->records = records;
	return rc;
}

void console_drain(struct console *c)
{
	/* Bounded: a socket's buffer holds less, and a guest that writes on must not keep us here. */
	for (int i = 0; i < 256 && read_once(c); i++)
		;
	flush(c);
	if (c->line_size)
		end_line(c);
}
