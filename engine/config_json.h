/* SPDX-License-Identifier: Apache-2.0 */
/* config_json.h - a VM's configuration as JSON (docs/configuration.md), read and written */
#ifndef ENGINE_CONFIG_JSON_H
#define ENGINE_CONFIG_JSON_H

#include "base/error.h"

#include <husk.h>
#include <jansson.h>

#define CONFIG_JSON_MAX (4u << 20)

/** As husk_vm_config_read(); @config is of this build's own size. On failure it holds nothing of the text. */
int config_json_read(
	struct husk_vm_config *config, const char *text, size_t n, struct husk_vm_json **out, struct husk_error *err);
void config_json_free(struct husk_vm_json *json);

/** Every text in @config can be read back as it is: it is UTF-8, as JSON is. -EINVAL names the first that cannot. */
int config_json_check_texts(const struct husk_vm_config *config, struct husk_error *err);

/** All fields with a value: flags, numbers and choices, and texts and lists that are given. NULL without memory. */
json_t *config_json_write(const struct husk_vm_config *config);

/** @text as a JSON string; bytes that are no UTF-8 become U+FFFD. NULL without memory. */
json_t *config_json_text(const char *text);

#endif
