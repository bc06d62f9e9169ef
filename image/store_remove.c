/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_remove.c - removal of names and images, and the collection of garbage
 *
 * Theory of operation: what may go is decided under the store's lock, under which images are committed too. A block image
 * goes when no record names it and nobody holds its lock: a pull that counts on it holds that shared until its own record
 * is there. The order is that of creation reversed, names, record, layers and blobs, so a crash in between leaves garbage
 * and never a record without its layers. When any record cannot be read, no layer and no blob is removed: it might be that
 * record's.
 */
#include "image/store.h"

#include "base/path.h"
#include "image/name.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#define OLD_SECONDS 86400 /* what is under partial/ and untouched for a day is given up */

/** What records refer to: "HEX.img" and blob "HEX". */
struct references {
	char **items;
	size_t n, room;
};

static void references_free(struct references *refs)
{
	for (size_t i = 0; i < refs->n; i++)
		free(refs->items[i]);
	free(refs->items);
}

static int references_add(struct references *refs, const char *item, struct husk_error *err)
{
	if (refs->n == refs->room) {
		size_t room = refs->room ? 2 * refs->room : 64;
		char **more = reallocarray(refs->items, room, sizeof(*more));
		if (!more)
			return error_set(err, -ENOMEM, "collect references: out of memory");
		refs->items = more;
		refs->room = room;
	}
	refs->items[refs->n] = strdup(item);
	return refs->items[refs->n++] ? 0 : error_set(err, -ENOMEM, "collect references: out of memory");
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool references_has(const struct references *refs, const char *item)
{
	return refs->n && bsearch(&item, refs->items, refs->n, sizeof(*refs->items), compare);
}

static int references_of(const struct image_record *record, struct references *refs, struct husk_error *err)
{
	int rc = references_add(refs, record->id + strlen("sha256:"), err);
	if (rc == 0 && record->manifest_digest && strlen(record->manifest_digest) > 7)
		rc = references_add(refs, record->manifest_digest + strlen("sha256:"), err);
	for (size_t i = 0; rc == 0 && i < record->n_layers; i++)
		rc = references_add(refs, strrchr(record->layers[i].path, '/') + 1, err);
	return rc;
}

/** All that the records refer to; fails when one of them cannot be read. */
static int references_load(const struct store *store, struct references *refs, struct husk_error *err)
{
	char **ids;
	int rc = record_ids(store->home, &ids, err);
	if (rc < 0)
		return rc;
	for (char **id = ids; rc == 0 && *id; id++) {
		struct image_record record;
		rc = record_load(store->home, *id, &record, NULL, err);
		if (rc < 0)
			break;
		rc = references_of(&record, refs, err);
		image_record_free(&record);
	}
	strings_free(ids);
	if (rc == 0 && refs->n)
		qsort(refs->items, refs->n, sizeof(*refs->items), compare);
	return rc < 0 ? error_prefix(err, rc, "a record cannot be read, so no layer was removed") : 0;
}

__attribute__((format(printf, 2, 3))) static void tell(struct buffer *report, const char *format, ...)
{
	va_list ap;
	CLEANUP_FREE char *line = NULL;
	va_start(ap, format);
	if (!report || vasprintf(&line, format, ap) < 0)
		line = NULL;
	va_end(ap);
	if (line)
		buffer_printf(report, "%s\n", line);
}

/** Remove layers/@file unless a pull counts on it. */
static int remove_layer(const struct store *store, const char *file, struct buffer *report, struct husk_error *err)
{
	CLEANUP_LOCK struct store_lock lock = STORE_LOCK_NONE;
	CLEANUP_FREE char *path = store_path(store, "layers/%s", file);
	CLEANUP_FREE char *name = path_format("layer-%.64s", file);
	if (!path || !name)
		return error_set(err, -ENOMEM, "remove layer: out of memory");
	int rc = store_lock_try(store, name, &lock, NULL);
	if (rc == -EAGAIN)
		return 0;
	if (rc < 0)
		return error_set(err, rc, "lock layer %s: %s", file, strerror(-rc));
	if (store->dry_run) {
		tell(report, "would remove layer %.12s: no image has it", file);
		return 0;
	}
	if (unlink(path) < 0)
		return errno == ENOENT ? 0 : error_errno(err, "remove %s", path);
	tell(report, "removed layer %.12s: no image has it", file);
	return 0;
}

static int sweep(const struct store *store, char *const *keys, struct buffer *report, struct husk_error *err)
{
	CLEANUP(references_free) struct references refs = {0};
	int rc = references_load(store, &refs, err);
	for (; rc == 0 && *keys; keys++) {
		char file[80];
		snprintf(file, sizeof(file), "%.64s.img", *keys);
		if (!references_has(&refs, file))
			rc = remove_layer(store, file, report, err);
	}
	return rc;
}

int store_sweep_layers(const struct store *store, char *const *keys, struct buffer *report, struct husk_error *err)
{
	CLEANUP_LOCK struct store_lock lock = STORE_LOCK_NONE;
	int rc = store_lock(store, "store", "writes the store", &lock, err);
	return rc < 0 ? rc : sweep(store, keys, report, err);
}

/* ---- rmi ---- */

/** -EBUSY when the record of a VM names @id. A record that cannot be read counts as one that does; then *@unknown (may be NULL)
 *  is set. */
static int check_vms(const struct store *store, const char *id, bool *unknown, struct husk_error *err)
{
	CLEANUP_FREE char *path = store_path(store, "vms");
	CLEANUP_DIR DIR *dir = path ? opendir(path) : NULL;
	struct dirent *entry;
	if (!dir)
		return errno == ENOENT ? 0 : error_errno(err, "open %s/vms", store->home);
	while ((entry = readdir(dir))) {
		CLEANUP_JSON json_t *vm = NULL;
		struct husk_error fault;
		if (entry->d_name[0] == '.')
			continue;
		CLEANUP_FREE char *file = path_format("%s/%s/vm.json", path, entry->d_name);
		if (!file)
			return error_set(err, -ENOMEM, "remove image: out of memory");
		int rc = json_read_file(file, &vm, &fault);
		if (rc == -ENOTDIR || (rc == -ENOENT && faccessat(dirfd(dir), entry->d_name, F_OK, 0) < 0))
			continue; /* no VM, or one that was removed just now */
		const char *used = json_string_value(json_object_get(vm, "image_id"));
		if (rc == 0 && !used)
			rc = error_set(&fault, -EBADMSG, "its record names no image");
		if (rc < 0) {
			if (unknown)
				*unknown = true;
			return error_set(err, -EBUSY, "image %.19s may be in use by VM %s: %s", id, entry->d_name,
				fault.message);
		}
		if (strcmp(used, id) == 0)
			return error_set(err, -EBUSY, "image %.19s is in use by VM %s; remove the VM first, or use -f",
				id, entry->d_name);
	}
	return 0;
}

static int remove_name(const struct store *store, const char *name, struct buffer *report, struct husk_error *err)
{
	CLEANUP_FREE char *file = name_file(name);
	CLEANUP_FREE char *path = file ? store_path(store, "names/%s.json", file) : NULL;
	if (!path)
		return error_set(err, -ENOMEM, "remove name: out of memory");
	if (unlink(path) < 0 && errno != ENOENT)
		return error_errno(err, "remove %s", path);
	tell(report, "untagged %s", name);
	return 0;
}

static void remove_blob(const struct store *store, const struct references *refs, const char *digest)
{
	CLEANUP_FREE char *path = store_path(store, "blobs/sha256/%s", digest + strlen("sha256:"));
	if (path && !references_has(refs, digest + strlen("sha256:")))
		unlink(path);
}

/** Remove the record, then those of its layers and blobs that no other record names. */
static int remove_image(const struct store *store, const char *id, struct buffer *report, struct husk_error *err)
{
	struct image_record record = {0};
	CLEANUP(references_free) struct references refs = {0};
	CLEANUP_FREE char *path = store_path(store, "images/%s.json", id + strlen("sha256:"));
	bool readable = record_load(store->home, id, &record, NULL, NULL) == 0;
	int rc = 0;
	if (!path)
		rc = error_set(err, -ENOMEM, "remove image: out of memory");
	else if (unlink(path) < 0 && errno != ENOENT)
		rc = error_errno(err, "remove %s", path);
	if (rc == 0)
		tell(report, "removed %s", id);
	if (rc == 0 && readable)
		rc = references_load(store, &refs, err);
	for (size_t i = 0; rc == 0 && i < record.n_layers; i++) {
		const char *file = strrchr(record.layers[i].path, '/') + 1;
		if (!references_has(&refs, file))
			rc = remove_layer(store, file, report, err);
	}
	if (rc == 0 && readable) {
		remove_blob(store, &refs, id);
		if (record.manifest_digest && digest_check(record.manifest_digest, NULL) == 0)
			remove_blob(store, &refs, record.manifest_digest);
	}
	image_record_free(&record);
	return rc;
}

/** True for the note where an image came from ("tar:/x.tar"), false for a name that a user gave it. */
static bool is_source(const char *name)
{
	struct source_name parsed = {0};
	bool source = source_name_parse(name, &parsed, NULL) == 0 && parsed.kind != SOURCE_REGISTRY;
	source_name_free(&parsed);
	return source;
}

/** The part under the lock: @name is the name that was given, or NULL for an id. What only notes where the image came from
 *  does not keep it when its last name goes. */
static int remove_resolved(const struct store *store, const char *id, const char *name, bool force,
	struct buffer *report, struct husk_error *err)
{
	struct name_record *names;
	size_t n, own = 0;
	const char *other = NULL;
	int rc = names_load(store->home, &names, &n, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(names[i].image_id, id) != 0)
			continue;
		own += !is_source(names[i].name);
		if (!name || (strcmp(names[i].name, name) != 0 && !(is_source(names[i].name) && !is_source(name))))
			other = names[i].name;
	}
	bool only_name = name && other;
	if (!name && own > 1 && !force)
		rc = error_set(
			err, -EBUSY, "image %.19s has %zu names (%.200s, …); remove them, or use -f", id, own, other);
	if (rc == 0 && !only_name && !force)
		rc = check_vms(store, id, NULL, err);
	for (size_t i = 0; rc == 0 && i < n; i++)
		if (strcmp(names[i].image_id, id) == 0 && (!only_name || strcmp(names[i].name, name) == 0))
			rc = remove_name(store, names[i].name, report, err);
	names_free(names, n);
	return rc == 0 && !only_name ? remove_image(store, id, report, err) : rc;
}

