/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.c - the store's directories, locks, temporary files and commits
 *
 * Theory of operation: whatever has a final name is complete. A block image is made in partial/KEY.img by the one process
 * that holds the lock of KEY alone, synced, and renamed to layers/; a blob, a record and a name are written to a temporary
 * file and renamed. An image is there from the moment its record is, and its record comes after its layers and blobs; so
 * a crash leaves at worst files in partial/, which the next pull of the same thing goes on with or overwrites, and
 * unreferenced layers, which `gc` removes.
 *
 * Locks are flock()s on files in partial/locks/: the kernel drops them when their owner dies. A file may have been removed
 * by garbage collection between open and flock, so its inode is compared afterwards. Nobody sleeps in flock(): waiting is
 * polling, so that a signal ends it, and so that "it exists by now" is seen while its maker still holds it shared. Locks
 * are taken in the order name, image, layer, store; of the layers' locks several may be held shared, but a process that
 * waits for one watches for the file and not only for the lock, so two pulls cannot wait for each other.
 */
#include "image/store.h"

#include "base/fd.h"
#include "base/path.h"
#include "image/name.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#define POLL_NS 50000000
#define SHORT_TURNS 20 /* of POLL_NS, before a wait for a short lock is worth a word */

char *store_path(const struct store *store, const char *format, ...)
{
	CLEANUP_FREE char *rest = NULL;
	va_list ap;
	va_start(ap, format);
	if (vasprintf(&rest, format, ap) < 0)
		rest = NULL;
	va_end(ap);
	return rest ? path_join(store->home, rest) : NULL;
}

int store_open(struct store *store, const char *home, struct husk_error *err)
{
	static const char *const directories[] = {"", "blobs/sha256", "layers", "images", "names", "partial/locks"};
	int rc = path_make_directories(home, 0700, err);
	if (rc < 0)
		return rc;
	store->home = realpath(home, NULL);
	if (!store->home)
		return error_errno(err, "open %s", home);
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(directories); i++) {
		CLEANUP_FREE char *path = store_path(store, "%s", directories[i]);
		rc = path ? path_make_directories(path, 0700, err)
			  : error_set(err, -ENOMEM, "open %s: out of memory", home);
	}
	if (rc < 0)
		store_close(store);
	return rc;
}

void store_close(struct store *store)
{
	free(store->home);
	store->home = NULL;
}

int store_digest(const void *bytes, size_t n, char digest[DIGEST_MAX])
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned size = 0;
	if (!EVP_Digest(bytes, n, hash, &size, EVP_sha256(), NULL) || size != 32)
		return -ENOMEM;
	int at = snprintf(digest, DIGEST_MAX, "sha256:");
	for (unsigned i = 0; i < size; i++)
		at += snprintf(digest + at, (size_t)(DIGEST_MAX - at), "%02x", hash[i]);
	return 0;
}

/* ---- locks ---- */

/** Open the lock's file and try to get @operation (LOCK_EX or LOCK_SH) on it. -EAGAIN: someone else has it, @owner is its
 *  pid as far as it is known. */
static int try_lock(const struct store *store, const char *name, int operation, struct store_lock *out, int *owner,
	struct husk_error *err)
{
	CLEANUP_FREE char *path = store_path(store, "partial/locks/%s", name);
	if (!path)
		return error_set(err, -ENOMEM, "lock %s: out of memory", name);
	for (;;) {
		CLEANUP_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0)
			return error_errno(err, "open lock %s", path);
		char pid[16] = "";
		if (flock(fd, operation | LOCK_NB) < 0) {
			if (errno != EWOULDBLOCK)
				return error_errno(err, "lock %s", path);
			ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);
			*owner = n > 0 ? atoi(pid) : 0;
			return -EAGAIN;
		}
		struct stat held, named;
		if (fstat(fd, &held) < 0 || stat(path, &named) < 0 || held.st_ino != named.st_ino)
			continue; /* it was collected as garbage in between */
		if (operation == LOCK_EX) {
			/* The pid only serves messages: a full disk must not fail it. */
			int n = snprintf(pid, sizeof(pid), "%-10d\n", (int)getpid());
			if (pwrite(fd, pid, (size_t)n, 0) < 0)
				n = 0;
		}
		*out = (struct store_lock){.fd = steal_fd(&fd)};
		return 0;
	}
}

int store_lock_try(const struct store *store, const char *name, struct store_lock *out, struct husk_error *err)
{
	int owner = 0;
	int rc = try_lock(store, name, LOCK_EX, out, &owner, err);
	return rc == -EAGAIN ? error_set(err, rc, "%s is in use by process %d", name, owner) : rc;
}

