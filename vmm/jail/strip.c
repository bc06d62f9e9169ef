/* SPDX-License-Identifier: Apache-2.0 */
/*
 * strip.c - the third stage: no rights
 *
 * Theory of operation: the bounding set and the secure bits need a capability and come first, then the ids, then what is left
 * of the capabilities. A change of ids takes back PR_SET_PDEATHSIG, so it is asked for again, and whether the parent has died
 * in between is seen by the hang-up of a descriptor whose other end it holds: its pid says nothing in another PID namespace.
 */
#include "vmm/jail/strip.h"

#include "base/cleanup.h"
#include "base/confine.h"

#include <grp.h>
#include <linux/securebits.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/** With an id of its own the count of processes is the jail's alone: vCPUs and QEMU's threads. */
#define PROCESSES_MAX 1024

#define NO_ROOT                                                                                                        \
	(SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |              \
		SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

static int change_ids(uid_t id, struct husk_error *err)
{
	struct rlimit processes = {PROCESSES_MAX, PROCESSES_MAX};

	if (setrlimit(RLIMIT_NPROC, &processes) < 0)
		return error_errno(err, "limit the number of processes");
	if (setgroups(0, NULL) < 0 || setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0)
		return error_errno(err, "take the id %u", id);
	return 0;
}

/** The parent's death has been missed, or is not going to be. */
static int follow_parent(int parent_fd, struct husk_error *err)
{
	struct pollfd p = {.fd = parent_fd};

	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return error_errno(err, "die with the supervisor");
	if (parent_fd >= 0 && poll(&p, 1, 0) == 1 && p.revents & (POLLHUP | POLLERR))
		return error_set(err, -ESRCH, "the supervisor has died");
	return 0;
}

int strip(const struct jail *jail, struct husk_error *err)
{
	(void)prctl(
		PR_SET_SECUREBITS, NO_ROOT, 0, 0, 0); /* for id 0 in a container; else there is nothing it could do */
	for (unsigned long c = 0; prctl(PR_CAPBSET_DROP, c, 0, 0, 0) == 0; c++)
		; /* up to the kernel's last: EINVAL; without the right to: EPERM */
	int rc = jail->walls & JAIL_ID ? change_ids(jail->id, err) : 0;
	rc = rc < 0 ? rc : confine_process(err);
	rc = rc < 0 ? rc : confine_capabilities(err);
	return rc < 0 ? rc : follow_parent(jail->parent_fd, err);
}
