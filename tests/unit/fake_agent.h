/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_agent.h - a guest with an agent, without a guest: the muxer's other side, played on rings in a memfd
 *
 * It accepts connects to AGENT_PORT, says HELLO, tells LISTENING as the test wants, and answers FORWARD by `answer`. What a
 * connection carries after OK is echoed, or kept in conn->in. All of it happens in fake_agent_turn(), on the caller's thread:
 * one round of the loop, then everything the guest does because of it.
 */
#ifndef TESTS_FAKE_AGENT_H
#define TESTS_FAKE_AGENT_H

#include "tests/unit/fake_driver.h"

#include "agent/protocol.h"
#include "vmm/virtio/vsock.h"

#define FAKE_AGENT_RX 256
#define FAKE_AGENT_SLOTS 65536

/** How it answers FORWARD. */
enum fake_answer {
	FAKE_OK,
	FAKE_OK_BYTEWISE, /* each byte of HELLO and OK in a packet of its own */
	FAKE_OK_AND_BYTES, /* "hello" behind OK in the same packet */
	FAKE_REFUSE, /* ERROR REFUSED */
	FAKE_ERROR, /* ERROR SYSTEM */
	FAKE_GARBAGE, /* bytes that are no frame */
	FAKE_ENDLESS, /* a frame that is larger than any answer */
	FAKE_WRONG, /* a frame that is out of place */
	FAKE_RESET, /* a reset of the connection */
	FAKE_RESET_ONCE, /* and OK to the next */
	FAKE_NEVER, /* nothing; fake_agent_release() makes it OK */
};

enum fake_conn_state { FAKE_FRAMES, FAKE_LISTENERS, FAKE_ASKED, FAKE_BYTES };

struct fake_conn {
	struct fake_conn *next; /* in its slot */
	enum fake_conn_state state;
	uint32_t host_port, guest_port;
	uint16_t forwarded; /* the port of FORWARD */
	bool ended; /* the host sends no more */
	struct buffer in, out;
	uint32_t rx_cnt, told, tx_cnt, peer_buf_alloc, peer_fwd_cnt;
};

struct fake_agent {
	struct fake_driver driver;
	struct loop *loop;
	struct vsock *vsock;
	uint64_t rx_gpa[FAKE_AGENT_RX], tx_gpa;
	struct fake_conn *slots[FAKE_AGENT_SLOTS];
	unsigned n_conns, n_forwards; /* live; ever */
	struct fake_conn *last; /* that asked FORWARD; NULL once it is gone */
	struct fake_conn *listeners;
	enum fake_answer answer;
	bool echo;
	bool deaf; /* refuses connects */
	bool no_listeners; /* answers LISTENERS with ERROR UNSUPPORTED */
	const uint8_t *hello; /* hello_size bytes instead of HELLO; NULL: HELLO */
	size_t hello_size;
	uint16_t ports[AGENT_LISTENERS_MAX];
	size_t n_ports;
};

/** Make the device on @loop, with the rings running. */
void fake_agent_init(struct fake_agent *agent, struct loop *loop);
void fake_agent_destroy(struct fake_agent *agent);
/** One round of the loop, waiting at most @timeout_ms, and what the guest does. */
void fake_agent_turn(struct fake_agent *agent, int timeout_ms);
/** The workload listens on these ports from now on; LISTENING tells. */
void fake_agent_listen(struct fake_agent *agent, const uint16_t *ports, size_t n);
/** Send raw bytes on the LISTENERS connection. */
void fake_agent_say(struct fake_agent *agent, const void *bytes, size_t n);
/** Answer OK to all that asked and got nothing. */
void fake_agent_release(struct fake_agent *agent);
/** Answer REFUSED to one that asked and got nothing. */
void fake_agent_refuse(struct fake_agent *agent, struct fake_conn *conn);
/** Reset a connection; @conn is gone. */
void fake_agent_reset(struct fake_agent *agent, struct fake_conn *conn);

#endif
