/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - the worker's control socket: what the caller tells a running VM
 *
 * Theory of operation: one fixed-size struct vm_message per SOCK_SEQPACKET message. Anything else on it is dropped; a closed
 * control socket is fine, a VM can go on without.
 */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include "base/loop.h"
#include "vmm/config.h"

struct control {
	struct loop *loop;
	struct loop_watch watch;
	int fd; /* owned; -1 once closed */
	/** @message has passed vm_message_check(). */
	void (*take)(void *data, const struct vm_message *message);
	void *data;
};

/** Listen to @fd (taken, also on failure). */
int control_open(struct control *control, struct loop *loop, int fd,
	void (*take)(void *data, const struct vm_message *message), void *data, struct husk_error *err);
void control_close(struct control *control);

/** Receive one message that passes vm_message_check(), without waiting: 1, 0 at the end of the socket, -EAGAIN when there is
 *  none now or it was malformed; one without a byte is malformed, and so is one with descriptors. */
int vm_message_receive(int fd, struct vm_message *message);
/** The same for messages with descriptors. *@n_fds holds the room in @fds, then how many came, close-on-exec and owned by the
 *  caller, with a return value of 1 only: those of other messages, and beyond the room, are closed. */
int vm_message_receive_fds(int fd, struct vm_message *message, int *fds, size_t *n_fds);
/** Send without waiting and without SIGPIPE. 0 or -errno. */
int vm_message_send(int fd, const struct vm_message *message);

#endif
