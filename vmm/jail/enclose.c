/* SPDX-License-Identifier: Apache-2.0 */
/*
 * enclose.c - husk-vmm enclose: another program in a jail
 *
 * Theory of operation: the supervisor starts this in QEMU's place, with QEMU's descriptors, already born into its namespaces
 * (birth.c). It moves into the root that QEMU needs, gives up its rights, and becomes QEMU: the same process, so that its pid
 * and its status are QEMU's. An exec makes a process dumpable again; what guards it from then on is its id, its PID namespace
 * and RLIMIT_CORE 0, which it cannot raise. The size of files is not limited: QEMU sets that of the memfds it shares with the
 * devices.
 */
#include "base/cleanup.h"
#include "base/confine.h"
#include "base/parse.h"
#include "vmm/jail/root.h"
#include "vmm/jail/strip.h"

#include <string.h>

int jail_enclose(const struct jail *jail, const char *program, struct husk_error *err)
{
	int rc = 0;

	if (jail->walls & JAIL_ROOT)
		rc = root_build(jail->runtime_fd, program, jail->walls & JAIL_PID, err);
	close(jail->runtime_fd);
	rc = rc < 0 ? rc : strip(jail, err);
	return rc < 0 ? error_prefix(err, rc, "build QEMU's shell") : 0;
}

int jail_enclose_main(int argc, char **argv)
{
	struct jail jail = {.parent_fd = STDERR_FILENO};
	uint64_t walls, id, fd;
	struct husk_error err;

	if (argc < 6 || parse_number(argv[2], "walls", 0, (1u << JAIL_WALLS) - 1, &walls, &err) < 0 ||
		parse_number(argv[3], "id", 0, UINT32_MAX, &id, &err) < 0 ||
		parse_number(argv[4], "descriptor", 3, INT32_MAX, &fd, &err) < 0) {
		fprintf(stderr, "husk-vmm enclose: it is started by husk\n");
		return JAIL_EXIT;
	}
	jail.walls = (uint32_t)walls;
	jail.id = (uid_t)id;
	jail.runtime_fd = (int)fd;
	if (jail_enclose(&jail, argv[5], &err) < 0) {
		fprintf(stderr, "%s\n", err.message);
		return JAIL_EXIT;
	}
	execv(argv[5], argv + 5);
	fprintf(stderr, "execute %s: %s\n", argv[5], strerror(errno));
	return JAIL_EXIT;
}
