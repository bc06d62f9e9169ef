/* SPDX-License-Identifier: Apache-2.0 */
/* exec.h - the main workload: what image and caller say together, as the agent's EXEC payload */
#ifndef ENGINE_EXEC_H
#define ENGINE_EXEC_H

#include "base/buffer.h"
#include "image/record.h"

#include <husk.h>
#include <jansson.h>

/** An argument longer than this cannot be passed to execve by the guest's kernel (MAX_ARG_STRLEN). */
#define EXEC_ARGUMENT_MAX 131071

/** Append the strings of the NULL-terminated @list (may be NULL) as entries @tag and count them in *@n. -E2BIG: one is longer than
 *  EXEC_ARGUMENT_MAX. */
int exec_put_list(struct buffer *out, uint16_t tag, const char *const *list, size_t *n, struct husk_error *err);
/** @rc of the writers of @out, with words for want of memory; -E2BIG when it has grown over what a frame takes. */
int exec_put_end(const struct buffer *out, int rc, struct husk_error *err);

/** Append the payload for @config on @image to @out. -EINVAL: no command at all, or a value that cannot work. */
int exec_payload(const struct husk_vm_config *config, const struct image_record *image, struct buffer *out,
	struct husk_error *err);

/** The arguments in such a payload, the program's name first, as a JSON array of strings; NULL without memory. */
json_t *exec_arguments(const struct buffer *payload);

/** The number of an image's StopSignal ("SIGTERM", "TERM", "15", "SIGRTMIN+3"); SIGTERM when @text is NULL or no signal. */
int exec_stop_signal(const char *text);

#endif
