/* SPDX-License-Identifier: Apache-2.0 */
/* door.h - the path of a door's unix socket, and its end */
#ifndef BASE_DOOR_H
#define BASE_DOOR_H

#include "base/state.h"

/** Remove the door's path from the file system if it is still that very socket (device and inode): what somebody else has put
 *  there since stays. Nothing happens for doors without a path. True when it was removed. */
bool door_path_remove(const struct vm_door *door);

/** Remove a TLS door's inner directory with its socket from the runtime directory @runtime_fd; fine when there is none. */
void door_inner_remove(int runtime_fd, const struct vm_door *door);

/** What a connect to the unix stream socket at @path says: 0 it is alive, -ECONNREFUSED nobody listens (any more), or another
 *  -errno. */
int door_path_probe(const char *path);

#endif
