/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - husk-vmm's own lines in the VM's log */
#ifndef VMM_LOG_H
#define VMM_LOG_H

#include <stdarg.h>

#define VMM_LOG_LINE 700 /* with time, @who and its newline */

/** Append "2026-11-28T22:36:32.123456789Z @who: " and one formatted line, cut at VMM_LOG_LINE bytes, to @fd in a single write;
 *  -1: nowhere. The log is opened with O_APPEND and others write to it as well. */
__attribute__((format(printf, 3, 0))) void vmm_log(int fd, const char *who, const char *format, va_list args);

#endif
