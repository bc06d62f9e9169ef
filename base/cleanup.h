/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleanup.h - owners that let go by themselves
 *
 * A variable marked CLEANUP_* releases what it holds when it leaves its scope, so no function needs a goto ladder. To
 * hand the thing on, steal it: `return steal_pointer(&p);`, `*out = steal_fd(&fd);`.
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *p)
{
	int saved = errno;
	free(*(void **)p);
	errno = saved;
}

static inline void cleanup_fd(int *fd)
{
	int saved = errno;
	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

static inline void cleanup_dir(DIR **dir)
{
	int saved = errno;
	if (*dir)
		closedir(*dir);
	errno = saved;
}

static inline void cleanup_file(FILE **file)
{
	int saved = errno;
	if (*file)
		fclose(*file);
	errno = saved;
}

#define CLEANUP(f) __attribute__((cleanup(f)))
#define CLEANUP_FREE CLEANUP(cleanup_free)
#define CLEANUP_FD CLEANUP(cleanup_fd)
#define CLEANUP_DIR CLEANUP(cleanup_dir)
#define CLEANUP_FILE CLEANUP(cleanup_file)

/** The pointer in *@p, which is set to NULL: ownership moves to the caller. Keeps the type. */
#define steal_pointer(p)                                                                                               \
	({                                                                                                             \
		__typeof__(*(p)) stolen_ = *(p);                                                                       \
		*(p) = NULL;                                                                                           \
		stolen_;                                                                                               \
	})

/** The descriptor in *@fd, which is set to -1: ownership moves to the caller. */
static inline int steal_fd(int *fd)
{
	int stolen = *fd;
	*fd = -1;
	return stolen;
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
