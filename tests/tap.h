/* SPDX-License-Identifier: Apache-2.0 */
/* tap.h - unit tests speak TAP: one program per module, CHECK() per fact, tap_done() at the end of main */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int tap_count, tap_failed;

static inline bool tap_check(bool ok, const char *what, const char *file, int line)
{
	tap_count++;
	if (!ok)
		tap_failed++;
	printf("%s %d - %s\n", ok ? "ok" : "not ok", tap_count, what);
	if (!ok)
		printf("# %s:%d\n", file, line);
	fflush(stdout);
	return ok;
}

/** One fact, named by a sentence. */
#define CHECK(condition, what) tap_check(!!(condition), what, __FILE__, __LINE__)
/** A fact that cannot be looked at here, and why. */
#define SKIP(what, why) printf("ok %d - %s # skip %s\n", ++tap_count, what, why)
#define CHECK_STRING(got, want, what)                                                                                  \
	do {                                                                                                           \
		const char *got_ = (got), *want_ = (want);                                                             \
		if (!tap_check(got_ && want_ && strcmp(got_, want_) == 0, what, __FILE__, __LINE__))                   \
			printf("# got:  %s\n# want: %s\n", got_ ? got_ : "(null)", want_ ? want_ : "(null)");          \
	} while (0)

static inline int tap_done(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed ? 1 : 0;
}

#endif
