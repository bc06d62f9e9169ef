/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prune.c - remove every VM that does not run
 *
 * Theory of operation: each is removed as `rm` does it, which refuses what has come to life meanwhile; that one is left, as is one
 * whose record cannot be read. What comes back is what the record's files occupy on disk, counted before.
 */
#include "engine/gc.h"

#include "base/path.h"
#include "engine/end.h"
#include "engine/status.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/** Bytes that the files of the record @id occupy. */
static uint64_t occupied(const struct husk *husk, const char *id)
{
	CLEANUP_FREE char *path = path_format("%s/vms/%s", husk->home, id);
	CLEANUP_DIR DIR *dir = path ? opendir(path) : NULL;
	uint64_t bytes = 0;
	struct stat st;

	for (struct dirent *entry; dir && (entry = readdir(dir));)
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
			bytes += (uint64_t)st.st_blocks * 512;
	return bytes;
}

static bool is_idle(const struct husk *husk, const char *id)
{
	struct status now;

	return status_read(husk, id, &now, NULL) == 0 && !now.alive && !now.damaged &&
	       (now.state.state == VM_CREATED || now.state.state == VM_STOPPED || now.state.state == VM_ERROR);
}

int prune_run(const struct husk *husk, struct buffer *report, uint64_t *freed, struct husk_error *err)
{
	CLEANUP_FREE char *vms = path_join(husk->home, "vms");
	CLEANUP_DIR DIR *dir = vms ? opendir(vms) : NULL;
	struct husk_error why;

	*freed = 0;
	if (!dir)
		return vms && errno == ENOENT ? 0 : error_errno(err, "list the VMs of %s", husk->home);
	for (struct dirent *entry; (entry = readdir(dir));) {
		if (!vm_id_check(entry->d_name) || !is_idle(husk, entry->d_name))
			continue;
		uint64_t bytes = occupied(husk, entry->d_name);
		int rc = end_remove(husk, entry->d_name, false, &why);
		if (rc == 0) {
			*freed += bytes;
			buffer_printf(report, "%s\n", entry->d_name);
		} else if (rc != -ENOENT && rc != -EBUSY) {
			return error_set(err, rc, "%s", why.message);
		}
	}
	return 0;
}
