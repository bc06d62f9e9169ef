/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sink.h - a guest's console on the caller's descriptors
 *
 * Theory of operation: with the serial sink `capture` the bytes of hvc0 go to the caller's descriptor and nowhere else; with
 * `inherit` those of the kernel's console go there and into the VM's log. Where QEMU has the console its bytes come over a
 * stream; where it is a device of ours they come from the guest's memory. Either way they pass one bounded buffer: while it is
 * full nothing more is taken. A device of ours then holds up its guest, and nothing is lost. QEMU 7.2 does not: what the stream
 * does not take at once it drops (hw/char/virtio-console.c), so there the stream and the buffer are larger, for bursts that
 * this process or the caller is late for. The other way, what the caller sends is handed to the guest as it takes it.
 *
 * A caller whose end is gone, or whose disk is full, takes nothing any more: from then on the bytes are dropped. The end of the
 * VM is told when the buffer is empty (workload.c).
 *
 * A lossy sink is a terminal at which nobody may be: what it does not take at once is dropped, and nothing ever waits.
 */
#ifndef VMM_SINK_H
#define VMM_SINK_H

#include "vmm/console.h"
#include "vmm/virtio/vconsole.h"

#define SINK_ROOM (256u << 10)
#define SINK_STREAM_ROOM (16u << 20)
#define SINK_INPUT 4096

/** Nothing waits any more. May be called from within every function here but sink_settle(). */
typedef void sink_idle_fn(void *data);

struct sink {
	struct loop *loop;
	int out, in; /* owned; -1: none, or gone */
	struct loop_watch out_watch, in_watch;
	struct console *log; /* what passes goes there, too; NULL: it does not */
	bool lossy; /* set behind sink_open() */
	/* the guest's side: one of the two */
	int guest; /* owned; -1 */
	struct loop_watch guest_watch;
	struct virtio_console *vconsole;
	unsigned ports; /* bit per port whose output is ours */
	unsigned input_port;
	sink_idle_fn *idle;
	void *data;
	size_t room; /* bytes that held has */
	uint8_t *held; /* [held_at, held_at + held_size) waits for the caller */
	size_t held_at, held_size;
	uint8_t typed[SINK_INPUT]; /* [typed_at, typed_size) waits for the guest */
	size_t typed_at, typed_size;
};

/** Of a VM without one. */
#define SINK_NONE                                                                                                      \
	{                                                                                                              \
		.out = -1, .in = -1, .guest = -1                                                                       \
	}

/** Begin with the caller's @out and @in (taken, also on failure; each may be -1). @log as in the struct. */
int sink_open(struct sink *sink, struct loop *loop, int out, int in, struct console *log, struct husk_error *err);
/** The guest's console is the stream @fd, which is taken. */
int sink_tie_stream(struct sink *sink, int fd, struct husk_error *err);
/** It is the ports of @vconsole in the bits of @ports; input goes to @input_port. */
int sink_tie_vconsole(struct sink *sink, struct virtio_console *vconsole, unsigned ports, unsigned input_port,
	struct husk_error *err);
/** Bytes of an early console, which cannot wait: they go to the log, and to the caller as far as there is room. */
void sink_early(struct sink *sink, const void *bytes, size_t n);
/** Take in what the guest has said by now. True when nothing waits for the caller; otherwise idle() tells when. */
bool sink_settle(struct sink *sink, sink_idle_fn *idle, void *data);
void sink_close(struct sink *sink);

#endif
