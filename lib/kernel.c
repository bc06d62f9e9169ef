/* SPDX-License-Identifier: Apache-2.0 */
/* kernel.c - guest kernels in the public API */
#include "engine/kernel.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "engine/engine.h"

#include <jansson.h>

int husk_kernel_fetch(struct husk *husk, int progress_fd, char **id, struct husk_error *err)
{
	return kernel_fetch(husk->home, progress_fd, id, err);
}

int husk_kernel_build(struct husk *husk, const char *fragment, int progress_fd, char **id, struct husk_error *err)
{
	return kernel_build(husk->home, fragment, progress_fd, id, err);
}

static json_t *entry_json(const char *home, const struct kernel_entry *e)
{
	CLEANUP_FREE char *path = path_format("%s/kernels/%s", home, e->id);
	char made[32];
	struct tm tm;
	gmtime_r(&e->made.tv_sec, &tm);
	strftime(made, sizeof(made), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_pack("{s:s, s:s, s:s, s:s, s:b, s:s}", "id", e->id, "flavor", e->tuned ? "tuned" : "distribution",
		"path", path, "created", made, "used", e->used, "reason", e->why);
}

int husk_kernel_list(struct husk *husk, char **json, struct husk_error *err)
{
	struct kernel_entry *list;
	size_t n;
	int rc = kernel_list(husk->home, &list, &n, err);
	if (rc < 0)
		return rc;
	json_t *array = json_array();
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = json_array_append_new(array, entry_json(husk->home, &list[i])) < 0 ? -ENOMEM : 0;
	*json = rc == 0 ? json_dumps(array, JSON_INDENT(2)) : NULL;
	json_decref(array);
	kernel_list_free(list, n);
	return *json ? 0 : error_set(err, -ENOMEM, "list the kernels: out of memory");
}

int husk_kernel_find(struct husk *husk, char **id, struct husk_error *err)
{
	struct kernel kernel = {0};
	int rc = kernel_find(husk->home, NULL, &kernel, err);
	if (rc == 0)
		*id = steal_pointer(&kernel.id);
	kernel_free(&kernel);
	return rc;
}
