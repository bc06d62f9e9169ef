/* SPDX-License-Identifier: Apache-2.0 */
/* engine.h - what the rooms of the engine share: the opened home, and how they say things to the user */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "base/error.h"

#include <husk.h>

/** The handle behind the public API. Never changes after husk_open(), so any thread may use it. */
struct husk {
	char *home; /* absolute, exists */
	char *runtime; /* absolute, 0700, short enough for unix sockets below RUNTIME/ID/ */
	char *libexec;
	husk_notice_fn *notice;
	void *notice_data;
};

/** Tell the user one line; without a notice function nothing happens. Non-printable bytes are replaced. */
__attribute__((format(printf, 3, 4))) void engine_notice(
	const struct husk *husk, enum husk_notice kind, const char *format, ...);

/** malloc'ed path of the helper program @name, -ENOENT with a remedy when it is not there. */
int engine_helper(const struct husk *husk, const char *name, char **path, struct husk_error *err);

/** malloc'ed path of the program @name in PATH or in the sbin directories; NULL when there is none. */
char *engine_find_program(const char *name);

#endif
