/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shell.c - husk-vmm shell: which walls can be built on this host
 *
 * Theory of operation: nothing is guessed from settings, of which each distribution has its own: a child that does nothing is
 * put behind all walls at once, as QEMU would be. Where that fails each wall is tried alone, without root together with the
 * user namespace; what stood alone is tried together, and counts when that stands.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/parse.h"
#include "vmm/jail/jail.h"

#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>

#define WHY_MAX 256

/** In the child: behind the walls @walls, built over the directory @directory; the words of a failure go to stdout. */
static int try_here(const char *walls_text, const char *directory)
{
	struct jail jail = {.id = JAIL_ID_LAST, .parent_fd = STDOUT_FILENO};
	char self[4096];
	uint64_t walls;
	struct husk_error err;

	if (parse_number(walls_text, "walls", 0, (1u << JAIL_WALLS) - 1, &walls, &err) < 0)
		return 2;
	jail.walls = (uint32_t)walls;
	jail.runtime_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[n > 0 ? n : 0] = 0;
	int rc = jail.runtime_fd < 0 || n < 0 ? error_errno(&err, "open %s", directory) : 0;
	rc = rc < 0 ? rc : jail_enclose(&jail, self, &err);
	if (rc == 0 && walls & JAIL_FILTER)
		rc = jail_seal(JAIL_LOOP, &err);
	if (rc == 0)
		return 0;
	(void)fd_write_all(STDOUT_FILENO, err.message, strlen(err.message));
	return 1;
}

/** True when a process can live behind @walls; otherwise @why says what failed. */
static bool stands(uint32_t walls, const char *directory, char why[WHY_MAX])
{
	char number[16], name[] = "husk-vmm", verb[] = "shell-try", where[4096];
	char *argv[] = {name, verb, number, where, NULL};
	int pipe_fds[2], status = -1;
	struct jail_birth birth;
	struct husk_error err = {0};
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return false;
	CLEANUP_FD int reading = pipe_fds[0], writing = pipe_fds[1];
	snprintf(number, sizeof(number), "%u", walls);
	snprintf(where, sizeof(where), "%s", directory);
	struct spawn how = {
		.path = "/proc/self/exe", .argv = argv, .stdio = {-1, writing, -1}, .die_with_parent = true};
	jail_birth(&birth, walls, &how);
	int rc = spawn(&how, &pid, NULL, &err);
	close(steal_fd(&writing));
	if (rc < 0) {
		snprintf(why, WHY_MAX, "%.*s", WHY_MAX - 1, err.message);
		return false;
	}
	size_t size = 0;
	for (ssize_t n; (n = read(reading, why + size, WHY_MAX - 1 - size)) > 0;)
		size += (size_t)n;
	why[size] = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (size == 0 && status != 0)
		snprintf(why, WHY_MAX, "the trial ended with status 0x%x", (unsigned)status);
	return status == 0;
}

static void report(uint32_t wall, bool ok, const char *why)
{
	printf("%s %s%s%s\n", ok ? "ok" : "missing", jail_wall_name(wall), ok ? "" : ": ", ok ? "" : why);
}

int jail_shell_main(int argc, char **argv)
{
	uint32_t full = jail_full(), standing = 0;
	char why[WHY_MAX];

	if (argc == 4 && strcmp(argv[1], "shell-try") == 0)
		return try_here(argv[2], argv[3]);
	if (argc != 3) {
		fprintf(stderr, "usage: husk-vmm shell DIRECTORY\n");
		return 2;
	}
	bool all = stands(full, argv[2], why);
	uint32_t base = !all && full & JAIL_USER && stands(JAIL_USER, argv[2], why) ? JAIL_USER : 0;
	for (unsigned i = 0; i < JAIL_WALLS; i++) {
		uint32_t wall = 1u << i;
		if (!(full & wall))
			continue;
		bool ok = all || stands(base | wall, argv[2], why);
		standing |= ok ? wall : 0;
		report(wall, ok, why);
	}
	if (!all && !stands(standing, argv[2], why)) /* not together: what needs nobody's leave */
		standing &= JAIL_FILTER | JAIL_ID;
	printf("walls %u of %u\n", standing, full);
	return 0;
}
