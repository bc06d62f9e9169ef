/* SPDX-License-Identifier: Apache-2.0 */
/* find.c - from what a user calls a VM to its id */
#include "engine/find.h"

#include "base/path.h"

#include <string.h>

static bool recorded(const struct husk *husk, const char *id)
{
	CLEANUP_FREE char *path = path_format("%s/vms/%s/vm.json", husk->home, id);
	return path && access(path, F_OK) == 0;
}

/** How many records begin with @prefix; the last one goes to @id. */
static int match_prefix(
	const struct husk *husk, const char *prefix, char id[VM_ID_SIZE], size_t *n, struct husk_error *err)
{
	CLEANUP_FREE char *vms = path_join(husk->home, "vms");
	CLEANUP_DIR DIR *dir = vms ? opendir(vms) : NULL;
	*n = 0;
	if (!dir)
		return vms && errno == ENOENT ? 0 : error_errno(err, "list the VMs of %s", husk->home);
	for (struct dirent *entry; (entry = readdir(dir));) {
		if (!vm_id_check(entry->d_name) || strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		memcpy(id, entry->d_name, VM_ID_SIZE);
		++*n;
	}
	return 0;
}

int find_vm(const struct husk *husk, const char *reference, char id[VM_ID_SIZE], struct husk_error *err)
{
	size_t length = strlen(reference), n = 0;
	if (vm_id_check(reference) && recorded(husk, reference)) {
		memcpy(id, reference, VM_ID_SIZE);
		return 0;
	}
	if (vm_name_check(reference, NULL) == 0) {
		int rc = vm_name_owner(husk, reference, id, err);
		if (rc < 0 || id[0])
			return rc;
	}
	if (length >= FIND_PREFIX_MIN && strspn(reference, "0123456789abcdef") == length) {
		int rc = match_prefix(husk, reference, id, &n, err);
		if (rc < 0)
			return rc;
	}
	if (n == 0)
		return error_set(
			err, -ENOENT, "there is no VM '%s': neither an id, nor a prefix of one, nor a name", reference);
	if (n > 1)
		return error_set(err, -ENOTUNIQ, "'%s' begins the ids of %zu VMs; write more digits", reference, n);
	return 0;
}
