/* SPDX-License-Identifier: Apache-2.0 */
/* path.h - paths, directories and files that appear whole or not at all */
#ifndef BASE_PATH_H
#define BASE_PATH_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/** malloc'ed "@a/@b"; NULL without memory. */
char *path_join(const char *a, const char *b);

/** malloc'ed formatted string; NULL without memory. */
__attribute__((format(printf, 1, 2))) char *path_format(const char *format, ...);

/** Make @path and its missing parents with @mode (parents 0755); fine when it is a directory already. */
int path_make_directories(const char *path, mode_t mode, struct husk_error *err);

/** Write @n bytes to @path: a temporary file beside it, fsync, rename, fsync of the directory. */
int path_write_atomically(const char *path, const void *bytes, size_t n, mode_t mode, struct husk_error *err);

/** Remove @path and, when it is a directory, all below it, without following links and without crossing file systems.
 *  Fine when it is not there. */
int path_remove_tree(const char *path, struct husk_error *err);

#endif
