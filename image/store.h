/* SPDX-License-Identifier: Apache-2.0 */
/* store.h - writing the store: locks, temporary files, commits, removal. Runs in husk-image only */
#ifndef IMAGE_STORE_H
#define IMAGE_STORE_H

#include "base/buffer.h"
#include "base/cleanup.h"
#include "image/layer.h"
#include "image/record_private.h"

#include <stdbool.h>

/** One home, opened for writing. */
struct store {
	char *home;
	/** Says one line to the user; called from any thread. */
	void (*say)(const char *line);
	/** Nonzero: give up with -ECANCELED. */
	volatile int *stop;
	/** Collecting says what it would remove, and removes nothing. */
	bool dry_run;
};

/** Make the store's directories below @home where they are missing. */
int store_open(struct store *store, const char *home, struct husk_error *err);
void store_close(struct store *store);
/** malloc'ed "HOME/" and the formatted rest. */
__attribute__((format(printf, 2, 3))) char *store_path(const struct store *store, const char *format, ...);

/** SHA-256 of @n bytes as "sha256:…". */
int store_digest(const void *bytes, size_t n, char digest[DIGEST_MAX]);

/* ---- locks: flock on files under partial/locks, with the owner's pid in them; the kernel drops them with the owner ---- */

struct store_lock {
	int fd;
};

#define STORE_LOCK_NONE ((struct store_lock){.fd = -1})

/** Hold the lock @name alone; waits for its owner, and says for what (@doing: "pulls debian:12"). */
int store_lock(
	const struct store *store, const char *name, const char *doing, struct store_lock *out, struct husk_error *err);
/** The same without waiting: -EAGAIN. */
int store_lock_try(const struct store *store, const char *name, struct store_lock *out, struct husk_error *err);
void store_unlock(struct store_lock *lock);
#define CLEANUP_LOCK CLEANUP(store_unlock)

/** Take part in the block image layers/@key.img: returns 1 when it exists; then @lock keeps it from being removed until the
 *  image that needs it is committed. Returns 0 when it does not: then @lock is held alone and the caller makes it, between
 *  store_temporary() and store_layer_commit(). Waits for another process that makes it. */
int store_layer_begin(const struct store *store, const char *key, struct store_lock *lock, struct husk_error *err);
/** fsync @fd, the file partial/@key.img, and rename it to layers/@key.img; the lock becomes a shared one. */
int store_layer_commit(
	const struct store *store, const char *key, int fd, struct store_lock *lock, struct husk_error *err);

/** Open partial/@name, made when missing and emptied with @truncate; the descriptor holds a flock, so that garbage
 *  collection lets the file be. -EBUSY when another process holds it. */
int store_temporary(const struct store *store, const char *name, bool truncate, int *fd, struct husk_error *err);
/** A directory partial/@name, new and empty, held likewise. */
int store_temporary_directory(const struct store *store, const char *name, int *fd, struct husk_error *err);
/** Remove partial/@name, file or directory. */
void store_temporary_remove(const struct store *store, const char *name);
/** Let partial/@name be when the process is cancelled: the next pull goes on with it. */
void store_temporary_keep(const char *name);
/** Remove every temporary that this process has under way and did not keep; for a process that ends at once. */
void store_temporaries_discard(const struct store *store);

/* ---- commits ---- */

/** What becomes a record, beyond the record itself. */
struct store_commit {
	const char *id;
	json_t *record; /* the whole document (borrowed) */
	const void *manifest, *config; /* kept as blobs; manifest may be NULL */
	size_t manifest_size, config_size;
	const char *manifest_digest;
	char **layers; /* keys of the block images, NULL-terminated */
};

/** Write blobs and record. Fails when a layer is not there. */
int store_commit(const struct store *store, const struct store_commit *commit, struct husk_error *err);
/** Let @name->name point to @name->image_id, which must have a record. */
int store_name(const struct store *store, const struct name_record *name, struct husk_error *err);

/* ---- removal; @report gets a line for each thing ---- */

/** Remove what @text names (see main.c). */
int store_remove(
	const struct store *store, const char *text, bool force, struct buffer *report, struct husk_error *err);
/** Remove those of the block images @keys that no record names. */
int store_sweep_layers(const struct store *store, char *const *keys, struct buffer *report, struct husk_error *err);
/** Remove all that nothing refers to. */
int store_collect(const struct store *store, struct buffer *report, struct husk_error *err);

/** Remove all images that the record of no VM names. With one that cannot be read none is removed, and the report says so. */
int store_collect_images(const struct store *store, struct buffer *report, struct husk_error *err);

#endif
