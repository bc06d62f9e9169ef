/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_client.h - a client of the agent for one program: the worker's for the main workload, the library's for execs
 *
 * Theory of operation: one connection carries HELLO and EXEC to the agent and then the workload's three byte streams. What
 * the agent sends is hostile: a frame's size is judged by its header, before its bytes are kept; a stream gets no more
 * than the window we opened; everything out of place ends the connection. Output is written to its descriptor straight
 * from the frame as long as that takes it, and waits in a buffer of at most AGENT_WINDOW bytes when it does not; the window
 * opens again by what was written. Stdin is read only when the agent's window has room and little waits to be sent. So a
 * reader that sleeps holds up its own stream and nothing else, and memory is bounded.
 *
 * Stdin need not have a descriptor at the beginning: what feeds it may come later, and one may follow another.
 *
 * A descriptor that can be written no more (its reader is gone) swallows the rest of its stream, as /dev/null would; the
 * window stays open, since the protocol has no word by which the workload could get its SIGPIPE.
 *
 * The outcome is told once: after EXIT or the end of the connection, when all output has been written.
 */
#ifndef VMM_AGENT_CLIENT_H
#define VMM_AGENT_CLIENT_H

#include "agent/protocol.h"
#include "base/buffer.h"
#include "base/loop.h"
#include "vmm/config.h"

struct agent_client;

struct agent_client_handler {
	/** The exec has succeeded. */
	void (*started)(void *data);
	/** stdout (1) or stderr (2), of a stream that has no descriptor; all of it is taken. NULL: it is swallowed. The client must
	 *  not be closed in it. */
	void (*output)(void *data, int stream, const void *bytes, size_t n);
	/** The workload has ended and only output remains to be written. */
	void (*draining)(void *data);
	/** The last call: kind OUTCOME; end EXITED, SIGNALED or NOT_STARTED, or GUEST when the connection ended without a
	 *  word, or FAILED when the agent broke the protocol. The client may be freed in it. */
	void (*ended)(void *data, const struct vm_message *outcome);
};

/** Begin on the stream @fd (taken, non-blocking) with the payload of EXEC. @stdio: the workload's streams, -1 for none,
 *  taken on success. Nothing is called before the loop runs. */
int agent_client_open(struct loop *loop, int fd, const void *exec, size_t exec_size, const int stdio[3],
	const struct agent_client_handler *handler, void *data, struct agent_client **out, struct husk_error *err);
void agent_client_close(struct agent_client *client);
/** Instead of stdio[0], before the loop runs: the @n bytes @bytes, which stay the caller's, and then the end. */
void agent_client_input(struct agent_client *client, const void *bytes, size_t n);
/** What the agent's EXIT said, valid in ended() of an outcome EXITED or SIGNALED. */
const struct agent_exit *agent_client_exit(const struct agent_client *client);
/** In ended() of an outcome NOT_STARTED: the code of the agent's ERROR, of which value has the file errors as SYSTEM. */
uint32_t agent_client_error(const struct agent_client *client);
/** Whether an outcome FAILED is because the agent broke the protocol. */
bool agent_client_broken(const struct agent_client *client);
/** Whether output waits for its reader here. */
bool agent_client_held_up(const struct agent_client *client);

/** The workload's stdin comes from @fd (taken on success) until its end, once it has started. @to_end: that is the end of stdin;
 *  otherwise another may follow. -EBUSY while there is one, -EPIPE when stdin has ended. For an EXEC with stdin. */
int agent_client_feed(struct agent_client *client, int fd, bool to_end, struct husk_error *err);
/** Send a signal to the workload; kept until it has started. */
void agent_client_signal(struct agent_client *client, unsigned number);
/** Ask the agent to let the program of a joined EXEC live on: once it has, the outcome is GUEST, as the connection ends. */
void agent_client_leave(struct agent_client *client);
/** Tell the terminal's size; kept until the workload has started. */
void agent_client_resize(struct agent_client *client, unsigned rows, unsigned columns);

#endif
