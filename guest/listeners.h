/* SPDX-License-Identifier: Apache-2.0 */
/*
 * listeners.h - the TCP ports that the workload listens on, as they come and go
 *
 * Nothing polls: a BPF program on the workload's cgroup hears each listen(2) and each end of a listener. The kernel's
 * sock_diag would not do: it announces no new listener, knows no age, and is silent when shutdown(2) ends one.
 */
#ifndef GUEST_LISTENERS_H
#define GUEST_LISTENERS_H

#include "agent/protocol.h"
#include "base/loop.h"

struct listeners;

/** The snapshot has changed. */
typedef void listeners_changed_fn(void *data);

/** Watch the listeners of @cgroup (a directory's descriptor, kept by the caller) and of those below it; sockets that were
 *  there before are not heard of. Fails where the kernel has no BPF on cgroups. *@out stays until the process ends. */
int listeners_open(struct loop *loop, int cgroup, listeners_changed_fn *changed, void *data, struct listeners **out,
	struct husk_error *err);
/** The live listeners in this process's network namespace, oldest first: *@n, at most AGENT_LISTENERS_MAX. They stay until
 *  the loop's next round. @listeners may be NULL: there are none. */
const struct agent_listener *listeners_get(const struct listeners *listeners, size_t *n);

/** What the program notes of a listener; shared with it, so the layout is fixed. */
struct listener_note {
	uint64_t since; /* CLOCK_MONOTONIC in nanoseconds */
	uint64_t network; /* cookie of its network namespace */
	uint32_t family; /* AF_INET or AF_INET6 */
	uint32_t port;
	uint8_t address[16]; /* network byte order */
};

/** Sort @notes by age (equal ones stay in no particular order) and tell those in @network as the protocol has them; how
 *  many. @to has room for @n. Exported for its test. */
size_t listeners_tell(struct listener_note *notes, size_t n, uint64_t network, struct agent_listener *to);
/** True when the sorted @notes hold one in @network that is younger than *@youngest, which then is its age: a listener came
 *  since, though it may be told in the same words as one that has gone. Exported for its test. */
bool listeners_renewed(const struct listener_note *notes, size_t n, uint64_t network, uint64_t *youngest);

#endif
