/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door.c - the path of a door's unix socket, and its end
 *
 * Theory of operation: between looking at a path and removing it somebody else may put another file there; no system call
 * removes a name only while it names a given inode. The window is left as small as it can be, and the owner of a door removes
 * its path while the socket is still open, so that its inode number cannot be another file's.
 */
#include "base/door.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

bool door_path_remove(const struct vm_door *door)
{
	struct stat st;

	if (!door->inode || door->endpoint[0] != '/' || lstat(door->endpoint, &st) < 0)
		return false;
	if (!S_ISSOCK(st.st_mode) || st.st_dev != door->device || st.st_ino != door->inode)
		return false;
	return unlink(door->endpoint) == 0;
}

int door_path_probe(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return 0;
	/* A full backlog, and a socket of another type: somebody listens. unix(7) */
	return fd >= 0 && (errno == EAGAIN || errno == EPROTOTYPE) ? 0 : -errno;
}

void door_inner_remove(int runtime_fd, const struct vm_door *door)
{
	char path[sizeof(door->inner) + sizeof(VM_DOOR_INNER_SOCKET)];

	if (!door->inner[0] || runtime_fd < 0)
		return;
	snprintf(path, sizeof(path), "%s/" VM_DOOR_INNER_SOCKET, door->inner);
	(void)unlinkat(runtime_fd, path, 0);
	(void)unlinkat(runtime_fd, door->inner, AT_REMOVEDIR);
}
