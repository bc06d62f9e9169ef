/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_list.c - which kernels a home has, and which of them a VM boots
 *
 * Theory of Operation: the directories of HOME/kernels are the list; nothing else is kept. A tuned kernel is used wherever one
 * is built, the distribution's otherwise; of several the one that was made last. A directory appears whole, by rename, so
 * the time of its last change of status is when it was made. A kernel that was fetched by a husk with other modules counts as
 * absent until it is fetched again.
 */
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/path.h"
#include "engine/kernel.h"
#include "engine/kernel_modules.h"
#include "engine/kernel_store.h"

#include <string.h>
#include <sys/stat.h>

#define TUNED_PREFIX "husk-"

bool kernel_is_tuned(const char *id)
{
	return strncmp(id, TUNED_PREFIX, strlen(TUNED_PREFIX)) == 0;
}

bool kernel_is_current(const char *kernels, const char *id)
{
	CLEANUP_FREE char *directory = path_join(kernels, id);
	CLEANUP_FREE char *path = path_format("%s/%s/wanted", kernels, id);
	CLEANUP_BUFFER struct buffer text = {0};
	if (!directory || !path || access(directory, F_OK) < 0)
		return false;
	return kernel_is_tuned(id) || (kernel_store_read(path, &text, NULL) == 0 &&
					      strcmp((char *)buffer_bytes(&text), kernel_modules_wanted()) == 0);
}

static int newest_first(const void *a, const void *b)
{
	const struct kernel_entry *x = a, *y = b;
	if (x->made.tv_sec != y->made.tv_sec)
		return x->made.tv_sec < y->made.tv_sec ? 1 : -1;
	if (x->made.tv_nsec != y->made.tv_nsec)
		return x->made.tv_nsec < y->made.tv_nsec ? 1 : -1;
	return strcmp(x->id, y->id);
}

ptrdiff_t kernel_pick(const struct kernel_entry *list, size_t n, const char *wanted)
{
	for (size_t i = 0; i < n; i++)
		if (wanted ? strcmp(list[i].id, wanted) == 0 : list[i].tuned)
			return (ptrdiff_t)i;
	for (size_t i = 0; i < n; i++)
		if (!wanted || (*wanted && strncmp(list[i].id, wanted, strlen(wanted)) == 0))
			return (ptrdiff_t)i;
	return -1;
}

static void explain(struct kernel_entry *list, size_t n)
{
	ptrdiff_t used = kernel_pick(list, n, NULL);
	for (size_t i = 0; i < n; i++) {
		struct kernel_entry *e = &list[i];
		e->used = (ptrdiff_t)i == used;
		if (e->used)
			e->why = e->tuned ? "the newest tuned kernel" : "the newest kernel; no tuned one is built";
		else if (e->tuned == list[used].tuned)
			e->why = "a newer one is there; --kernel ID boots it";
		else
			e->why = "a tuned kernel is built; --kernel ID boots it";
	}
}

/** Append the directory @name of @kernels to the list, unless it is a file, hidden or of another husk. */
static int add_entry(int dir, const char *kernels, const char *name, struct kernel_entry **list, size_t *n)
{
	struct stat st;
	if (*name == '.' || fstatat(dir, name, &st, 0) < 0 || !S_ISDIR(st.st_mode) || !kernel_is_current(kernels, name))
		return 0;
	struct kernel_entry *more = realloc(*list, (*n + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	*list = more;
	more[*n] = (struct kernel_entry){.id = strdup(name), .made = st.st_ctim, .tuned = kernel_is_tuned(name)};
	return more[*n].id ? (++*n, 0) : -ENOMEM;
}

int kernel_list(const char *home, struct kernel_entry **list, size_t *n, struct husk_error *err)
{
	CLEANUP_FREE char *kernels = path_join(home, "kernels");
	CLEANUP_DIR DIR *dir = kernels ? opendir(kernels) : NULL;
	struct dirent *entry;
	int rc = kernels ? 0 : -ENOMEM;
	*list = NULL;
	*n = 0;
	if (kernels && !dir && errno != ENOENT)
		return error_errno(err, "list the kernels of %s", kernels);
	while (rc == 0 && dir && (entry = readdir(dir)))
		rc = add_entry(dirfd(dir), kernels, entry->d_name, list, n);
	if (rc < 0) {
		kernel_list_free(*list, *n);
		*list = NULL;
		*n = 0;
		return error_set(err, rc, "list the kernels of %s: out of memory", home);
	}
	if (*n)
		qsort(*list, *n, sizeof(**list), newest_first);
	explain(*list, *n);
	return 0;
}

void kernel_list_free(struct kernel_entry *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i].id);
	free(list);
}

int kernel_choose(const char *home, const char *wanted, char **id, struct husk_error *err)
{
	struct kernel_entry *list;
	size_t n;
	int rc = kernel_list(home, &list, &n, err);
	if (rc < 0)
		return rc;
	ptrdiff_t at = kernel_pick(list, n, wanted);
	if (at < 0 && wanted)
		rc = error_set(
			err, -ENOENT, "there is no file and no guest kernel %s (husk kernel list shows them)", wanted);
	else if (at < 0)
		rc = error_set(err, -ENOENT, "no guest kernel in %s/kernels; run: husk kernel fetch", home);
	else if (!(*id = strdup(list[at].id)))
		rc = error_set(err, -ENOMEM, "find the guest kernel: out of memory");
	kernel_list_free(list, n);
	return rc;
}