/** One turn of waiting; says so when @turns, which counts up, reaches 0. */
static int wait_turn(const struct store *store, const char *doing, int owner, int *turns, struct husk_error *err)
{
	if ((*turns)++ == 0 && store->say) {
		char line[512];
		snprintf(line, sizeof(line), "waiting for husk %d that %s", owner, doing);
		store->say(line);
	}
	nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
	return store->stop && *store->stop ? error_set(err, -ECANCELED, "cancelled") : 0;
}

int store_lock(
	const struct store *store, const char *name, const char *doing, struct store_lock *out, struct husk_error *err)
{
	int turns = strcmp(name, "store") == 0 ? -SHORT_TURNS : 0; /* held for a moment only, as a rule */
	for (;;) {
		int owner = 0;
		int rc = try_lock(store, name, LOCK_EX, out, &owner, err);
		if (rc != -EAGAIN)
			return rc;
		rc = wait_turn(store, doing, owner, &turns, err);
		if (rc < 0)
			return rc;
	}
}

void store_unlock(struct store_lock *lock)
{
	if (lock->fd >= 0)
		close(lock->fd);
	lock->fd = -1;
}

int store_layer_begin(const struct store *store, const char *key, struct store_lock *lock, struct husk_error *err)
{
	CLEANUP_FREE char *path = store_path(store, "layers/%s.img", key);
	CLEANUP_FREE char *name = path_format("layer-%s", key);
	CLEANUP_FREE char *doing = path_format("makes layer %.12s", key);
	if (!path || !name || !doing)
		return error_set(err, -ENOMEM, "layer %s: out of memory", key);
	int turns = 0;
	for (;;) {
		int owner = 0;
		bool exists = access(path, F_OK) == 0;
		int rc = try_lock(store, name, exists ? LOCK_SH : LOCK_EX, lock, &owner, err);
		if (rc == 0 && (access(path, F_OK) == 0) == exists)
			return exists;
		if (rc == 0) {
			store_unlock(lock);
			continue;
		}
		if (rc != -EAGAIN)
			return rc;
		rc = wait_turn(store, doing, owner, &turns, err);
		if (rc < 0)
			return rc;
	}
}

static int sync_directory(const char *path, struct husk_error *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return error_errno(err, "sync %s", path);
	return 0;
}

int store_layer_commit(
	const struct store *store, const char *key, int fd, struct store_lock *lock, struct husk_error *err)
{
	CLEANUP_FREE char *from = store_path(store, "partial/%s.img", key);
	CLEANUP_FREE char *to = store_path(store, "layers/%s.img", key);
	CLEANUP_FREE char *directory = store_path(store, "layers");
	if (!from || !to || !directory)
		return error_set(err, -ENOMEM, "layer %s: out of memory", key);
	if (fsync(fd) < 0)
		return error_errno(err, "sync %s", from);
	if (rename(from, to) < 0)
		return error_errno(err, "rename %s to %s", from, to);
	/* Only now: a read-only file left under partial/ could not be opened again by an ordinary user. */
	if (fchmod(fd, 0444) < 0)
		return error_errno(err, "make %s read-only", to);
	int rc = sync_directory(directory, err);
	if (rc == 0 && lock->fd >= 0 && flock(lock->fd, LOCK_SH | LOCK_NB) < 0)
		rc = error_errno(err, "lock layer %s", key);
	return rc;
}

/* Temporaries under way, for the end of a cancelled process: a few layers at once and an archive. */
static pthread_mutex_t temporaries_lock = PTHREAD_MUTEX_INITIALIZER;
static char temporaries[16][96];

static void remember(const char *name, bool add)
{
	pthread_mutex_lock(&temporaries_lock);
	for (size_t i = 0; i < ARRAY_SIZE(temporaries); i++) {
		if (add && !temporaries[i][0]) {
			snprintf(temporaries[i], sizeof(temporaries[i]), "%s", name);
			break;
		}
		if (!add && strcmp(temporaries[i], name) == 0)
			temporaries[i][0] = 0;
	}
	pthread_mutex_unlock(&temporaries_lock);
}

