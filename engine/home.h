/* SPDX-License-Identifier: Apache-2.0 */
/* home.h - where husk keeps its state, and where its sockets lie */
#ifndef ENGINE_HOME_H
#define ENGINE_HOME_H

#include "base/error.h"

#include <stdbool.h>
#include <sys/types.h>

/** Longest path of a runtime directory: RUNTIME "/" 12 digits "/" "vsock.sock_4294967295" must fit sun_path (107). */
#define HOME_RUNTIME_MAX (107 - 1 - 12 - 1 - 21)

/** What the answer depends on: the environment, as values, so that tests can ask about other ones. NULL: not set. */
struct home_environment {
	const char *husk_home;
	const char *xdg_data_home;
	const char *xdg_runtime_dir;
	const char *home;
	uid_t uid;
};

void home_environment_get(struct home_environment *env);

/** malloc'ed absolute paths for @option (may be NULL) and @env; nothing is made. -EINVAL when there is no way to tell. */
int home_resolve(
	const char *option, const struct home_environment *env, char **home, char **runtime, struct husk_error *err);

/** Make both directories (0700 when new); a runtime directory that is not ours or open to others is refused: -EPERM. */
int home_make(const char *home, const char *runtime, struct husk_error *err);

#endif
