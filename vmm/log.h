/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - husk-vmm's own lines in the VM's log */
#ifndef VMM_LOG_H
#define VMM_LOG_H

#include <stdarg.h>

/** Append "husk-vmm @who: " and one formatted line, cut at 600 bytes, to @fd in a single write; -1: nowhere. */
__attribute__((format(printf, 3, 0))) void vmm_log(int fd, const char *who, const char *format, va_list args);

#endif
