/* SPDX-License-Identifier: Apache-2.0 */
/* user.h - "user[:group]" looked up in the image's own passwd and group */
#ifndef GUEST_USER_H
#define GUEST_USER_H

#include "base/error.h"

#include <limits.h>
#include <stddef.h>
#include <sys/types.h>

#define USER_GROUPS_MAX 1024
#define USER_FILE_MAX (4u << 20) /* bytes of passwd and of group that are looked at */

struct user {
	uid_t uid;
	gid_t gid;
	gid_t groups[USER_GROUPS_MAX]; /* supplementary; the primary group is the first */
	size_t n_groups;
	char home[PATH_MAX]; /* of passwd; "/" when there is none */
};

/** The texts of passwd and group; not NUL-terminated, may be NULL with size 0. */
struct user_files {
	const char *passwd;
	size_t passwd_size;
	const char *group;
	size_t group_size;
};

/** Resolve @spec ("" or NULL: root) and the @n further groups @extra. -ENOENT: unknown user or group, -E2BIG: too many
 *  groups. */
int user_resolve(const struct user_files *files, const char *spec, char *const *extra, size_t n, struct user *out,
	struct husk_error *err);
/** The same with the files /etc/passwd and /etc/group of the calling process's root. */
int user_lookup(const char *spec, char *const *extra, size_t n, struct user *out, struct husk_error *err);

#endif
