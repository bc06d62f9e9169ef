/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pull_layers.c - the layers of one image, in parallel
 *
 * Theory of operation: up to three threads take layers from a list, each layer once however often the image has it. Whoever
 * gets a layer's lock (store_layer_begin()) fetches its bytes and converts them; layers that the store has, by diff ID, are
 * neither fetched nor converted. A layer that means something only together with the ones below it (layer.h, needs_lower)
 * is never kept by itself, since another image might have it elsewhere; its image gets one block image of all its layers,
 * under the digest of their diff IDs, and so do images of more than 40 layers. The first error stops the other threads.
 */
#include "image/pull.h"

#include "base/path.h"
#include "image/progress.h"

#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#define THREADS_MAX 3
#define LAYERS_MAX 40

struct work {
	struct source *source;
	const struct image_plan *plan;
	volatile int *stop;
	struct pulled_layers *out;
	pthread_mutex_t lock; /* of all below */
	size_t *unique; /* indexes into plan->layers */
	size_t n_unique, next;
	bool merge;
	uint64_t dropped_acls;
	int rc;
	struct husk_error err;
};

/** For the progress of one layer. */
struct meter {
	size_t index;
};

static void on_bytes(void *data, uint64_t bytes)
{
	const struct meter *meter = data;
	progress_bytes(meter->index, bytes);
}

void pulled_layers_unlock(struct pulled_layers *layers)
{
	for (size_t i = 0; i < layers->n_locks; i++)
		store_unlock(&layers->locks[i]);
	free(layers->locks);
	layers->locks = NULL;
	layers->n_locks = 0;
}

void pulled_layers_free(struct pulled_layers *layers)
{
	pulled_layers_unlock(layers);
	free(layers->layers);
	strings_free(layers->spare);
	*layers = (struct pulled_layers){0};
}

int pull_chain_key(const struct plan_layer *layers, size_t n, char key[65], struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer text = {0};
	char digest[DIGEST_MAX];
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = buffer_printf(&text, "%s%s", i ? "\n" : "", layers[i].diff_id);
	if (rc == 0)
		rc = store_digest(buffer_bytes(&text), text.size, digest);
	if (rc < 0)
		return error_set(err, -ENOMEM, "merge layers: out of memory");
	snprintf(key, 65, "%s", digest + strlen("sha256:"));
	return 0;
}

static const char *key_of(const struct plan_layer *layer)
{
	return layer->diff_id + strlen("sha256:");
}

/** Keep @lock until the image is committed. */
static int keep_lock(struct work *w, struct store_lock *lock)
{
	if (lock->fd < 0)
		return 0;
	pthread_mutex_lock(&w->lock);
	struct store_lock *more = reallocarray(w->out->locks, w->out->n_locks + 1, sizeof(*more));
	if (more) {
		w->out->locks = more;
		more[w->out->n_locks++] = *lock;
		*lock = STORE_LOCK_NONE;
	}
	pthread_mutex_unlock(&w->lock);
	return more ? 0 : -ENOMEM;
}

static bool merging(struct work *w)
{
	pthread_mutex_lock(&w->lock);
	bool merge = w->merge;
	pthread_mutex_unlock(&w->lock);
	return merge;
}

static struct layer_source layer_source_of(const struct plan_layer *layer, int fd)
{
	return (struct layer_source){
		.fd = fd,
		.name = layer->member ? layer->member : layer->blob.digest,
		.digest = layer->blob.digest[0] ? layer->blob.digest : NULL,
		.diff_id = layer->diff_id,
		.size = layer->blob.size,
	};
}

/** Convert @fd into partial/KEY.img and commit it, unless it turns out to need its lower layers. */
static int convert(struct work *w, size_t index, int fd, struct store_lock *lock, struct husk_error *err)
{
	const struct plan_layer *layer = &w->plan->layers[index];
	struct meter meter = {.index = index};
	struct layer_options options = {.progress = on_bytes, .progress_data = &meter};
	struct layer_source from = layer_source_of(layer, fd);
	struct layer_result result;
	CLEANUP_FD int out = -1;
	CLEANUP_FREE char *name = path_format("%s.img", key_of(layer));
	if (!name)
		return error_set(err, -ENOMEM, "layer %s: out of memory", layer->diff_id);
	int rc = store_temporary(w->source->store, name, true, &out, err);
	if (rc < 0)
		return rc;
	rc = layer_convert(&from, out, &options, &result, err);
	if (rc == 0 && !result.needs_lower)
		rc = store_layer_commit(w->source->store, key_of(layer), out, lock, err);
	if (rc < 0 || result.needs_lower) {
		store_temporary_remove(w->source->store, name);
		store_unlock(lock); /* who holds a lock alone waits for no other */
	} else {
		store_temporary_keep(name);
	}
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&w->lock);
	w->merge |= result.needs_lower;
	w->dropped_acls += result.dropped_acls;
	pthread_mutex_unlock(&w->lock);
	return 0;
}

