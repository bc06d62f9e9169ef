/* SPDX-License-Identifier: Apache-2.0 */
/* terminal.c - the caller's terminal during `run -t`. The saved modes are global: a process has one terminal, and exit
 * handlers take no argument */
#include "cli/terminal.h"

#include "base/error.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios saved;
static bool changed;

void terminal_restore(void)
{
	if (changed)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
	changed = false;
}

int terminal_raw(struct husk_error *err)
{
	struct termios raw;
	if (tcgetattr(STDIN_FILENO, &saved) < 0)
		return error_errno(err, "read the terminal's modes");
	raw = saved;
	cfmakeraw(&raw);
	changed = true;
	atexit(terminal_restore);
	return tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) < 0 ? error_errno(err, "set the terminal's modes") : 0;
}

bool terminal_size(uint16_t *rows, uint16_t *columns)
{
	struct winsize size;
	for (int fd = 0; fd < 3; fd++) {
		if (ioctl(fd, TIOCGWINSZ, &size) < 0 || !size.ws_row || !size.ws_col)
			continue;
		*rows = size.ws_row;
		*columns = size.ws_col;
		return true;
	}
	return false;
}
