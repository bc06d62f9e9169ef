/* SPDX-License-Identifier: Apache-2.0 */
/* entry.c - a thing of a tree as its sender sees it (entry.h) */
#include "agent/entry.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/** The first name of a thing that has several. */
struct known {
	dev_t device;
	ino_t inode;
	char name[];
};

static enum agent_entry_type type_of(mode_t mode)
{
	static const enum agent_entry_type types[16] = {
		[S_IFREG >> 12] = AGENT_FILE,
		[S_IFDIR >> 12] = AGENT_DIRECTORY,
		[S_IFLNK >> 12] = AGENT_SYMLINK,
		[S_IFIFO >> 12] = AGENT_FIFO,
		[S_IFCHR >> 12] = AGENT_CHARACTER,
		[S_IFBLK >> 12] = AGENT_BLOCK,
		[S_IFSOCK >> 12] = AGENT_SOCKET,
	};
	return types[(mode & S_IFMT) >> 12];
}

static int64_t nanoseconds(const struct timespec *t)
{
	int64_t ns;
	if (__builtin_mul_overflow((int64_t)t->tv_sec, 1000000000, &ns) ||
		__builtin_add_overflow(ns, (int64_t)t->tv_nsec, &ns))
		return t->tv_sec < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

void agent_entry_describe(struct agent_entry *e, const struct stat *st)
{
	e->link[0] = 0;
	e->type = type_of(st->st_mode);
	e->mode = st->st_mode & 07777;
	e->uid = st->st_uid;
	e->gid = st->st_gid;
	e->mtime_ns = nanoseconds(&st->st_mtim);
	e->size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
	e->device = S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)
			    ? (uint64_t)major(st->st_rdev) << 32 | minor(st->st_rdev)
			    : 0;
}

static int compare_known(const void *a, const void *b)
{
	const struct known *x = a, *y = b;
	if (x->device != y->device)
		return x->device < y->device ? -1 : 1;
	return x->inode == y->inode ? 0 : x->inode < y->inode ? -1 : 1;
}

int agent_links_meet(struct agent_links *links, struct agent_entry *e, const struct stat *st)
{
	size_t size = strlen(e->name) + 1;
	if (st->st_nlink < 2 || S_ISDIR(st->st_mode) || size == 1)
		return 0;
	struct known *one = malloc(sizeof(*one) + size);
	if (!one)
		return -ENOMEM;
	one->device = st->st_dev;
	one->inode = st->st_ino;
	memcpy(one->name, e->name, size);
	struct known **found = tsearch(one, &links->known, compare_known);
	if (found && *found == one)
		return 0;
	free(one);
	if (!found)
		return -ENOMEM;
	e->type = AGENT_HARDLINK;
	e->size = e->device = 0;
	memcpy(e->link, (*found)->name, strlen((*found)->name) + 1);
	return 1;
}

void agent_links_free(struct agent_links *links)
{
	tdestroy(links->known, free);
	links->known = NULL;
}