int store_temporary(const struct store *store, const char *name, bool truncate, int *out, struct husk_error *err)
{
	CLEANUP_FREE char *path = store_path(store, "partial/%s", name);
	if (!path)
		return error_set(err, -ENOMEM, "open partial/%s: out of memory", name);
	for (;;) {
		CLEANUP_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return error_errno(err, "open %s", path);
		if (flock(fd, LOCK_EX | LOCK_NB) < 0)
			return error_set(err, -EBUSY, "open %s: another process uses it", path);
		struct stat held, named;
		if (fstat(fd, &held) < 0 || stat(path, &named) < 0 || held.st_ino != named.st_ino)
			continue;
		if (truncate && ftruncate(fd, 0) < 0)
			return error_errno(err, "empty %s", path);
		remember(name, true);
		*out = steal_fd(&fd);
		return 0;
	}
}

int store_temporary_directory(const struct store *store, const char *name, int *out, struct husk_error *err)
{
	CLEANUP_FREE char *path = store_path(store, "partial/%s", name);
	if (!path)
		return error_set(err, -ENOMEM, "make partial/%s: out of memory", name);
	int rc = path_remove_tree(path, err); /* an earlier process of this pid left it */
	if (rc < 0)
		return rc;
	if (mkdir(path, 0700) < 0)
		return error_errno(err, "make %s", path);
	CLEANUP_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return error_errno(err, "open %s", path);
	remember(name, true);
	*out = steal_fd(&fd);
	return 0;
}

void store_temporary_remove(const struct store *store, const char *name)
{
	CLEANUP_FREE char *path = store_path(store, "partial/%s", name);
	if (path)
		path_remove_tree(path, NULL);
	remember(name, false);
}

void store_temporary_keep(const char *name)
{
	remember(name, false);
}

void store_temporaries_discard(const struct store *store)
{
	pthread_mutex_lock(&temporaries_lock);
	for (size_t i = 0; i < ARRAY_SIZE(temporaries); i++) {
		CLEANUP_FREE char *path = temporaries[i][0] ? store_path(store, "partial/%s", temporaries[i]) : NULL;
		if (path)
			path_remove_tree(path, NULL);
	}
	pthread_mutex_unlock(&temporaries_lock);
}

/* ---- commits ---- */

static int write_blob(
	const struct store *store, const char *digest, const void *bytes, size_t n, struct husk_error *err)
{
	CLEANUP_FREE char *path = store_path(store, "blobs/sha256/%s", digest + strlen("sha256:"));
	if (!path)
		return error_set(err, -ENOMEM, "write blob %s: out of memory", digest);
	return path_write_atomically(path, bytes, n, 0600, err);
}

int store_commit(const struct store *store, const struct store_commit *commit, struct husk_error *err)
{
	CLEANUP_LOCK struct store_lock lock = STORE_LOCK_NONE;
	CLEANUP_FREE char *path = store_path(store, "images/%s.json", commit->id + strlen("sha256:"));
	if (!path)
		return error_set(err, -ENOMEM, "image %s: out of memory", commit->id);
	int rc = store_lock(store, "store", "writes the store", &lock, err);
	if (rc == 0 && commit->manifest)
		rc = write_blob(store, commit->manifest_digest, commit->manifest, commit->manifest_size, err);
	if (rc == 0)
		rc = write_blob(store, commit->id, commit->config, commit->config_size, err);
	for (char **key = commit->layers; rc == 0 && *key; key++) {
		CLEANUP_FREE char *layer = store_path(store, "layers/%s.img", *key);
		if (!layer || access(layer, F_OK) < 0)
			rc = error_errno(err, "commit image %.19s: layer %s", commit->id, *key);
	}
	if (rc == 0)
		rc = json_write_file(path, commit->record, err);
	return rc;
}

int store_name(const struct store *store, const struct name_record *name, struct husk_error *err)
{
	CLEANUP_LOCK struct store_lock lock = STORE_LOCK_NONE;
	CLEANUP_FREE char *file = name_file(name->name);
	CLEANUP_FREE char *path = file ? store_path(store, "names/%s.json", file) : NULL;
	CLEANUP_FREE char *record = store_path(store, "images/%s.json", name->image_id + strlen("sha256:"));
	CLEANUP_JSON json_t *json =
		json_pack("{s:i s:s s:s s:s* s:s*}", "schema", IMAGE_RECORD_SCHEMA, "name", name->name, "image_id",
			name->image_id, "source_digest", name->source_digest, "identity", name->identity);
	if (!path || !record)
		return error_set(err, -ENOMEM, "name %s: out of memory", name->name);
	if (!json)
		return error_set(err, -EINVAL, "name '%s': not UTF-8", name->name);
	int rc = store_lock(store, "store", "writes the store", &lock, err);
	if (rc == 0 && access(record, F_OK) < 0)
		rc = error_errno(err, "name %s: image %s", name->name, name->image_id);
	return rc == 0 ? json_write_file(path, json, err) : rc;
}
