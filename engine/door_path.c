/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door_path.c - bind a unix socket where nobody can come too early and nothing is taken over
 *
 * Theory of operation: the socket is bound under a short name in a fresh directory of mode 0700 beside its target, gets its
 * mode and begins to listen there, and only then is linked to where it belongs (a hard-linked socket accepts connections). So
 * nobody connects before the mode is right, and nobody takes it for a stale one. link(2) never replaces anything: what is at
 * the target already is asked by connect(2), and removed when nobody listens on it. Asking and removing is one at a time for
 * each path, or the slower of two processes that find the same stale socket would remove what the faster one has put in its
 * place. The lock is an abstract socket with the path as its name: it cannot be left behind, and who does not get it has lost
 * to who did.
 */
#include "engine/door.h"

#include "base/cleanup.h"
#include "base/door.h"
#include "base/path.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define LINK_ATTEMPTS 16

int door_listen_in(int at, const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", at, name);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	if (fchmodat(at, name, 0600, 0) < 0 || listen(fd, DOOR_BACKLOG) < 0) {
		int rc = -errno;
		unlinkat(at, name, 0);
		return rc;
	}
	return steal_fd(&fd);
}

/** Where a socket is bound and listens before it appears: a directory beside its target. */
struct nest {
	char *path;
	int fd;
};

static char *nest_path(const char *directory, const char *name)
{
	return path_format("%s/.husk-%s", strcmp(directory, "/") == 0 ? "" : directory, name);
}

static void nest_free(struct nest *n)
{
	if (n->fd >= 0) {
		unlinkat(n->fd, "new", 0);
		close(n->fd);
		rmdir(n->path);
	}
	free(n->path);
}

/** The owner of @directory can put another one in its place between making and opening, and then what is bound in it is
 *  theirs to replace by a link: nothing is done in a directory that somebody else can write to. */
static bool is_ours(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 && st.st_uid == geteuid() && (st.st_mode & 077) == 0;
}

/** Make the directory @n->path; its name is random where it ends with XXXXXX. */
static int nest_make(struct nest *n, const char *directory, const char *id)
{
	n->path = nest_path(directory, id ? id : "XXXXXX");
	if (!n->path)
		return -ENOMEM;
	if (id ? mkdir(n->path, 0700) < 0 : !mkdtemp(n->path))
		return -errno;
	n->fd = open(n->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (n->fd >= 0 && is_ours(n->fd))
		return 0;
	int rc = n->fd >= 0 ? -EPERM : -errno;
	cleanup_fd(&n->fd);
	n->fd = -1;
	rmdir(n->path);
	return rc;
}

void door_clear_nest(const char *endpoint, const char *id)
{
	CLEANUP_FREE char *copy = strdup(endpoint);
	struct nest n = {.path = copy ? nest_path(dirname(copy), id) : NULL, .fd = -1};
	n.fd = n.path ? open(n.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
	nest_free(&n);
}

/** Give the socket in the nest its place; -EEXIST when something is there. Where there are no hard links a rename does as
 *  well, as long as it does not replace. */
static int place(const struct nest *n, const char *target)
{
	if (linkat(n->fd, "new", AT_FDCWD, target, 0) == 0)
		return 0;
	if (errno != EPERM && errno != EOPNOTSUPP && errno != EMLINK)
		return -errno;
	return renameat2(n->fd, "new", AT_FDCWD, target, RENAME_NOREPLACE) == 0 ? 0 : -errno;
}

/** The right to remove what is at @target; -EADDRINUSE while another process has it. */
static int lock_target(const char *target)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t n = strlen(target); /* at most DOOR_PATH_MAX, so it fits behind the NUL of an abstract name. unix(7) */
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	memcpy(address.sun_path + 1, target, n);
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
	return fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 ? -errno : steal_fd(&fd);
}

/** Something is at @target: 0 when it was stale and is gone, -EADDRINUSE when it lives, -ENOTSOCK when it is no socket. */
static int clear(const char *target)
{
	struct stat st;
	CLEANUP_FD int lock = lock_target(target);
	if (lock < 0)
		return lock;
	if (lstat(target, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	int rc = door_path_probe(target);
	if (rc != -ECONNREFUSED)
		return rc == 0 ? -EADDRINUSE : rc == -ENOENT ? 0 : rc;
	return unlink(target) < 0 && errno != ENOENT ? -errno : 0;
}

static int settle(const struct nest *n, const char *target)
{
	for (int i = 0; i < LINK_ATTEMPTS; i++) {
		int rc = place(n, target);
		if (rc != -EEXIST)
			return rc;
		rc = clear(target);
		if (rc < 0)
			return rc;
	}
	return -EADDRINUSE;
}

/** The absolute path of @path with its directory resolved; *@directory (malloc'ed) is that directory. */
static int resolve(const char *path, char **directory, char endpoint[VM_ENDPOINT_MAX])
{
	CLEANUP_FREE char *copy = strdup(path);
	CLEANUP_FREE char *again = strdup(path);
	if (!copy || !again)
		return -ENOMEM;
	const char *name = basename(again);
	size_t length = strlen(path);
	if (!length || path[length - 1] == '/' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EISDIR;
	*directory = realpath(dirname(copy), NULL);
	if (!*directory)
		return -errno;
	const char *slash = strcmp(*directory, "/") == 0 ? "" : "/";
	int n = snprintf(endpoint, VM_ENDPOINT_MAX, "%s%s%s", *directory, slash, name);
	return n > DOOR_PATH_MAX ? -ENAMETOOLONG : 0;
}

static int note(const struct door_nest *how, const struct vm_door *door)
{
	return how->note ? how->note(how->data, door) : 0;
}

int door_bind_path(const char *path, const struct door_nest *how, struct vm_door *door)
{
	CLEANUP_FREE char *directory = NULL;
	CLEANUP(nest_free) struct nest nest = {.fd = -1};
	struct stat st;
	int rc = resolve(path, &directory, door->endpoint);
	rc = rc < 0 ? rc : note(how, door);
	rc = rc < 0 ? rc : nest_make(&nest, directory, how->id);
	CLEANUP_FD int fd = rc < 0 ? rc : door_listen_in(nest.fd, "new");
	if (fd < 0)
		return fd;
	if (fstatat(nest.fd, "new", &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	door->device = st.st_dev;
	door->inode = st.st_ino;
	rc = note(how, door);
	rc = rc < 0 ? rc : settle(&nest, door->endpoint);
	return rc < 0 ? rc : steal_fd(&fd);
}