int store_remove(const struct store *store, const char *text, bool force, struct buffer *report, struct husk_error *err)
{
	CLEANUP_LOCK struct store_lock lock = STORE_LOCK_NONE;
	CLEANUP_FREE char *name = NULL;
	char id[DIGEST_MAX];
	int rc = store_lock(store, "store", "writes the store", &lock, err);
	if (rc == 0)
		rc = record_resolve(store->home, text, id, &name, err);
	return rc == 0 ? remove_resolved(store, id, name, force, report, err) : rc;
}

/* ---- gc ---- */

typedef int collect_fn(const struct store *store, const char *directory, const char *file, void *data,
	struct buffer *report, struct husk_error *err);

static int for_each_file(const struct store *store, const char *directory, collect_fn *fn, void *data,
	struct buffer *report, struct husk_error *err)
{
	CLEANUP_FREE char *path = store_path(store, "%s", directory);
	CLEANUP_DIR DIR *dir = path ? opendir(path) : NULL;
	struct dirent *entry;
	int rc = 0;
	if (!dir)
		return error_errno(err, "open %s/%s", store->home, directory);
	while (rc == 0 && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			rc = fn(store, directory, entry->d_name, data, report, err);
	return rc;
}

static int collect_layer(const struct store *store, const char *directory, const char *file, void *data,
	struct buffer *report, struct husk_error *err)
{
	return references_has(data, file) ? 0 : remove_layer(store, file, report, err);
}

static int collect_blob(const struct store *store, const char *directory, const char *file, void *data,
	struct buffer *report, struct husk_error *err)
{
	CLEANUP_FREE char *path = store_path(store, "%s/%s", directory, file);
	if (references_has(data, file))
		return 0;
	if (store->dry_run) {
		tell(report, "would remove blob %.12s: no image has it", file);
		return 0;
	}
	if (!path || (unlink(path) < 0 && errno != ENOENT))
		return error_errno(err, "remove blob %s", file);
	tell(report, "removed blob %.12s: no image has it", file);
	return 0;
}

static bool is_old(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0 && time(NULL) - st.st_mtime > OLD_SECONDS;
}

/** Files and directories that are old and that nobody holds; locks among them. */
static int collect_partial(const struct store *store, const char *directory, const char *file, void *data,
	struct buffer *report, struct husk_error *err)
{
	CLEANUP_FREE char *path = store_path(store, "%s/%s", directory, file);
	if (!path || strcmp(file, "locks") == 0 || !is_old(path))
		return 0;
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return 0;
	bool told = strcmp(directory, "partial") == 0;
	if (store->dry_run) {
		if (told)
			tell(report, "would remove partial %.12s: nobody goes on with it", file);
		return 0;
	}
	int rc = path_remove_tree(path, err);
	if (rc == 0 && told)
		tell(report, "removed partial %.12s: nobody goes on with it", file);
	return rc;
}

/** Temporary files of atomic writes that a crash left: they do not end in ".json". */
static int collect_temporary(const struct store *store, const char *directory, const char *file, void *data,
	struct buffer *report, struct husk_error *err)
{
	size_t n = strlen(file);
	CLEANUP_FREE char *path = store_path(store, "%s/%s", directory, file);
	if (path && (n < 5 || strcmp(file + n - 5, ".json") != 0) && is_old(path) && !store->dry_run)
		unlink(path);
	return 0;
}

int store_collect(const struct store *store, struct buffer *report, struct husk_error *err)
{
	CLEANUP_LOCK struct store_lock lock = STORE_LOCK_NONE;
	CLEANUP(references_free) struct references refs = {0};
	int rc = store_lock(store, "store", "writes the store", &lock, err);
	if (rc == 0)
		rc = references_load(store, &refs, err);
	if (rc == 0)
		rc = for_each_file(store, "layers", collect_layer, &refs, report, err);
	if (rc == 0)
		rc = for_each_file(store, "blobs/sha256", collect_blob, &refs, report, err);
	if (rc == 0)
		rc = for_each_file(store, "partial", collect_partial, NULL, report, err);
	if (rc == 0)
		rc = for_each_file(store, "partial/locks", collect_partial, NULL, report, err);
	if (rc == 0)
		rc = for_each_file(store, "images", collect_temporary, NULL, report, err);
	return rc == 0 ? for_each_file(store, "names", collect_temporary, NULL, report, err) : rc;
}

int store_collect_images(const struct store *store, struct buffer *report, struct husk_error *err)
{
	CLEANUP_LOCK struct store_lock lock = STORE_LOCK_NONE;
	char **ids = NULL;
	int rc = store_lock(store, "store", "writes the store", &lock, err);
	rc = rc < 0 ? rc : record_ids(store->home, &ids, err);
	if (rc < 0)
		return rc;
	for (char **id = ids; rc == 0 && *id; id++) {
		struct husk_error why;
		bool unknown = false;
		if (check_vms(store, *id, &unknown, &why) == 0) {
			tell(report, "%s image %.19s: no VM uses it", store->dry_run ? "would remove" : "removing", *id);
			if (!store->dry_run)
				rc = remove_resolved(store, *id, NULL, true, report, err);
		} else if (unknown) {
			tell(report, "kept all images: %s", why.message);
			break;
		}
	}
	strings_free(ids);
	return rc;
}
