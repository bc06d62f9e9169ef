/* SPDX-License-Identifier: Apache-2.0 */
/* fd.h - helpers around descriptors: whole reads and writes, flags, descriptors over unix sockets */
#ifndef BASE_FD_H
#define BASE_FD_H

#include "base/buffer.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/** Write all @n bytes, through EINTR and short writes (@fd blocking). 0 or -errno. */
int fd_write_all(int fd, const void *bytes, size_t n);
/** The same from @offset on; the descriptor's position stays. */
int fd_write_all_at(int fd, const void *bytes, size_t n, uint64_t offset);

/** Read exactly @n bytes (@fd blocking): 1 when all came, 0 at end of file before the first byte, -errno; -EPIPE when
 *  the stream ends in between. */
int fd_read_all(int fd, void *bytes, size_t n);

/** Append the whole rest of @fd to @b, at most @limit bytes (-EFBIG beyond). 0 or -errno. */
int fd_read_to_end(int fd, struct buffer *b, size_t limit);

/** Set or clear O_NONBLOCK / FD_CLOEXEC. 0 or -errno. */
int fd_set_nonblocking(int fd, bool on);
int fd_set_cloexec(int fd, bool on);

/** Send @n bytes with @n_fds (0 to 253) descriptors as SCM_RIGHTS; a single sendmsg with MSG_NOSIGNAL. Bytes or -errno. */
ssize_t fd_send(int sock, const void *bytes, size_t n, const int *fds, size_t n_fds);

/** One recvmsg with MSG_CMSG_CLOEXEC: bytes (0 at the end) or -errno. *@n_fds holds the room in @fds, then how many came;
 *  descriptors beyond the room are closed and -EPROTO is returned. */
ssize_t fd_receive(int sock, void *bytes, size_t n, int *fds, size_t *n_fds);
/** The same without waiting, also on a blocking socket: -EAGAIN. */
ssize_t fd_receive_now(int sock, void *bytes, size_t n, int *fds, size_t *n_fds);

#endif