static int do_layer(struct work *w, size_t index, struct husk_error *err)
{
	const struct plan_layer *layer = &w->plan->layers[index];
	struct meter meter = {.index = index};
	CLEANUP_LOCK struct store_lock lock = STORE_LOCK_NONE;
	CLEANUP_FD int fd = -1;
	bool merge = merging(w);
	int rc = merge ? 0 : store_layer_begin(w->source->store, key_of(layer), &lock, err);
	if (rc < 0)
		return rc;
	if (rc == 1) {
		progress_bytes(index, layer->blob.size);
		progress_layer(index, true, layer->diff_id, "already there");
		return keep_lock(w, &lock) < 0 ? error_set(err, -ENOMEM, "pull: out of memory") : 0;
	}
	rc = w->source->ops->layer(w->source, layer, on_bytes, &meter, &fd, err);
	if (rc == 0 && !merge)
		rc = convert(w, index, fd, &lock, err);
	if (rc < 0)
		return rc;
	progress_bytes(index, layer->blob.size);
	progress_layer(index, true, layer->diff_id, merge ? "fetched" : "done");
	return keep_lock(w, &lock) < 0 ? error_set(err, -ENOMEM, "pull: out of memory") : 0;
}

static void *run_thread(void *data)
{
	struct work *w = data;
	for (;;) {
		struct husk_error err = {0};
		pthread_mutex_lock(&w->lock);
		size_t at = w->rc == 0 && !*w->stop ? w->next++ : w->n_unique;
		pthread_mutex_unlock(&w->lock);
		if (at >= w->n_unique)
			return NULL;
		int rc = do_layer(w, w->unique[at], &err);
		if (rc == 0)
			continue;
		pthread_mutex_lock(&w->lock);
		if (w->rc == 0) {
			w->rc = rc;
			w->err = err;
		}
		pthread_mutex_unlock(&w->lock);
		if (!*w->stop)
			*w->stop = 2;
		return NULL;
	}
}

static int run_threads(struct work *w, struct husk_error *err)
{
	pthread_t threads[THREADS_MAX];
	size_t n = 0;
	while (n < THREADS_MAX && n < w->n_unique && pthread_create(&threads[n], NULL, run_thread, w) == 0)
		n++;
	if (!n)
		run_thread(w);
	for (size_t i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	if (*w->stop == 1)
		return error_set(err, -ECANCELED, "cancelled");
	if (w->rc < 0 && err)
		*err = w->err;
	return w->rc;
}

/** Descriptors of all layers' bytes, and what layer_merge() wants of them. */
static int open_sources(struct work *w, struct layer_source *sources, struct husk_error *err)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < w->plan->n_layers; i++) {
		struct meter meter = {.index = i};
		int fd = -1;
		rc = w->source->ops->layer(w->source, &w->plan->layers[i], on_bytes, &meter, &fd, err);
		sources[i] = layer_source_of(&w->plan->layers[i], rc == 0 ? fd : -1);
	}
	return rc;
}

static int merge_into(struct work *w, const char *key, struct store_lock *lock, struct husk_error *err)
{
	size_t n = w->plan->n_layers;
	CLEANUP_FD int out = -1;
	CLEANUP_FREE char *name = path_format("%s.img", key);
	CLEANUP_FREE struct layer_source *sources = calloc(n, sizeof(*sources));
	CLEANUP_FREE struct layer_result *results = calloc(n, sizeof(*results));
	if (!name || !sources || !results)
		return error_set(err, -ENOMEM, "merge layers: out of memory");
	for (size_t i = 0; i < n; i++)
		sources[i].fd = -1;
	int rc = store_temporary(w->source->store, name, true, &out, err);
	if (rc < 0)
		return rc;
	rc = open_sources(w, sources, err);
	if (rc == 0)
		rc = layer_merge(sources, n, out, NULL, results, err);
	for (size_t i = 0; i < n; i++)
		cleanup_fd(&sources[i].fd);
	if (rc == 0)
		rc = store_layer_commit(w->source->store, key, out, lock, err);
	if (rc < 0)
		store_temporary_remove(w->source->store, name);
	else
		store_temporary_keep(name);
	w->dropped_acls = 0;
	for (size_t i = 0; i < n; i++)
		w->dropped_acls += results[i].dropped_acls;
	return rc;
}

/** The layer is layers/KEY.img: note its size. */
static int note_layer(struct store *store, struct pulled_layer *layer, struct husk_error *err)
{
	struct stat st;
	CLEANUP_FREE char *path = store_path(store, "layers/%s.img", layer->key);
	if (!path || stat(path, &st) < 0)
		return error_errno(err, "open layer %s", layer->key);
	layer->size = (uint64_t)st.st_size;
	return 0;
}

