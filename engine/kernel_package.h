/* SPDX-License-Identifier: Apache-2.0 */
/* kernel_package.h - the distribution's packages, asked about and downloaded without installing anything */
#ifndef ENGINE_KERNEL_PACKAGE_H
#define ENGINE_KERNEL_PACKAGE_H

#include "engine/kernel_store.h"

/** What follows @key, up to white space, in the output of `apt-cache @verb @package`; malloc'ed. */
int kernel_package_ask(const char *verb, const char *package, const char *key, char **out, struct husk_error *err);
/** The version of @package that apt would install, malloc'ed, fit for a file name. */
int kernel_package_version(const char *package, char **version, struct husk_error *err);
/** Download @package into the store's temporary directory; *@deb: its file name there, malloc'ed. */
int kernel_package_download(struct kernel_store *store, const char *package, char **deb, struct husk_error *err);
/** The first name in @directory that begins and ends so, malloc'ed; NULL when there is none. */
char *kernel_package_find(const char *directory, const char *prefix, const char *suffix);

#endif
