/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dial.h - guest programs that connect to the host: the worker asks, the supervisor connects
 *
 * Theory of operation: a guest program that connects to host port N is led to vsock.sock_N in the VM's runtime directory. The
 * worker can open no socket there: it lives in its jail, under an id to which the host program's socket may be closed. So it
 * asks over a SOCK_SEQPACKET channel of its own, one struct dial each way, and the connected descriptor comes with the answer.
 * The worker waits for it, at most DIAL_TIMEOUT_MS: the supervisor does nothing that takes long, and a connect to a unix
 * socket is over at once. Which ports the guest may reach is decided in the supervisor, where a captured worker cannot. An
 * answer that comes later than that is told from the next one by its number.
 */
#ifndef VMM_DIAL_H
#define VMM_DIAL_H

#include "vmm/config.h"

#include <stdint.h>

#define DIAL_TIMEOUT_MS 1000

struct dial {
	uint32_t number; /* of the question, repeated in the answer */
	uint32_t port;
	int32_t code; /* of the answer: 0 with a descriptor, or -errno */
};

/** The worker's side: a non-blocking descriptor connected to vsock.sock_@port, or a negative errno. */
int dial_ask(int channel, uint32_t port);
/** The supervisor's: answer what has been asked on @channel (non-blocking) with sockets of the working directory, and no more
 *  than a few at a time; what @reach, with @port, does not allow is refused, and @denied told of it. 0, or a negative errno
 *  once the other end is gone. */
int dial_answer(
	int channel, enum vmm_reach reach, uint32_t port, void (*denied)(void *data, uint32_t asked), void *data);

#endif
