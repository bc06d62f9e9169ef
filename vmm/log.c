/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - husk-vmm's own lines in the VM's log */
#include "vmm/log.h"

#include "base/fd.h"
#include "base/rfc3339.h"

#include <stdio.h>
#include <string.h>

void vmm_log(int fd, const char *who, const char *format, va_list args)
{
	char text[VMM_LOG_LINE], time[RFC3339_SIZE];

	if (fd < 0)
		return;
	rfc3339_format(clock_realtime_ns(), time);
	size_t n = (size_t)snprintf(text, 80, "%s %.40s: ", time, who);
	vsnprintf(text + n, sizeof(text) - n - 1, format, args);
	n = strlen(text);
	text[n] = '\n';
	(void)fd_write_all(fd, text, n + 1);
}
