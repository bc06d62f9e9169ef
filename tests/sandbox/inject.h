/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inject.h - every call of the system's that a scenario makes fails once
 *
 * Theory of operation: the test is linked with --wrap for what the library calls of libc (the list is in inject.c, the flags in
 * meson.build), so that each such call passes through here, where it is counted and, when it is the one that is meant, fails as
 * it would in a host that is out of it. A scenario is run once to count its calls, and then once per call, the first failing in
 * the first run, the second in the second: each run has to succeed or to give an error that is told, must leave neither a
 * descriptor nor a mapping nor a block of memory behind, and must not have hurt anything: a run in which nothing fails
 * succeeds after it.
 */
#ifndef TESTS_SANDBOX_INJECT_H
#define TESTS_SANDBOX_INJECT_H

#include "tests/tap.h"

#include <husk.h>
#include <stdbool.h>
#include <stdint.h>

/** Do something that ends with nothing held; 0 or an error as the library gives it. */
typedef int inject_scenario(void *data, struct husk_error *err);

enum inject_how {
	INJECT_FAIL, /* the call fails for good */
	INJECT_INTERRUPT, /* a call that can be interrupted gives EINTR, once: the scenario has to succeed */
};

/** First in main(): run again with a malloc() that does not count blocks which are free as used. */
void inject_begin(char **argv);

struct inject_verdict {
	bool clean; /* it succeeds when nothing fails */
	uint64_t calls, runs, errors, successes;
	unsigned untold; /* errors without code or message */
	unsigned leaked, hurt;
	unsigned missed; /* runs that did not come to the call */
};

/** Run it as above; says of each run in which something is wrong what. At most @most failures are injected, spread over all
 *  calls; 0: each. @at_once: in how many processes, for a scenario that mostly waits and uses nothing of KVM's that this process
 *  has; 1: in this one. */
struct inject_verdict inject_run(
	inject_scenario *scenario, void *data, enum inject_how how, unsigned most, unsigned at_once);

/** The same, and a CHECK() per kind of fact. */
static inline void inject_all(
	const char *what, inject_scenario *scenario, void *data, enum inject_how how, unsigned most, unsigned at_once)
{
	const struct inject_verdict v = inject_run(scenario, data, how, most, at_once);
	char text[200];

	printf("# %s: %ju of %ju calls failed, one in each run: %ju errors, %ju successes\n", what, (uintmax_t)v.runs,
		(uintmax_t)v.calls, (uintmax_t)v.errors, (uintmax_t)v.successes);
	snprintf(text, sizeof(text), "%s: succeeds when nothing fails", what);
	CHECK(v.clean && v.runs, text);
	if (how == INJECT_INTERRUPT) {
		snprintf(text, sizeof(text), "%s: an interrupted call is made again", what);
		CHECK(v.runs && v.errors == 0 && v.missed == 0, text);
	} else {
		snprintf(text, sizeof(text), "%s: whatever fails, there is an error that is told, or it did not matter",
			what);
		CHECK(v.errors && v.untold == 0 && v.missed == 0, text);
	}
	snprintf(text, sizeof(text), "%s: nothing is left behind", what);
	CHECK(v.runs && v.leaked == 0, text);
	snprintf(text, sizeof(text), "%s: and the next time it succeeds", what);
	CHECK(v.runs && v.hurt == 0, text);
}

#endif
