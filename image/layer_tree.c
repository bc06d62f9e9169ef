/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_tree.c - the names and inodes of a layer (or of several) in little memory
 *
 * Theory of operation: a layer may have millions of entries, all of them hostile, so what is kept per entry is counted in
 * bytes: an inode of 64, a dentry of 20, its name, and four for the hash table. They lie in pages that never move and
 * refer to each other by 32-bit indices. One hash table, keyed with random numbers (an attacker cannot prepare
 * collisions), finds a dentry by its parent's inode and its name, so a directory of a million files costs the same per
 * file as one of ten. A directory's dentries also form a list. Nothing is ever given back: an overwritten entry leaves
 * its inode behind, which therefore counts against the cap as well.
 *
 * A tree can hold several roots: layer_merge() reads every layer into a root of its own and then makes one of them.
 * Nothing here depends on the random numbers or on addresses but the order inside hash chains.
 */
#include "image/layer_tree.h"

#include "base/cleanup.h"

#include <string.h>
#include <sys/random.h>

#define TEXT_PAGE (1 << 20)
#define TEXT_PAGES_MAX 4095 /* offsets are 32 bits */
#define TEXT_FREE (16 << 20)
#define ID_TABLE (1 << 17)
#define XATTR_FREE (16 << 20)

static int no_memory(struct husk_error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

uint32_t layer_pool_add(struct layer_pool *pool)
{
	if (pool->used == LAYER_NONE - 1)
		return LAYER_NONE;
	if (pool->used / LAYER_POOL_PAGE == pool->n_pages) {
		if ((pool->n_pages & (pool->n_pages - 1)) == 0) {
			size_t n = pool->n_pages ? 2 * (size_t)pool->n_pages : 1;
			uint8_t **pages = realloc(pool->pages, n * sizeof(*pages));
			if (!pages)
				return LAYER_NONE;
			pool->pages = pages;
		}
		pool->pages[pool->n_pages] = calloc(LAYER_POOL_PAGE, pool->item);
		if (!pool->pages[pool->n_pages])
			return LAYER_NONE;
		pool->n_pages++;
	}
	return pool->used++;
}

void layer_pool_free(struct layer_pool *pool)
{
	for (uint32_t i = 0; i < pool->n_pages; i++)
		free(pool->pages[i]);
	free(pool->pages);
	*pool = (struct layer_pool){.item = pool->item};
}

int layer_tree_init(struct layer_tree *t, uint64_t max_entries, struct husk_error *err)
{
	*t = (struct layer_tree){
		.inodes.item = sizeof(struct layer_inode),
		.dentries.item = sizeof(struct layer_dentry),
		.n_heads = 1 << 12,
		.whiteout = LAYER_NONE,
		.max_entries = max_entries,
	};
	if (getrandom(t->seed, sizeof(t->seed), 0) != sizeof(t->seed))
		return error_errno(err, "getrandom");
	t->heads = malloc(t->n_heads * sizeof(*t->heads));
	t->ids = malloc(LAYER_IDS_MAX * sizeof(*t->ids));
	t->id_table = calloc(ID_TABLE, sizeof(*t->id_table));
	t->xattr_table_size = 64;
	t->xattr_table = calloc(t->xattr_table_size, sizeof(*t->xattr_table));
	if (!t->heads || !t->ids || !t->id_table || !t->xattr_table)
		return no_memory(err);
	memset(t->heads, 0xff, t->n_heads * sizeof(*t->heads));
	return 0;
}

void layer_tree_free(struct layer_tree *t)
{
	layer_pool_free(&t->inodes);
	layer_pool_free(&t->dentries);
	for (uint32_t i = 0; i < t->text.n_pages; i++)
		free(t->text.pages[i]);
	free(t->text.pages);
	for (uint32_t i = 0; i < t->n_xattrs; i++)
		free(t->xattrs[i]);
	free(t->xattrs);
	free(t->xattr_table);
	free(t->heads);
	free(t->ids);
	free(t->id_table);
	*t = (struct layer_tree){0};
}

/* A keyed hash by folded 64 x 64 bit products. */
static uint64_t mix(uint64_t a, uint64_t b)
{
	unsigned __int128 p = (unsigned __int128)a * b;
	return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static uint64_t hash_bytes(const struct layer_tree *t, uint64_t start, const void *bytes, size_t n)
{
	const uint8_t *at = bytes;
	uint64_t key = t->seed[1] | 1;
	uint64_t h = mix(t->seed[0] ^ start, key) ^ n;
	for (uint64_t word; n >= 8; at += 8, n -= 8) {
		memcpy(&word, at, 8);
		h = mix(h ^ word, key);
	}
	uint64_t rest = 0;
	memcpy(&rest, at, n);
	return mix(mix(h ^ rest, key), 0x9e3779b97f4a7c15);
}

uint32_t layer_tree_inode(struct layer_tree *t, uint16_t mode, struct husk_error *err)
{
	if (t->inodes.used >= t->max_entries + 1024 /* roots, whiteout */) {
		error_set(err, -E2BIG, "more than %llu entries", (unsigned long long)t->max_entries);
		return LAYER_NONE;
	}
	uint32_t index = layer_pool_add(&t->inodes);
	if (index == LAYER_NONE) {
		no_memory(err);
		return LAYER_NONE;
	}
	struct layer_inode *i = layer_inode(t, index);
	i->mode = mode;
	i->xattr = LAYER_NONE;
	if (layer_is(i, S_IFDIR)) {
		i->dir.first_child = LAYER_NONE;
		i->dir.dentry = LAYER_NONE;
	} else if (layer_is(i, S_IFREG)) {
		i->file.fragment = LAYER_NONE;
	}
	return index;
}

uint32_t layer_tree_root(struct layer_tree *t, struct husk_error *err)
{
	uint32_t root = layer_tree_inode(t, S_IFDIR | 0755, err);
	const struct layer_attributes a = {.mode = S_IFDIR | 0755, .xattr = LAYER_NONE};
	if (root == LAYER_NONE || layer_tree_attributes(t, root, &a, err) < 0)
		return LAYER_NONE;
	layer_inode(t, root)->flags |= LAYER_IMPLIED;
	return root;
}

uint32_t layer_tree_whiteout(struct layer_tree *t, struct husk_error *err)
{
	const struct layer_attributes a = {.mode = S_IFCHR, .xattr = LAYER_NONE};
	if (t->whiteout != LAYER_NONE)
		return t->whiteout;
	uint32_t index = layer_tree_inode(t, S_IFCHR, err);
	if (index == LAYER_NONE || layer_tree_attributes(t, index, &a, err) < 0)
		return LAYER_NONE;
	return t->whiteout = index;
}

uint32_t layer_tree_text(struct layer_tree *t, const char *text, size_t n, struct husk_error *err)
{
	struct layer_arena *a = &t->text;
	size_t need = n + 3;
	if (a->n_pages == 0 || a->fill + need > TEXT_PAGE) {
		/* Names fit whatever they are; what does not is millions of long link targets. */
		uint64_t bound = TEXT_FREE + (uint64_t)t->inodes.used * (LAYER_NAME_MAX + 17);
		if (a->n_pages == TEXT_PAGES_MAX || (uint64_t)a->n_pages * TEXT_PAGE > bound) {
			error_set(err, -E2BIG, "too many bytes of names and link targets");
			return LAYER_NONE;
		}
		uint8_t **pages = realloc(a->pages, (a->n_pages + 1) * sizeof(*pages));
		if (pages)
			a->pages = pages;
		uint8_t *page = pages ? malloc(TEXT_PAGE) : NULL;
		if (!page) {
			no_memory(err);
			return LAYER_NONE;
		}
		a->pages[a->n_pages++] = page;
		a->fill = 0;
	}
	uint8_t *at = a->pages[a->n_pages - 1] + a->fill;
	at[0] = (uint8_t)n;
	at[1] = (uint8_t)(n >> 8);
	memcpy(at + 2, text, n);
	at[2 + n] = 0;
	uint32_t index = (a->n_pages - 1) * TEXT_PAGE + a->fill;
	a->fill += (uint32_t)need;
	return index;
}

const char *layer_tree_text_at(const struct layer_tree *t, uint32_t text, size_t *n)
{
	const uint8_t *at = t->text.pages[text / TEXT_PAGE] + text % TEXT_PAGE;
	if (n)
		*n = at[0] | (size_t)at[1] << 8;
	return (const char *)at + 2;
}

static uint32_t *head_of(const struct layer_tree *t, uint32_t dir, const char *name, size_t n)
{
	return &t->heads[hash_bytes(t, dir, name, n) & (t->n_heads - 1)];
}

static uint32_t *head_of_dentry(const struct layer_tree *t, const struct layer_dentry *d)
{
	size_t n;
	const char *name = layer_tree_text_at(t, d->name, &n);
	return head_of(t, d->parent, name, n);
}

uint32_t layer_tree_lookup(const struct layer_tree *t, uint32_t dir, const char *name, size_t n)
{
	for (uint32_t at = *head_of(t, dir, name, n); at != LAYER_NONE; at = layer_dentry(t, at)->hash_next) {
		const struct layer_dentry *d = layer_dentry(t, at);
		size_t have_n;
		if (d->parent != dir)
			continue;
		const char *have = layer_tree_text_at(t, d->name, &have_n);
		if (have_n == n && memcmp(have, name, n) == 0)
			return at;
	}
	return LAYER_NONE;
}

void layer_tree_unhash(struct layer_tree *t, uint32_t dentry)
{
	struct layer_dentry *d = layer_dentry(t, dentry);
	uint32_t *at = head_of_dentry(t, d);
	while (*at != dentry)
		at = &layer_dentry(t, *at)->hash_next;
	*at = d->hash_next;
}

static void hash_in(struct layer_tree *t, uint32_t dentry)
{
	struct layer_dentry *d = layer_dentry(t, dentry);
	uint32_t *head = head_of_dentry(t, d);
	d->hash_next = *head;
	*head = dentry;
}

/* Twice the heads. Dentries that are in no chain (unlinked) stay out. */
static bool grow_heads(struct layer_tree *t)
{
	uint32_t old_n = t->n_heads;
	uint32_t *old = t->heads;
	uint32_t *heads = malloc(2 * (size_t)old_n * sizeof(*heads));
	if (!heads)
		return false;
	memset(heads, 0xff, 2 * (size_t)old_n * sizeof(*heads));
	t->heads = heads;
	t->n_heads = 2 * old_n;
	for (uint32_t i = 0; i < old_n; i++) {
		for (uint32_t at = old[i], next; at != LAYER_NONE; at = next) {
			next = layer_dentry(t, at)->hash_next;
			hash_in(t, at);
		}
	}
	free(old);
	return true;
}

void layer_tree_rehash(struct layer_tree *t, uint32_t dentry, uint32_t dir)
{
	struct layer_dentry *d = layer_dentry(t, dentry);
	struct layer_inode *parent = layer_inode(t, dir);
	d->parent = dir;
	d->sibling = parent->dir.first_child;
	parent->dir.first_child = dentry;
	hash_in(t, dentry);
	struct layer_inode *i = layer_inode(t, d->inode);
	if (layer_is(i, S_IFDIR)) {
		i->dir.dentry = dentry;
		i->dir.depth = parent->dir.depth + 1;
	}
}

uint32_t layer_tree_link(
	struct layer_tree *t, uint32_t dir, const char *name, size_t n, uint32_t inode, struct husk_error *err)
{
	if (t->dentries.used >= t->max_entries) {
		error_set(err, -E2BIG, "more than %llu entries", (unsigned long long)t->max_entries);
		return LAYER_NONE;
	}
	if (layer_inode(t, dir)->dir.depth >= LAYER_DEPTH_MAX) {
		error_set(err, -ENAMETOOLONG, "directories nested more than %d deep", LAYER_DEPTH_MAX);
		return LAYER_NONE;
	}
	uint32_t text = layer_tree_text(t, name, n, err);
	if (text == LAYER_NONE)
		return LAYER_NONE;
	uint32_t index = layer_pool_add(&t->dentries);
	if (index == LAYER_NONE || (t->dentries.used > t->n_heads && !grow_heads(t))) {
		no_memory(err);
		return LAYER_NONE;
	}
	struct layer_dentry *d = layer_dentry(t, index);
	d->name = text;
	d->inode = inode;
	layer_tree_rehash(t, index, dir);
	return index;
}

uint32_t layer_tree_parent(const struct layer_tree *t, uint32_t dir)
{
	uint32_t own = layer_inode(t, dir)->dir.dentry;
	return own == LAYER_NONE ? dir : layer_dentry(t, own)->parent;
}

static int id_index(struct layer_tree *t, int64_t id, uint16_t *index, struct husk_error *err)
{
	if (id < 0 || id >= UINT32_MAX)
		return error_set(err, -EINVAL, "owner %lld is out of range", (long long)id);
	uint32_t value = (uint32_t)id;
	size_t at = hash_bytes(t, 0, &value, sizeof(value)) & (ID_TABLE - 1);
	for (; t->id_table[at]; at = (at + 1) & (ID_TABLE - 1)) {
		if (t->ids[t->id_table[at] - 1] == value) {
			*index = (uint16_t)(t->id_table[at] - 1);
			return 0;
		}
	}
	if (t->n_ids == LAYER_IDS_MAX)
		return error_set(err, -E2BIG, "more than %d different owners", LAYER_IDS_MAX);
	t->ids[t->n_ids] = value;
	*index = (uint16_t)t->n_ids;
	t->id_table[at] = ++t->n_ids;
	return 0;
}

int layer_tree_attributes(
	struct layer_tree *t, uint32_t inode, const struct layer_attributes *a, struct husk_error *err)
{
	struct layer_inode *i = layer_inode(t, inode);
	int r = id_index(t, a->uid, &i->uid, err);
	if (r == 0)
		r = id_index(t, a->gid, &i->gid, err);
	if (r < 0)
		return r;
	i->mode = a->mode;
	/* squashfs counts unsigned seconds in 32 bits. */
	i->mtime = a->mtime < 0 ? 0 : a->mtime > UINT32_MAX ? UINT32_MAX : (uint32_t)a->mtime;
	i->xattr = a->xattr;
	return 0;
}

/* Extended attributes, in the layout of squashfs: u16 prefix, u16 length of the rest of the name, that rest, u32 length
 * of the value, the value (Linux, fs/squashfs/squashfs_fs.h). */

static const char *const xattr_prefixes[] = {"user.", "trusted.", "security."};

static int by_name(const void *a, const void *b)
{
	const struct layer_xattr *x = a, *y = b;
	return strcmp(x->name, y->name);
}

static size_t put_xattr(uint8_t *at, const struct layer_xattr *x)
{
	uint16_t prefix = 0;
	while (strncmp(x->name, xattr_prefixes[prefix], strlen(xattr_prefixes[prefix])) != 0)
		prefix++;
	const char *rest = x->name + strlen(xattr_prefixes[prefix]);
	size_t n = strlen(rest);
	if (at) {
		const uint8_t head[4] = {(uint8_t)prefix, 0, (uint8_t)n, (uint8_t)(n >> 8)};
		const uint8_t size[4] = {
			(uint8_t)x->size, (uint8_t)(x->size >> 8), (uint8_t)(x->size >> 16), (uint8_t)(x->size >> 24)};
		memcpy(at, head, 4);
		memcpy(at + 4, rest, n);
		memcpy(at + 4 + n, size, 4);
		memcpy(at + 8 + n, x->value, x->size);
	}
	return 8 + n + x->size;
}

static bool grow_xattrs(struct layer_tree *t)
{
	uint32_t size = t->xattr_table_size * 2;
	uint32_t *table = calloc(size, sizeof(*table));
	struct layer_xattrs **sets = realloc(t->xattrs, size / 2 * sizeof(struct layer_xattrs *));
	if (sets)
		t->xattrs = sets;
	if (!table || !sets) {
		free(table);
		return false;
	}
	for (uint32_t i = 0; i < t->n_xattrs; i++) {
		uint64_t at = t->xattrs[i]->hash & (size - 1);
		while (table[at])
			at = (at + 1) & (size - 1);
		table[at] = i + 1;
	}
	free(t->xattr_table);
	t->xattr_table = table;
	t->xattr_table_size = size;
	return true;
}

/* Keep @set, or free it and find the one that is there already. */
static int keep_xattrs(struct layer_tree *t, struct layer_xattrs *set, uint32_t *index, struct husk_error *err)
{
	CLEANUP_FREE struct layer_xattrs *owned = set;
	set->hash = hash_bytes(t, set->count, set->bytes, set->size);
	if ((!t->xattrs || 2 * (t->n_xattrs + 1) > t->xattr_table_size) && !grow_xattrs(t))
		return no_memory(err);
	uint64_t at = set->hash & (t->xattr_table_size - 1);
	for (; t->xattr_table[at]; at = (at + 1) & (t->xattr_table_size - 1)) {
		const struct layer_xattrs *have = t->xattrs[t->xattr_table[at] - 1];
		if (have->hash == set->hash && have->size == set->size && have->count == set->count &&
			memcmp(have->bytes, set->bytes, set->size) == 0) {
			*index = t->xattr_table[at] - 1;
			return 0;
		}
	}
	t->xattr_bytes += sizeof(*set) + set->size;
	if (t->xattr_bytes > XATTR_FREE + (uint64_t)t->inodes.used * 100)
		return error_set(err, -E2BIG, "too many bytes of extended attributes");
	*index = t->n_xattrs;
	t->xattrs[t->n_xattrs] = steal_pointer(&owned);
	t->xattr_table[at] = ++t->n_xattrs;
	return 0;
}

int layer_tree_xattrs(struct layer_tree *t, struct layer_xattr *x, size_t n, uint32_t *index, struct husk_error *err)
{
	*index = LAYER_NONE;
	if (n == 0)
		return 0;
	qsort(x, n, sizeof(*x), by_name);
	/* bsdtar writes every attribute twice, in two encodings. */
	size_t unique = 1;
	for (size_t i = 1; i < n; i++) {
		if (strcmp(x[i].name, x[unique - 1].name) != 0)
			x[unique++] = x[i];
	}
	n = unique;
	size_t size = 0;
	for (size_t i = 0; i < n; i++)
		size += put_xattr(NULL, &x[i]);
	if (size > LAYER_XATTRS_MAX)
		return error_set(err, -E2BIG, "more than %d bytes of extended attributes", LAYER_XATTRS_MAX);
	struct layer_xattrs *set = malloc(sizeof(*set) + size);
	if (!set)
		return no_memory(err);
	*set = (struct layer_xattrs){.count = (uint32_t)n, .size = (uint32_t)size};
	size = 0;
	for (size_t i = 0; i < n; i++)
		size += put_xattr(set->bytes + size, &x[i]);
	return keep_xattrs(t, set, index, err);
}

uint32_t layer_tree_xattrs_opaque(struct layer_tree *t, uint32_t index, struct husk_error *err)
{
	const struct layer_xattr opaque = {.name = "trusted.overlay.opaque", .value = "y", .size = 1};
	const struct layer_xattrs *old = index == LAYER_NONE ? NULL : t->xattrs[index];
	size_t old_size = old ? old->size : 0, more = put_xattr(NULL, &opaque);
	struct layer_xattrs *set = malloc(sizeof(*set) + old_size + more);
	uint32_t out;
	if (!set) {
		no_memory(err);
		return LAYER_NONE;
	}
	*set = (struct layer_xattrs){.count = old ? old->count + 1 : 1, .size = (uint32_t)(old_size + more)};
	if (old)
		memcpy(set->bytes, old->bytes, old_size);
	put_xattr(set->bytes + old_size, &opaque);
	return keep_xattrs(t, set, &out, err) < 0 ? LAYER_NONE : out;
}
