/* SPDX-License-Identifier: Apache-2.0 */
/* environment.h - the workload's environment from -e and --env-file */
#ifndef CLI_ENVIRONMENT_H
#define CLI_ENVIRONMENT_H

#include <husk.h>

/** A growing NULL-terminated list of "NAME=value"; zero-initialised is empty. Strings are owned. */
struct environment {
	char **list;
	size_t n;
};

/** "NAME=value", or "NAME": then the value is husk's own, and nothing is added when it has none. */
int environment_add(struct environment *env, const char *text, struct husk_error *err);
/** "NAME=value" or "NAME" as it stands. */
int environment_keep(struct environment *env, const char *text, struct husk_error *err);
/** A file of such lines; blank lines and those that begin with '#' are skipped. */
int environment_add_file(struct environment *env, const char *path, struct husk_error *err);
void environment_free(struct environment *env);

#endif
