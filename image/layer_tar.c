/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_tar.c - one layer's tar into a tree, its contents into the image
 *
 * Theory of operation: libarchive reads the tar (and only tar: no other format or filter is enabled) from the stream's
 * buffers, without copying. Each entry becomes an inode at a place in the tree; contents go straight to the image. Names
 * are bytes: the thread's locale is "C" while libarchive works, so that it converts nothing.
 *
 * The names that OCI gives a meaning (image-spec, layer.md): ".wh.NAME" hides NAME of the layers below, ".wh..wh..opq"
 * hides all that is below in its directory, other ".wh..wh." names are leftovers of aufs and ignored. What is an
 * instruction to overlayfs (trusted.overlay.*, user.overlay.*) is never taken over from a tar. A character device 0/0 in
 * the tar is a whiteout to overlayfs, wherever it comes from.
 *
 * A hard link to a name that this layer does not have (yet: the layer's order counts, as it does when it is unpacked)
 * becomes a pending inode.
 */
#include "image/layer_tar.h"

#include "base/cleanup.h"

#include <archive.h>
#include <archive_entry.h>
#include <locale.h>
#include <string.h>

#define WHITEOUT ".wh."
#define AUFS ".wh..wh."
#define OPAQUE ".wh..wh..opq"
#define XATTRS_MAX 1024 /* of one entry */

/** One tar being read. */
struct reader {
	struct layer_tar *tar;
	struct layer_tree *t;
	struct layer_stream *stream;
	struct archive *archive;
	const char *name;
	bool stream_failed;
	struct husk_error *err;
};

bool layer_xattr_wanted(const char *name, bool *acl)
{
	if (strncmp(name, "system.", 7) == 0) {
		*acl = true;
		return false;
	}
	if (strncmp(name, "trusted.overlay.", 16) == 0 || strncmp(name, "user.overlay.", 13) == 0)
		return false;
	return (strncmp(name, "user.", 5) == 0 && name[5]) || (strncmp(name, "trusted.", 8) == 0 && name[8]) ||
	       (strncmp(name, "security.", 9) == 0 && name[9]);
}

int layer_device(uint64_t major, uint64_t minor, uint32_t *device, struct husk_error *err)
{
	if (major >= 1 << 12 || minor >= 1 << 20)
		return error_set(err, -EINVAL, "device number %llu:%llu is out of range", (unsigned long long)major,
			(unsigned long long)minor);
	*device = (uint32_t)((minor & 0xff) | major << 8 | (minor & ~UINT64_C(0xff)) << 12);
	return 0;
}

static la_ssize_t on_read(struct archive *a, void *data, const void **buffer)
{
	struct reader *r = data;
	size_t n;
	if (layer_stream_read(r->stream, buffer, &n, r->err) < 0) {
		r->stream_failed = true;
		archive_set_error(a, EIO, "input failed");
		return ARCHIVE_FATAL;
	}
	return (la_ssize_t)n;
}

static int archive_failed(struct reader *r)
{
	if (r->stream_failed)
		return r->err ? r->err->code : -EIO;
	const char *why = archive_error_string(r->archive);
	int code = archive_errno(r->archive) == ENOMEM ? -ENOMEM : -EINVAL;
	return error_set(r->err, code, "read tar: %s", why ? why : "malformed");
}

static int read_xattrs(struct reader *r, struct archive_entry *e, uint32_t *index, bool *acl)
{
	struct layer_xattr list[XATTRS_MAX];
	size_t n = 0;
	const char *name;
	const void *value;
	size_t size;
	archive_entry_xattr_reset(e);
	while (archive_entry_xattr_next(e, &name, &value, &size) == ARCHIVE_OK) {
		if (!name || !layer_xattr_wanted(name, acl))
			continue;
		if (n == XATTRS_MAX)
			return error_set(r->err, -E2BIG, "more than %d extended attributes", XATTRS_MAX);
		if (strlen(name) > LAYER_NAME_MAX || size > LAYER_XATTR_MAX)
			return error_set(r->err, -E2BIG, "extended attribute %.32s… is too large", name);
		list[n++] = (struct layer_xattr){.name = name, .value = value ? value : "", .size = value ? size : 0};
	}
	return layer_tree_xattrs(r->t, list, n, index, r->err);
}

static int read_attributes(struct reader *r, struct archive_entry *e, struct layer_attributes *a)
{
	bool acl = archive_entry_acl_count(e, ARCHIVE_ENTRY_ACL_TYPE_POSIX1E | ARCHIVE_ENTRY_ACL_TYPE_NFS4) > 0;
	*a = (struct layer_attributes){
		.mode = (uint16_t)((archive_entry_filetype(e) & S_IFMT) | (archive_entry_perm(e) & 07777)),
		.uid = archive_entry_uid(e),
		.gid = archive_entry_gid(e),
		.mtime = archive_entry_mtime(e),
	};
	int result = read_xattrs(r, e, &a->xattr, &acl);
	r->tar->dropped_acls += acl;
	return result;
}

/* The contents of the file @inode. Sparse ones come in pieces with holes between. */
static int read_contents(struct reader *r, struct archive_entry *e, uint32_t inode)
{
	struct layer_data *d = r->tar->data;
	uint64_t at = 0, size = (uint64_t)archive_entry_size(e);
	const void *bytes;
	size_t n;
	la_int64_t offset;
	int status;
	layer_data_begin(d, inode);
	while ((status = archive_read_data_block(r->archive, &bytes, &n, &offset)) == ARCHIVE_OK ||
		status == ARCHIVE_WARN) {
		if (offset < 0 || (uint64_t)offset < at || (uint64_t)offset > size || n > size - (uint64_t)offset)
			return error_set(r->err, -EINVAL, "sparse map out of order");
		int result = 0;
		if ((uint64_t)offset > at)
			result = layer_data_hole(d, (uint64_t)offset - at, r->err);
		if (result == 0)
			result = layer_data_bytes(d, bytes, n, r->err);
		if (result < 0)
			return result;
		at = (uint64_t)offset + n;
	}
	if (status != ARCHIVE_EOF)
		return archive_failed(r);
	int result = at < size ? layer_data_hole(d, size - at, r->err) : 0;
	return result < 0 ? result : layer_data_end(d, r->err);
}

static int enter_file(struct reader *r, struct archive_entry *e, const struct layer_place *place, uint32_t inode)
{
	int result = layer_path_put(r->t, place, inode, r->err);
	if (result < 0)
		return result;
	if (archive_entry_size(e) < 0)
		return error_set(r->err, -EINVAL, "negative size");
	if (archive_entry_size(e) > 0 && r->tar->hidden && r->tar->hidden(r->tar->hidden_data, place)) {
		layer_inode(r->t, inode)->flags |= LAYER_SKIPPED;
		return 0;
	}
	return read_contents(r, e, inode);
}

static int enter_symlink(struct reader *r, struct archive_entry *e, const struct layer_place *place, uint32_t inode)
{
	const char *target = archive_entry_symlink(e);
	if (!target || !*target)
		return error_set(r->err, -EINVAL, "symbolic link without a target");
	if (strlen(target) >= LAYER_PATH_MAX)
		return error_set(r->err, -ENAMETOOLONG, "target longer than %d bytes", LAYER_PATH_MAX - 1);
	uint32_t text = layer_tree_text(r->t, target, strlen(target), r->err);
	if (text == LAYER_NONE)
		return -ENOMEM;
	layer_inode(r->t, inode)->symlink.target = text;
	layer_inode(r->t, inode)->mode |= 0777; /* Linux knows no other */
	return layer_path_put(r->t, place, inode, r->err);
}

static int enter_device(struct reader *r, struct archive_entry *e, const struct layer_place *place, uint32_t inode)
{
	uint32_t device;
	int result = layer_device(
		(uint64_t)archive_entry_rdevmajor(e), (uint64_t)archive_entry_rdevminor(e), &device, r->err);
	if (result < 0)
		return result;
	struct layer_inode *i = layer_inode(r->t, inode);
	if (layer_is(i, S_IFCHR) && device == 0)
		return layer_path_whiteout(r->t, place, r->err);
	i->device = device;
	return layer_path_put(r->t, place, inode, r->err);
}

static int enter_other(
	struct reader *r, struct archive_entry *e, const struct layer_place *place, const struct layer_attributes *a)
{
	uint32_t inode = layer_tree_inode(r->t, a->mode, r->err);
	if (inode == LAYER_NONE)
		return -ENOMEM;
	int result = layer_tree_attributes(r->t, inode, a, r->err);
	if (result < 0)
		return result;
	switch (a->mode & S_IFMT) {
	case S_IFREG:
		return enter_file(r, e, place, inode);
	case S_IFLNK:
		return enter_symlink(r, e, place, inode);
	case S_IFCHR:
	case S_IFBLK:
		return enter_device(r, e, place, inode);
	case S_IFIFO:
		return layer_path_put(r->t, place, inode, r->err);
	default:
		return error_set(r->err, -EINVAL, "unknown type of entry");
	}
}

static int enter_pending(struct reader *r, const char *target, const struct layer_place *place)
{
	uint32_t inode = layer_tree_inode(r->t, LAYER_PENDING, r->err);
	uint32_t text = inode == LAYER_NONE ? LAYER_NONE : layer_tree_text(r->t, target, strlen(target), r->err);
	if (text == LAYER_NONE)
		return -ENOMEM;
	layer_inode(r->t, inode)->pending.target = text;
	layer_inode(r->t, inode)->pending.inode = LAYER_NONE;
	return layer_path_put(r->t, place, inode, r->err);
}

static int enter_hardlink(struct reader *r, const char *target, const struct layer_place *place)
{
	struct layer_place there;
	struct husk_error ignored;
	int result = layer_path_check(target, "hard link target", r->err);
	if (result < 0)
		return result;
	result = layer_path_walk(r->t, r->tar->root, target, false, &there, &ignored);
	if (result < 0)
		return enter_pending(r, target, place);
	uint32_t found = there.n ? layer_tree_lookup(r->t, there.dir, there.name, there.n) : LAYER_NONE;
	uint32_t inode = found == LAYER_NONE ? LAYER_NONE : layer_dentry(r->t, found)->inode;
	if (there.n == 0 || (inode != LAYER_NONE && layer_is(layer_inode(r->t, inode), S_IFDIR)))
		return error_set(r->err, -EINVAL, "hard link to the directory \"%.300s\"", target);
	if (inode == LAYER_NONE || layer_is_whiteout(layer_inode(r->t, inode)))
		return enter_pending(r, target, place);
	return layer_path_put(r->t, place, inode, r->err);
}

static int enter_whiteout(struct reader *r, struct layer_place *place)
{
	size_t n = strlen(WHITEOUT);
	if (strcmp(place->name, OPAQUE) == 0) {
		struct layer_inode *dir = layer_inode(r->t, place->dir);
		dir->flags |= LAYER_OPAQUE;
		return 0;
	}
	memmove(place->name, place->name + n, place->n - n + 1);
	place->n -= n;
	if (place->n == 0 || strcmp(place->name, ".") == 0 || strcmp(place->name, "..") == 0)
		return error_set(r->err, -EINVAL, "whiteout of \"%s\"", place->name);
	return layer_path_whiteout(r->t, place, r->err);
}

/* A component with a prefix that OCI reserves, but the last: leftovers of aufs are ignored (1), others refused. */
static int check_reserved(struct reader *r, const char *path)
{
	for (const char *at = path; at; at = strchr(at, '/')) {
		at += strspn(at, "/");
		bool last = !strchr(at, '/');
		if (strncmp(at, AUFS, strlen(AUFS)) == 0 && !(last && strcmp(at, OPAQUE) == 0))
			return 1;
		if (!last && strncmp(at, WHITEOUT, strlen(WHITEOUT)) == 0 && at[strcspn(at, "/") + 1])
			return error_set(r->err, -EINVAL, "goes through a whiteout");
	}
	return 0;
}

static int enter_entry(struct reader *r, struct archive_entry *e, const char *path)
{
	struct layer_place place;
	struct layer_attributes a;
	int result = check_reserved(r, path);
	if (result != 0)
		return result < 0 ? result : 0;
	result = layer_path_walk(r->t, r->tar->root, path, true, &place, r->err);
	if (result < 0)
		return result;
	if (strncmp(place.name, WHITEOUT, strlen(WHITEOUT)) == 0)
		return enter_whiteout(r, &place);
	const char *hardlink = archive_entry_hardlink(e);
	if (hardlink)
		return enter_hardlink(r, hardlink, &place);
	result = read_attributes(r, e, &a);
	if (result < 0)
		return result;
	if ((a.mode & S_IFMT) != S_IFDIR)
		return enter_other(r, e, &place, &a);
	uint32_t inode;
	result = layer_path_directory(r->t, &place, false, &inode, r->err);
	return result < 0 ? result : layer_tree_attributes(r->t, inode, &a, r->err);
}

static int read_entries(struct reader *r)
{
	for (;;) {
		struct archive_entry *e;
		int status = archive_read_next_header(r->archive, &e);
		if (status == ARCHIVE_EOF)
			return 0;
		if (status != ARCHIVE_OK && status != ARCHIVE_WARN)
			return archive_failed(r);
		const char *path = archive_entry_pathname(e);
		int result = layer_path_check(path, "entry", r->err);
		if (result < 0)
			return result;
		result = enter_entry(r, e, path);
		if (result < 0)
			return r->stream_failed ? result : error_prefix(r->err, result, "\"%.300s\"", path);
		r->tar->entries++;
	}
}

static int read_tar(struct reader *r)
{
	r->archive = archive_read_new();
	if (!r->archive)
		return error_set(r->err, -ENOMEM, "layer %s: out of memory", r->name);
	archive_read_support_format_tar(r->archive);
	archive_read_support_filter_none(r->archive);
	int result = 0;
	if (archive_read_open(r->archive, r, NULL, on_read, NULL) != ARCHIVE_OK)
		result = archive_failed(r);
	if (result == 0)
		result = read_entries(r);
	archive_read_free(r->archive);
	/* The stream's own errors name the layer already. */
	return result < 0 && !r->stream_failed ? error_prefix(r->err, result, "layer %s", r->name) : result;
}

int layer_tar_read(struct layer_tar *tar, struct layer_stream *stream, const char *name, struct husk_error *err)
{
	struct husk_error own = {0};
	struct reader r = {.tar = tar, .t = tar->tree, .stream = stream, .name = name, .err = err ? err : &own};
	locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	locale_t before = c ? uselocale(c) : (locale_t)0;
	int result = read_tar(&r);
	if (c) {
		uselocale(before);
		freelocale(c);
	}
	return result;
}

bool layer_tree_needs_lower(const struct layer_tree *t, uint32_t root)
{
	if (layer_inode(t, root)->flags & LAYER_OPAQUE)
		return true;
	for (uint32_t at = 0; at < t->dentries.used; at++) {
		struct layer_dentry *d = layer_dentry(t, at);
		if (d->inode == LAYER_NONE)
			continue;
		const struct layer_inode *i = layer_inode(t, d->inode);
		if (i->mode == LAYER_PENDING || i->flags & LAYER_IMPLIED)
			return true;
	}
	return false;
}
