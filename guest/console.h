/* SPDX-License-Identifier: Apache-2.0 */
/* console.h - what husk-init says on the guest's console: short lines, seldom */
#ifndef GUEST_CONSOLE_H
#define GUEST_CONSOLE_H

#include <stdbool.h>

/** First of all: see to it that descriptors 0 to 2 are taken, with or without a console. */
void console_begin(void);
/** Let debug lines through. */
void console_set_debug(bool on);
/** A line that belongs in the VM's log. */
__attribute__((format(printf, 1, 2))) void console_say(const char *format, ...);
/** A line with the time since boot, only with BOOT_FLAG_DEBUG. */
__attribute__((format(printf, 1, 2))) void console_debug(const char *format, ...);

#endif
