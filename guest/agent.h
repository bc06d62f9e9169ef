/* SPDX-License-Identifier: Apache-2.0 */
/* agent.h - the agent: answers the protocol of agent/protocol.h on a listening socket */
#ifndef GUEST_AGENT_H
#define GUEST_AGENT_H

#include "agent/protocol.h"
#include "base/loop.h"
#include "guest/button.h"
#include "guest/enter.h"

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>

struct agent;
struct exec;
struct forward;
struct forwards;
struct listeners;

#define AGENT_LISTEN_BACKLOG 4096 /* a host may connect in bursts; the agent accepts as fast as it can */

enum connection_state {
	CONNECTION_HELLO, /* waits for the client's HELLO */
	CONNECTION_REQUEST,
	CONNECTION_EXEC,
	CONNECTION_HELPER, /* a child works on the answer */
	CONNECTION_LISTENERS,
	CONNECTION_FORWARD, /* the port is being connected; nothing is read */
	CONNECTION_HANDED_OVER, /* to a forward: nothing but this struct is left */
	CONNECTION_TREE, /* a child works on it with the socket; nothing is read or written here meanwhile */
	CONNECTION_CLOSING, /* what is in `out` is the last */
};

/** One connection, one operation. While it waits for its request, or is a forward's, it holds no buffers. */
struct connection {
	struct agent *agent;
	struct loop_watch watch;
	struct buffer in, out;
	enum connection_state state;
	bool broken; /* the peer is gone */
	bool was_main; /* carried the workload to its end: when the host has taken it, the VM ends */
	bool power; /* its end is the VM's */
	bool shut; /* all is written and the peer knows; it stays until the peer closes, whose frames may be under way */
	bool counted; /* among agent->n_operations */
	bool stale; /* LISTENERS: the client does not know the newest state */
	enum agent_type helped; /* the request that the child works on */
	pid_t helper;
	struct exec *exec;
	struct forward *forward; /* while it is being connected */
	struct connection *prev, *next;
};

/** What agent_serve() is told. */
struct agent_setup {
	struct workload_setup workload;
	int listener; /* taken */
	bool from_host_only; /* the listener is vsock: peers other than the host are refused */
	int ready; /* taken: the connection on which READY was sent; -1: none */
	pid_t late_modules; /* a child whose end may have brought a power button; -1: none */
	const char *input; /* directory of the input devices */
	const char *sysfs; /* where it is mounted; NULL: it is mounted when needed */
	uint32_t stop_signal; /* what the power button sends to the workload */
	bool kept; /* what is written outlives the VM: a sync begins when the power button is pressed */
};

struct agent {
	struct loop loop;
	const struct workload_setup *setup;
	const struct agent_setup *options;
	struct buttons buttons;
	struct loop_watch grace; /* of a workload that the power button asked to end */
	bool asked; /* it runs, or is over */
	struct loop_watch listener, child_signal, timer, ready;
	struct connection *connections;
	size_t n_connections, n_operations;
	int spare; /* given up for a moment to accept and close what there is no descriptor for */
	uint64_t buffer_size; /* of accepted connections */
	struct listeners *listeners; /* NULL: this kernel cannot tell */
	struct husk_error no_listeners; /* why */
	struct forwards *forwards;
	struct exec *execs;
	struct exec *main; /* the workload, running; NULL before and after */
	char request[16 << 10]; /* bytes of one read, until a connection has asked for something */
	bool from_host_only;
	bool ending; /* something has been said of the end */
	const char *end; /* why the loop was left */
};

/** Serve until the VM shall end; *@why says why. SIGCHLD is blocked and taken over. */
int agent_serve(const struct agent_setup *setup, const char **why, struct husk_error *err);

/* ---- for the operations ---- */

/** Answer with an error; the connection then ends. */
__attribute__((format(printf, 3, 4))) void connection_error(
	struct connection *c, enum agent_error code, const char *format, ...);
/** Write what can be written, ask for the events that matter, and free the connection when it has ended. @c may be gone
 *  afterwards. Every handler that touched a connection ends with it. */
void connection_settle(struct connection *c);
/** Watch a connection again that was not. 0 or -errno. */
int connection_watch(struct connection *c);
/** End the VM after @ms, unless something does so before. */
void agent_end_in(struct agent *agent, const char *why, uint64_t ms);

#endif
