/* SPDX-License-Identifier: Apache-2.0 */
/* kernel_recipe.h - what a tuned kernel is made from, and the checks around a build that need no compiler */
#ifndef ENGINE_KERNEL_RECIPE_H
#define ENGINE_KERNEL_RECIPE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

/** All that decides how the kernel comes out. Two builds with the same recipe are the same kernel. Strings are owned, free with
 *  kernel_recipe_free().
 *  source:   version of the source package
 *  fragment: husk's configuration fragment, and the user's behind it
 *  compiler, linker: what `--version` says first */
struct kernel_recipe {
	char *source, *fragment, *compiler, *linker;
};

void kernel_recipe_free(struct kernel_recipe *recipe);

/** husk's own configuration fragment (kernel/husk-x86_64.config), compiled in. */
extern const char kernel_fragment[];
/** The architecture that the fragment is for, as in `uname -m`. */
#define KERNEL_ARCH "x86_64"

/** "husk-<source>-<arch>-<12 hex digits>", malloc'ed. */
int kernel_recipe_id(const struct kernel_recipe *recipe, char **id, struct husk_error *err);

/** Compare the configuration @config, which make wrote, with what @fragment asks for; the last word on an option counts.
 *  -EINVAL names the first that differs. */
int kernel_recipe_check(const char *fragment, const char *config, struct husk_error *err);

/** One thing that a build needs. @missing is filled in by who looks. */
struct kernel_need {
	const char *name, *package;
	bool missing;
};

/** 0, or -ENOENT with what is missing of @needs and the line that installs it. */
int kernel_needs_met(const struct kernel_need *needs, size_t n, struct husk_error *err);

/** The line of a failed build's log that says why: the first with "error:", else make's own first complaint, else the last one.
 *  At most @room bytes, printable. */
void kernel_complaint(const char *log, char *line, size_t room);

#endif
