/* SPDX-License-Identifier: Apache-2.0 */
/* platform.h - "os/architecture[/variant]", normalised and matched as containerd does */
#ifndef IMAGE_PLATFORM_H
#define IMAGE_PLATFORM_H

#include "base/error.h"

#define PLATFORM_FIELD 32

/** Normalised: "x86_64" is amd64, "arm64" has no variant when it is v8. variant may be empty. */
struct platform {
	char os[PLATFORM_FIELD];
	char architecture[PLATFORM_FIELD];
	char variant[PLATFORM_FIELD];
};

/** Parse "os/arch", "os/arch/variant" or "arch" (of linux); NULL: this machine's. */
int platform_parse(const char *text, struct platform *out, struct husk_error *err);
/** Set from the fields of a manifest or config (each may be NULL); values that are too long become "unknown". */
void platform_set(struct platform *out, const char *os, const char *architecture, const char *variant);
/** How well what is made for @have runs on @want: 0 exactly, greater less well, -1 not at all. */
int platform_rank(const struct platform *want, const struct platform *have);
/** "linux/arm/v7" */
void platform_format(const struct platform *platform, char text[3 * PLATFORM_FIELD]);

#endif
