/* SPDX-License-Identifier: Apache-2.0 */
/*
 * console.c - what husk-init says on the guest's console
 *
 * Theory of operation: the kernel gives PID 1 the console as descriptors 0 to 2. An emulated serial port takes a trap per
 * byte, so a healthy start says nothing. Lines are written whole, by one write(2).
 *
 * Where the console's driver is a module (virtio_console) the kernel has no console to give: its descriptors are missing, and
 * the first files that are opened would take their places. Until the driver has come lines go to the kernel's log, which
 * the early console shows. It comes some time after its module, so each line looks for it anew.
 */
#include "guest/console.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1200

static bool debugging;
static bool missing; /* there is no console yet */

void console_begin(void)
{
	while (fcntl(STDERR_FILENO, F_GETFD) < 0 && open("/", O_PATH) >= 0)
		missing = true;
}

/** Take the console that there is by now, if there is one. */
static void attach(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return;
	for (int i = STDIN_FILENO; i <= STDERR_FILENO; i++)
		dup2(fd, i);
	close(fd);
	missing = false;
}

static void write_bytes(const char *line, size_t n)
{
	int fd = missing ? open("/dev/kmsg", O_WRONLY | O_CLOEXEC) : STDERR_FILENO;
	if (fd >= 0 && write(fd, line, n) < 0)
		return; /* nowhere left to say it */
	if (missing && fd >= 0)
		close(fd);
}

void console_set_debug(bool on)
{
	debugging = on;
}

__attribute__((format(printf, 1, 0))) static void write_line(const char *format, va_list ap)
{
	char line[LINE_MAX_BYTES];
	if (missing)
		attach();
	int n = snprintf(line, sizeof(line), "%shusk-init: ", missing ? "<3>" : ""); /* an error, which `quiet` lets through */
	int more = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, ap);
	n = more < 0 ? n : n + more;
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	write_bytes(line, (size_t)n);
}

void console_say(const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	write_line(format, ap);
	va_end(ap);
}

void console_debug(const char *format, ...)
{
	struct timespec now;
	char stamped[256];
	if (!debugging)
		return;
	clock_gettime(CLOCK_BOOTTIME, &now);
	va_list ap;
	va_start(ap, format);
	vsnprintf(stamped, sizeof(stamped), format, ap);
	va_end(ap);
	console_say("[%3u.%03u] %s", (unsigned)now.tv_sec, (unsigned)(now.tv_nsec / 1000000), stamped);
}
