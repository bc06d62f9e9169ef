/* SPDX-License-Identifier: Apache-2.0 */
/*
 * port_stream.h - a console's port tied to descriptors: a pipe, file, socket or terminal of the caller's
 *
 * Theory of operation: what the guest writes goes from guest memory to the output in one non-blocking write; what that does
 * not take stays with the guest until the output has room (vconsole.h). What comes from the input waits in one buffer for the
 * guest to take it, and meanwhile nothing more is read. The stream works on copies of the descriptors, so that the caller's
 * stay open whatever happens to the guest. An output that is gone (EPIPE, a full disk) takes everything from then on, so that
 * the guest is not stopped by it; port_stream_error() tells.
 *
 * A pipe or terminal whose open file description blocks is made non-blocking for as long as the stream lives. That shows to
 * others who hold it: whoever can gives a description of his own. Sockets and files stay as they are.
 */
#ifndef VMM_VIRTIO_PORT_STREAM_H
#define VMM_VIRTIO_PORT_STREAM_H

#include "base/loop.h"
#include "vmm/virtio/vconsole.h"

struct port_stream;

/** Tie port @port of @console to @output and @input (each may be -1: none), which stay the caller's. The console must outlive
 *  it. */
int port_stream_create(struct loop *loop, struct virtio_console *console, unsigned port, int output, int input,
	struct port_stream **out, struct husk_error *err);
/** 0, or why the output takes nothing any more (-EPIPE, -ENOSPC…): what the guest wrote since is lost. */
int port_stream_error(const struct port_stream *stream);
/** Write what the guest has left in its queue, for at most @ms milliseconds; it should be at a standstill. 0, -ETIMEDOUT when
 *  the output did not take all, or port_stream_error(). */
int port_stream_flush(struct port_stream *stream, unsigned ms);
/** Flush, untie the port and close the copies; fine with NULL. 0 or what port_stream_flush() says. */
int port_stream_destroy(struct port_stream *stream);

#endif
