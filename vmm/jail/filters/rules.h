/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rules.h - which system calls each kind of thread may make, and why; compiled into filters at build time
 *
 * Theory of operation: a list is one table per kind of thread. An entry names a system call as the kernel does and why the
 * thread makes it; with a condition it holds for calls only one argument of which has a certain value, or certain bits of it.
 * Several entries for one call are alternatives. A name that the architecture does not have (poll, epoll_wait) is left out
 * there; one that no architecture has fails the build. Everything else kills the process.
 */
#ifndef VMM_JAIL_FILTERS_RULES_H
#define VMM_JAIL_FILTERS_RULES_H

#include <stdint.h>

enum rule_when { ALWAYS, EQUALS, MASKED };

struct rule {
	const char *call, *why;
	enum rule_when when;
	unsigned argument; /* counted from 0 */
	uint64_t value, mask;
};

#define CALL(name, reason)                                                                                             \
	{                                                                                                              \
		.call = #name, .why = reason                                                                           \
	}
#define CALL_IF(name, argument_, value_, reason)                                                                       \
	{                                                                                                              \
		.call = #name, .why = reason, .when = EQUALS, .argument = argument_, .value = value_                   \
	}
#define CALL_WITHOUT(name, argument_, bits, reason)                                                                    \
	{                                                                                                              \
		.call = #name, .why = reason, .when = MASKED, .argument = argument_, .mask = bits, .value = 0          \
	}

extern const struct rule loop_rules[], vcpu_rules[]; /* the last has no call */

#endif
