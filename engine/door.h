/* SPDX-License-Identifier: Apache-2.0 */
/* door.h - open the host's side of a door: bind its sockets, and take them down again */
#ifndef ENGINE_DOOR_H
#define ENGINE_DOOR_H

#include "engine/engine.h"
#include "vmm/config.h"

#define DOOR_PATH_MAX 107 /* sizeof(sun_path) - 1 */
#define DOOR_BACKLOG 4096

/** A door whose sockets are open: what the supervisor is to be given. Descriptors are owned, -1: none. */
struct open_door {
	struct vm_door door;
	int fd[VMM_DOOR_FDS]; /* as in struct vmm_door_entry */
	int runtime_fd; /* the VM's runtime directory, borrowed */
};

#define OPEN_DOOR_INIT                                                                                                 \
	{                                                                                                              \
		.fd = {-1, -1, -1, -1}, .runtime_fd = -1                                                               \
	}

/** How the path of a door comes to be, so that a crash at any point leaves what can be found. All of it may be NULL.
 *  id:   of the VM: the directory beside the target in which the socket is made is named after it; NULL: has a random name
 *  note: called with the door before that directory exists (inode 0), and again before the path appears; 0 or -errno */
struct door_nest {
	const char *id;
	int (*note)(void *data, const struct vm_door *door);
	void *data;
};

/** Bind what @wanted (checked by check_door()) describes. @runtime_fd: the VM's runtime directory, kept open by the caller.
 *  The error names kind, endpoint and cause. Errors: -EADDRINUSE (a live socket, a port in use), -EEXIST (something that is no
 *  socket), -ENAMETOOLONG, and those of the file system and of bind(2). Nothing is left behind by a failure. */
int door_open(const struct husk *husk, int runtime_fd, const struct husk_door *wanted, const struct door_nest *nest,
	struct open_door *out, struct husk_error *err);

/** Close the descriptors; the paths stay. */
void door_close(struct open_door *door);
/** Remove the paths and close. */
void door_take_down(struct open_door *door);

/** Bind a listening unix socket of mode 0600 named @name in the directory @at, into which nobody else comes. The descriptor or
 *  -errno. */
int door_listen_in(int at, const char *name);
/** Bind a listening unix socket at @path and note its absolute path and identity in @door. The descriptor, -EADDRINUSE for a
 *  live socket, -ENOTSOCK for something else, -ENAMETOOLONG, or another -errno. */
int door_bind_path(const char *path, const struct door_nest *nest, struct vm_door *door);
/** Remove what a bind that was killed has left beside @endpoint of VM @id. */
void door_clear_nest(const char *endpoint, const char *id);

#endif
