/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spawn.h - start a child with exactly the descriptors it is meant to have
 *
 * The child gets stdin, stdout and stderr as given and fds[i] as descriptor 3 + i; everything else is closed. All signals
 * are unblocked and at their defaults. A failed exec is reported by spawn() itself.
 *
 * A child may be born into new namespaces; in a new PID namespace it is the first process, so that all others in there end
 * with it. PR_SET_PDEATHSIG reaches it there as well: the kernel takes a signal from outside for one that is forced.
 *
 * A detached one is no child of the caller's. A process in the middle starts it and ends; that one has no exit signal
 * (clone(2): "if no signal is specified, the parent is not signaled"), so that neither a SIGCHLD handler nor a wait(-1) of the
 * caller's notices it, and is waited for here by its pid with __WALL. The started process becomes a child of init, or of the
 * nearest subreaper: a caller that is one of these gets it after all, and has to reap as it does with every orphan.
 */
#ifndef BASE_SPAWN_H
#define BASE_SPAWN_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SPAWN_FDS 3 /* the first of the passed descriptors in the child */

struct spawn {
	const char *path; /* executable; looked up in PATH when it has no slash */
	char *const *argv; /* NULL-terminated, argv[0] included */
	char *const *envp; /* NULL: the caller's environment */
	int stdio[3]; /* the child's 0, 1, 2; -1: /dev/null */
	const int *fds; /* become 3, 4, … */
	size_t n_fds;
	bool die_with_parent; /* PR_SET_PDEATHSIG SIGKILL (the calling *thread* is the parent) */
	bool detached; /* no child of the caller's, who may not wait for it; not with die_with_parent */
	bool new_session; /* setsid: out of the caller's terminal and process group */
	int working_directory; /* descriptor to fchdir to before exec; 0: stay */
	uint64_t namespaces; /* CLONE_NEW* of those it is born into */
	/** Called in the child first of all, async-signal-safe: 0, or -errno, which spawn() then fails with. NULL: nothing. */
	int (*inside)(void *data);
	void *data;
};

/** Start the child. *@pid is its pid, *@pidfd (may be NULL, but not for a detached one, whose pid alone says nothing) a CLOEXEC
 *  pidfd that the caller owns. */
int spawn(const struct spawn *how, pid_t *pid, int *pidfd, struct husk_error *err);

#endif