static int merge_layers(struct work *w, const char *key, struct husk_error *err)
{
	CLEANUP_LOCK struct store_lock lock = STORE_LOCK_NONE;
	int rc = store_layer_begin(w->source->store, key, &lock, err);
	if (rc == 0) {
		progress_say("merging the layers into one");
		rc = merge_into(w, key, &lock, err);
	}
	if (rc < 0)
		return rc;
	if (keep_lock(w, &lock) < 0 || !(w->out->layers = calloc(1, sizeof(*w->out->layers))))
		return error_set(err, -ENOMEM, "merge layers: out of memory");
	w->out->n = 1;
	snprintf(w->out->layers[0].key, sizeof(w->out->layers[0].key), "%s", key);
	snprintf(w->out->layers[0].diff_id, DIGEST_MAX, "sha256:%s", key);
	w->out->spare = calloc(w->n_unique + 1, sizeof(*w->out->spare));
	for (size_t i = 0; w->out->spare && i < w->n_unique; i++)
		if (!(w->out->spare[i] = strdup(key_of(&w->plan->layers[w->unique[i]]))))
			break;
	return note_layer(w->source->store, w->out->layers, err);
}

static int list_layers(struct work *w, struct husk_error *err)
{
	size_t n = w->plan->n_layers;
	int rc = 0;
	w->out->layers = calloc(n, sizeof(*w->out->layers));
	if (!w->out->layers)
		return error_set(err, -ENOMEM, "pull: out of memory");
	for (w->out->n = 0; rc == 0 && w->out->n < n; w->out->n++) {
		struct pulled_layer *layer = &w->out->layers[w->out->n];
		snprintf(layer->key, sizeof(layer->key), "%s", key_of(&w->plan->layers[w->out->n]));
		snprintf(layer->diff_id, DIGEST_MAX, "%s", w->plan->layers[w->out->n].diff_id);
		rc = note_layer(w->source->store, layer, err);
	}
	return rc;
}

int pull_layers(struct source *source, const struct image_plan *plan, volatile int *stop, struct pulled_layers *out,
	struct husk_error *err)
{
	struct work w = {.source = source, .plan = plan, .stop = stop, .out = out, .lock = PTHREAD_MUTEX_INITIALIZER};
	CLEANUP_FREE size_t *unique = calloc(plan->n_layers, sizeof(*unique));
	char chain[65];
	uint64_t total = 0;
	int rc = unique ? pull_chain_key(plan->layers, plan->n_layers, chain, err)
			: error_set(err, -ENOMEM, "pull: out of memory");
	if (rc < 0)
		return rc;
	w.unique = unique;
	for (size_t i = 0; i < plan->n_layers; i++) {
		size_t j = 0;
		while (j < w.n_unique && strcmp(plan->layers[unique[j]].diff_id, plan->layers[i].diff_id) != 0)
			j++;
		if (j < w.n_unique)
			continue;
		unique[w.n_unique++] = i;
		total += plan->layers[i].blob.size;
	}
	CLEANUP_FREE char *merged = store_path(source->store, "layers/%s.img", chain);
	w.merge = plan->n_layers > LAYERS_MAX;
	bool made = merged && access(merged, F_OK) == 0;
	progress_layers(plan->n_layers, total);
	if (!made)
		rc = run_threads(&w, err);
	if (rc == 0)
		rc = made || w.merge ? merge_layers(&w, chain, err) : list_layers(&w, err);
	out->dropped_acls = w.dropped_acls;
	return rc;
}

int pull_adopt(struct store *store, const char *name, const char *key, int fd, uint64_t size, struct pulled_layers *out,
	struct husk_error *err)
{
	CLEANUP_LOCK struct store_lock lock = STORE_LOCK_NONE;
	CLEANUP_FREE char *from = store_path(store, "partial/%s", name);
	CLEANUP_FREE char *to = store_path(store, "partial/%s.img", key);
	out->layers = calloc(1, sizeof(*out->layers));
	out->locks = calloc(1, sizeof(*out->locks));
	if (!from || !to || !out->layers || !out->locks)
		return error_set(err, -ENOMEM, "layer %s: out of memory", key);
	int rc = store_layer_begin(store, key, &lock, err);
	if (rc == 1) {
		store_temporary_remove(store, name);
	} else if (rc == 0) {
		if (rename(from, to) < 0)
			return error_errno(err, "rename %s to %s", from, to);
		store_temporary_keep(name);
		rc = store_layer_commit(store, key, fd, &lock, err);
		if (rc < 0)
			unlink(to);
	}
	if (rc < 0)
		return rc;
	out->locks[out->n_locks++] = lock;
	lock = STORE_LOCK_NONE;
	out->n = 1;
	out->layers[0].size = size;
	snprintf(out->layers[0].key, sizeof(out->layers[0].key), "%s", key);
	snprintf(out->layers[0].diff_id, DIGEST_MAX, "sha256:%s", key);
	return note_layer(store, out->layers, err);
}
