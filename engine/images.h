/* SPDX-License-Identifier: Apache-2.0 */
/* images.h - the engine's way to the store: reading it directly, changing it through husk-image */
#ifndef ENGINE_IMAGES_H
#define ENGINE_IMAGES_H

#include "base/buffer.h"
#include "engine/engine.h"
#include "image/record.h"

/** Run `husk-image --home HOME ARGS…`: @args is NULL-terminated. As helper_run(). */
int images_command(const struct husk *husk, const char *const *args, int stdin_fd, int progress_fd, int cancel_fd,
	struct buffer *out, struct husk_error *err);

/** husk-image pull; *@id is malloc'ed. */
int images_pull(const struct husk *husk, const char *source, const struct husk_pull_options *options, char **id,
	struct husk_error *err);

/** The record of the image that @config names: 1 when the store has it, 0 when it has to be fetched, or an error. */
int images_find(
	const struct husk *husk, const struct husk_vm_config *config, struct image_record *out, struct husk_error *err);

/** Pull it, or build it from a local source. */
int images_fetch(
	const struct husk *husk, const struct husk_vm_config *config, struct image_record *out, struct husk_error *err);

/** True for a source that is no reference ("oci:…", "tar:…"). */
bool images_is_local(const char *source);

#endif
