/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vsock_port.c - the port at which the host listens for a guest
 *
 * Theory of operation: the socket of a port lies in its VM's own runtime directory, so nothing breaks when two VMs have the same
 * number. With `auto` each VM has its own all the same, so that the number alone tells a host program, and a log, which VM
 * is meant: those of the records are left out, beginning somewhere by chance. Two VMs that start at the same moment may miss
 * each other's record.
 */
#include "engine/vsock_port.h"

#include "base/path.h"
#include "engine/check.h"
#include "engine/vm.h"

#include <sys/random.h>

#define PORTS (CHECK_VSOCK_LAST - CHECK_VSOCK_FIRST + 1)

/** Mark the port of the record @id in @taken. One that cannot be read has none. */
static void mark(const struct husk *husk, const char *id, bool taken[PORTS])
{
	CLEANUP_FREE char *path = path_format("%s/vms/%s/vm.json", husk->home, id);
	json_t *json = path ? json_load_file(path, 0, NULL) : NULL;
	json_int_t port = json_integer_value(json_object_get(json, "vsock_port"));

	if (port >= CHECK_VSOCK_FIRST && port <= CHECK_VSOCK_LAST)
		taken[port - CHECK_VSOCK_FIRST] = true;
	json_decref(json);
}

static int mark_all(const struct husk *husk, bool taken[PORTS], struct husk_error *err)
{
	CLEANUP_FREE char *vms = path_join(husk->home, "vms");
	CLEANUP_DIR DIR *dir = vms ? opendir(vms) : NULL;

	if (!dir)
		return vms && errno == ENOENT ? 0 : error_errno(err, "vsock.port: list the VMs of %s", husk->home);
	for (struct dirent *entry; (entry = readdir(dir));)
		if (vm_id_check(entry->d_name))
			mark(husk, entry->d_name, taken);
	return 0;
}

int vsock_port_choose(
	const struct husk *husk, const struct husk_vm_config *config, uint32_t *port, struct husk_error *err)
{
	bool taken[PORTS] = {false};
	uint32_t begin = 0;

	*port = config->vsock == HUSK_VSOCK_FIXED ? config->vsock_port : 0;
	if (config->vsock != HUSK_VSOCK_AUTO)
		return 0;
	int rc = mark_all(husk, taken, err);
	if (rc < 0)
		return rc;
	if (getrandom(&begin, sizeof(begin), 0) != sizeof(begin))
		return error_errno(err, "vsock.port: choose one");
	if (config->vsock_port)
		begin = config->vsock_port - CHECK_VSOCK_FIRST;
	for (uint32_t i = 0; i < PORTS; i++) {
		uint32_t at = (begin % PORTS + i) % PORTS;
		if (taken[at])
			continue;
		*port = CHECK_VSOCK_FIRST + at;
		return 0;
	}
	return error_set(err, -EADDRINUSE, "vsock.port: every port from 50000 to 59999 is another VM's");
}

void vsock_port_put(const struct husk_vm_config *config, uint32_t port, struct envelope *e)
{
	static const enum vmm_reach reach[] = {
		[HUSK_VSOCK_ANY] = VMM_REACH_ANY,
		[HUSK_VSOCK_DISABLED] = VMM_REACH_NONE,
		[HUSK_VSOCK_AUTO] = VMM_REACH_ONE,
		[HUSK_VSOCK_FIXED] = VMM_REACH_ONE,
	};
	envelope_u32(e, VMM_REACH, reach[config->vsock]);
	envelope_u32(e, VMM_REACH_PORT, port);
}
