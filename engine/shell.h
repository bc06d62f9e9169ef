/* SPDX-License-Identifier: Apache-2.0 */
/* shell.h - which walls a VM's worker and QEMU get (theory of operation: vmm/jail/jail.h) */
#ifndef ENGINE_SHELL_H
#define ENGINE_SHELL_H

#include "base/buffer.h"
#include "engine/engine.h"

#include <jansson.h>

/** What is built around a VM. Zero-initialised is nothing known. */
struct shell_choice {
	bool degraded; /* asked for; walls may be missing */
	uint32_t walls; /* enum jail_wall */
	struct buffer missing; /* "network namespace: clone: Operation not permitted", a line each */
};

/** Ask husk-vmm which walls can be built on this host. Adds to @out->missing. */
int shell_look(const struct husk *husk, struct shell_choice *out, struct husk_error *err);
/** Choose for @shell: NULL or "full" is all of them, unseen, and a start that cannot build one fails; "degraded" is what this
 *  host allows. */
int shell_choose(const struct husk *husk, const char *shell, struct shell_choice *out, struct husk_error *err);
void shell_choice_free(struct shell_choice *choice);
/** What is missing, as a part of a sentence; *@text is the caller's. */
int shell_missing(const struct shell_choice *choice, char **text, struct husk_error *err);
/** {"mode": "full"}, {"mode": "degraded", "missing": […]}. */
json_t *shell_json(const struct shell_choice *choice);

#endif
