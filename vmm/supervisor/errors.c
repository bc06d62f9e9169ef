/* SPDX-License-Identifier: Apache-2.0 */
/*
 * errors.c - what QEMU says on its stderr
 *
 * Theory of operation: each of its lines goes into the VM's log with its time, and the last one explains QEMU's end. A QEMU
 * that its guest has captured may say anything, so bytes that are not printable are replaced, a line is cut in pieces of
 * ERROR_LINE bytes, and after ERRORS_MAX bytes the rest is read and dropped: its pipe must not fill, or QEMU would wait.
 */
#include "vmm/supervisor/supervisor.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define ERRORS_MAX (1u << 20)
#define DRAIN_MAX 64

static void log_line(struct supervisor *s)
{
	struct child_errors *e = &s->errors;

	if (e->n == 0)
		return;
	e->line[e->n] = 0;
	memcpy(e->last, e->line, e->n + 1);
	if (e->logged < ERRORS_MAX)
		supervisor_log_as(s, s->machine.name, "%s", e->line);
	if (e->logged < ERRORS_MAX && e->logged + e->n >= ERRORS_MAX)
		supervisor_log(s, "QEMU has said %u bytes, and nothing more of it is kept", ERRORS_MAX);
	e->logged = e->logged + e->n < ERRORS_MAX ? e->logged + e->n : ERRORS_MAX;
	e->n = 0;
}

static void take_byte(struct supervisor *s, char byte)
{
	struct child_errors *e = &s->errors;

	if (byte == '\n' || e->n == ERROR_LINE)
		log_line(s);
	if (byte != '\n' && byte != '\r')
		e->line[e->n++] = byte >= 0x20 && byte <= 0x7e ? byte : '?';
}

bool errors_read(struct supervisor *s)
{
	char bytes[4096];

	ssize_t n = read(s->errors.fd, bytes, sizeof(bytes));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	for (ssize_t i = 0; i < n; i++)
		take_byte(s, bytes[i]);
	if (n <= 0)
		log_line(s); /* one without a newline */
	return n > 0;
}

const char *errors_last(struct supervisor *s)
{
	struct child_errors *e = &s->errors;

	e->line[e->n] = 0;
	return e->n ? e->line : e->last;
}

void errors_drain(struct supervisor *s)
{
	for (int i = 0; s->errors.fd >= 0 && i < DRAIN_MAX && errors_read(s); i++)
		;
}
