/* SPDX-License-Identifier: Apache-2.0 */
/* button.h - the machine's power button: an input device of the kernel's button driver */
#ifndef GUEST_BUTTON_H
#define GUEST_BUTTON_H

#include "base/loop.h"

#include <stddef.h>

#define BUTTONS_MAX 4 /* one is usual, two where firmware describes it twice */

struct button {
	struct loop_watch watch;
	struct buttons *all;
};

struct buttons {
	struct loop *loop;
	struct button button[BUTTONS_MAX];
	size_t n;
	void (*pressed)(void *data);
	void *data;
};

/** Watch every power button below @directory (/dev/input) and call what @buttons names; there may be none. */
void buttons_open(struct buttons *buttons, struct loop *loop, const char *directory);

#endif
