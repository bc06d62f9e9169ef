/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - husk-vmm's own lines in the VM's log */
#include "vmm/log.h"

#include "base/fd.h"

#include <stdio.h>
#include <string.h>

void vmm_log(int fd, const char *who, const char *format, va_list args)
{
	char text[640];
	size_t n = (size_t)snprintf(text, 32, "husk-vmm %s: ", who);

	vsnprintf(text + n, sizeof(text) - n - 1, format, args);
	n = strlen(text);
	text[n] = '\n';
	if (fd >= 0)
		(void)fd_write_all(fd, text, n + 1);
}
