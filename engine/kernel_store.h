/* SPDX-License-Identifier: Apache-2.0 */
/* kernel_store.h - how a kernel gets into HOME/kernels: one maker of a kind at a time, whole or not at all */
#ifndef ENGINE_KERNEL_STORE_H
#define ENGINE_KERNEL_STORE_H

#include "base/error.h"

/** One piece of work on the store. Begin with KERNEL_STORE_INIT; kernel_store_end() gives all back, at any time.
 *  kernels: HOME/kernels
 *  work:    a temporary directory in it, made empty by kernel_store_begin() and removed at the end
 *  lock:    held as long as this descriptor, or a copy of it in a child, is open */
struct kernel_store {
	char *kernels, *work;
	int lock;
	int progress_fd; /* lines for the user, -1: none */
};

#define KERNEL_STORE_INIT(fd) ((struct kernel_store){.lock = -1, .progress_fd = (fd)})

/** Take the lock of @kind ("fetch", "build"), waiting for its holder, and make a fresh HOME/kernels/.@kind. */
int kernel_store_begin(struct kernel_store *store, const char *home, const char *kind, struct husk_error *err);
/** Move the kernel that was put together in @assembled into place as @id. */
int kernel_store_commit(struct kernel_store *store, const char *assembled, const char *id, struct husk_error *err);
void kernel_store_end(struct kernel_store *store);

/** "kernel: …" on the progress descriptor. */
__attribute__((format(printf, 2, 3))) void kernel_store_progress(
	const struct kernel_store *store, const char *format, ...);

/** The text file @path with a NUL behind it, at most 64 MiB. */
struct buffer;
int kernel_store_read(const char *path, struct buffer *b, struct husk_error *err);

#endif
