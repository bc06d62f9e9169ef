/* SPDX-License-Identifier: Apache-2.0 */
/* json_out.c - JSON written straight into a buffer */
#include "engine/json_out.h"

#include "base/rfc3339.h"
#include "engine/config_json.h"

#include <string.h>

void json_out_raw(struct json_out *out, const char *text, size_t n)
{
	if (buffer_append(&out->text, text, n) < 0)
		out->failed = true;
}

void json_out_text(struct json_out *out, const char *text)
{
	json_out_raw(out, text, strlen(text));
}

void json_out_string(struct json_out *out, const char *text)
{
	const char *at = text;

	while ((unsigned char)*at >= 0x20 && (unsigned char)*at < 0x7f && *at != '"' && *at != '\\')
		at++;
	if (*at == 0) {
		json_out_raw(out, "\"", 1);
		json_out_raw(out, text, (size_t)(at - text));
		json_out_raw(out, "\"", 1);
		return;
	}
	json_t *json = config_json_text(text);
	CLEANUP_FREE char *dumped = json_dumps(json, JSON_ENCODE_ANY);
	json_decref(json);
	if (dumped)
		json_out_text(out, dumped);
	else
		out->failed = true;
}

void json_out_key(struct json_out *out, const char *key)
{
	json_out_raw(out, ", \"", 3);
	json_out_text(out, key);
	json_out_raw(out, "\": ", 3);
}

void json_out_string_member(struct json_out *out, const char *key, const char *text)
{
	json_out_key(out, key);
	json_out_string(out, text);
}

void json_out_number_member(struct json_out *out, const char *key, uint64_t n)
{
	char digits[24];

	json_out_key(out, key);
	json_out_raw(out, digits, (size_t)snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n));
}

void json_out_time_member(struct json_out *out, const char *key, uint64_t ns)
{
	char text[RFC3339_SIZE];

	if (!ns)
		return;
	rfc3339_format(ns, text);
	json_out_string_member(out, key, text);
}
