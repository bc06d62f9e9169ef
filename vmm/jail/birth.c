/* SPDX-License-Identifier: Apache-2.0 */
/*
 * birth.c - the first stage: a child that is born into new namespaces
 *
 * Theory of operation: all namespaces are made with the one clone(2) that makes the child (base/spawn.h). In a user namespace
 * the child then maps the one id that it has to itself, which an ordinary user may (user_namespaces(7): a single line, the
 * writer's own id, setgroups denied before), and keeps the capabilities that the second and third stage need across the exec
 * as ambient ones: an exec by an id other than 0 drops all others. The network namespace stays as it was made, empty, its
 * loopback down.
 */
#include "base/cleanup.h"
#include "vmm/jail/jail.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static const struct {
	uint32_t wall;
	uint64_t flag;
} namespaces[] = {
	{JAIL_USER, CLONE_NEWUSER},
	{JAIL_ROOT, CLONE_NEWNS},
	{JAIL_PID, CLONE_NEWPID},
	{JAIL_NET, CLONE_NEWNET},
	{JAIL_IPC, CLONE_NEWIPC},
	{JAIL_UTS, CLONE_NEWUTS},
};

static int write_file(const char *path, const char *text)
{
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return -errno;
	return 0;
}

/** Mounts and changes of root, the last resort of a change of root, and to empty the bounding set. */
static int keep_capabilities(void)
{
	static const unsigned kept[] = {CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SETPCAP};
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		data[CAP_TO_INDEX(kept[i])].inheritable |= CAP_TO_MASK(kept[i]);
	if (syscall(SYS_capset, &header, data) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kept[i], 0, 0) < 0)
			return -errno;
	return 0;
}

/** In the child, between clone and exec. */
static int inside(void *data)
{
	const struct jail_birth *b = data;

	if (!b->mapped)
		return 0;
	int rc = write_file("/proc/self/setgroups", "deny");
	rc = rc < 0 ? rc : write_file("/proc/self/gid_map", b->gid_map);
	rc = rc < 0 ? rc : write_file("/proc/self/uid_map", b->uid_map);
	return rc < 0 ? rc : keep_capabilities();
}

void jail_birth(struct jail_birth *birth, uint32_t walls, struct spawn *how)
{
	*birth = (struct jail_birth){.mapped = walls & JAIL_USER};
	snprintf(birth->uid_map, sizeof(birth->uid_map), "%u %u 1", geteuid(), geteuid());
	snprintf(birth->gid_map, sizeof(birth->gid_map), "%u %u 1", getegid(), getegid());
	for (size_t i = 0; i < ARRAY_SIZE(namespaces); i++)
		if (walls & namespaces[i].wall)
			how->namespaces |= namespaces[i].flag;
	how->inside = inside;
	how->data = birth;
}

int jail_birth_failed(uint32_t walls, int code, struct husk_error *err)
{
	static const int forbidden[] = {-EPERM, -EACCES, -ENOSPC, -EUSERS, -EINVAL, -ENOSYS};
	bool ours = false;

	for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++)
		ours |= code == forbidden[i];
	if (!ours || !(walls & (JAIL_USER | JAIL_ROOT | JAIL_PID | JAIL_NET | JAIL_IPC | JAIL_UTS)))
		return code;
	return error_prefix(err, code,
		"the shell cannot be built here, `husk doctor` says why and --shell=degraded does without "
		"what is missing");
}
