/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_json.c - a VM's configuration as JSON, read and written
 *
 * Theory of operation: both directions walk the table of config_fields.h. Reading is strict: a key that is no field, a value
 * of another kind and a key given twice are refused, each by its path ("disks[1].path"). Values that cannot work are not
 * judged here but with those of every other caller, in check.c. Strings point into the parsed JSON, which struct husk_vm_json
 * keeps alive together with the lists that were made. null stands for a key that is not there.
 */
#include "engine/config_json.h"

#include "base/cleanup.h"
#include "base/parse.h"
#include "engine/config_fields.h"

#include <stdarg.h>
#include <string.h>

#define PATH_SIZE 96
#define SHOWN 80 /* bytes of a value in a message */

struct husk_vm_json {
	json_t *root;
	void **lists;
	size_t n_lists;
};

static void cleanup_config_json(struct husk_vm_json **json)
{
	config_json_free(*json);
}

/** Where the reader is. */
struct reading {
	struct husk_vm_json *json;
	char path[PATH_SIZE]; /* "disks[1]." */
	struct husk_error *err;
};

/** Refuse @value of field @name: "cpus: "two": not a whole number". */
__attribute__((format(printf, 4, 5))) static int refuse(
	struct reading *r, const char *name, const json_t *value, const char *format, ...)
{
	char rule[256];
	CLEANUP_FREE char *shown = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
	va_list args;

	va_start(args, format);
	vsnprintf(rule, sizeof(rule), format, args);
	va_end(args);
	if (!value)
		return error_set(r->err, -EINVAL, "%s%s: %s", r->path, name, rule);
	bool cut = shown && strlen(shown) > SHOWN;
	return error_set(
		r->err, -EINVAL, "%s%s: %.*s%s: %s", r->path, name, SHOWN, shown ? shown : "?", cut ? "…" : "", rule);
}

/** Memory for a list of @n times @size zeroed bytes, which lives as long as the JSON. */
static void *make_list(struct reading *r, size_t n, size_t size)
{
	struct husk_vm_json *json = r->json;
	void **lists = reallocarray(json->lists, json->n_lists + 1, sizeof(*lists));
	void *list = lists ? calloc(n, size) : NULL;

	if (lists)
		json->lists = lists;
	if (list)
		json->lists[json->n_lists++] = list;
	else
		error_set(r->err, -ENOMEM, "read the configuration: out of memory");
	return list;
}

static int read_text(struct reading *r, const struct config_field *f, const json_t *value, void *to)
{
	if (!json_is_string(value))
		return refuse(r, f->name, value, "not a string");
	*(const char **)to = json_string_value(value);
	return 0;
}

static int read_texts(struct reading *r, const struct config_field *f, const json_t *value, void *to)
{
	size_t n = json_array_size(value);

	if (!json_is_array(value))
		return refuse(r, f->name, value, "not a list of strings");
	const char **list = make_list(r, n + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (!(list[i] = json_string_value(json_array_get(value, i)))) {
			char name[PATH_SIZE];
			snprintf(name, sizeof(name), "%s[%zu]", f->name, i);
			return refuse(r, name, json_array_get(value, i), "not a string");
		}
	*(const char *const **)to = list;
	return 0;
}

static int read_flag(struct reading *r, const struct config_field *f, const json_t *value, void *to)
{
	if (!json_is_boolean(value))
		return refuse(r, f->name, value, "neither true nor false");
	*(bool *)to = json_is_true(value);
	return 0;
}

/** A whole number up to @max. */
static int read_whole(struct reading *r, const struct config_field *f, const json_t *value, uint64_t max, uint64_t *out)
{
	if (!json_is_integer(value))
		return refuse(r, f->name, value, "not a whole number");
	json_int_t n = json_integer_value(value);
	if (n < 0 || (uint64_t)n > max)
		return refuse(r, f->name, value, "out of range: 0 to %llu", (unsigned long long)max);
	*out = (uint64_t)n;
	return 0;
}

static int read_u16(struct reading *r, const struct config_field *f, const json_t *value, void *to)
{
	uint64_t n = 0;
	int rc = read_whole(r, f, value, UINT16_MAX, &n);
	if (rc == 0)
		*(uint16_t *)to = (uint16_t)n;
	return rc;
}

static int read_u32(struct reading *r, const struct config_field *f, const json_t *value, void *to)
{
	uint64_t n = 0;
	int rc = read_whole(r, f, value, UINT32_MAX, &n);
	if (rc == 0)
		*(uint32_t *)to = (uint32_t)n;
	return rc;
}

static int read_bytes(struct reading *r, const struct config_field *f, const json_t *value, void *to)
{
	if (!json_is_string(value))
		return read_whole(r, f, value, INT64_MAX, to);
	if (parse_size(json_string_value(value), f->name, 0, INT64_MAX, to, NULL) < 0)
		return refuse(r, f->name, value, "not a size in bytes, or as in \"512M\" or \"2G\"");
	return 0;
}

static int read_time(struct reading *r, const struct config_field *f, const json_t *value, void *to)
{
	if (!json_is_string(value))
		return read_whole(r, f, value, INT64_MAX, to);
	if (parse_duration(json_string_value(value), f->name, to, NULL) < 0)
		return refuse(r, f->name, value, "not a time in milliseconds, or as in \"1.5s\", \"20ms\" or \"2m\"");
	return 0;
}

static int read_choice(struct reading *r, const struct config_field *f, const json_t *value, void *to)
{
	char all[128] = "";
	const char *given = json_string_value(value);

	for (size_t i = 0; i < f->size; i++) {
		if (!f->choices[i])
			continue;
		if (given && strcmp(given, f->choices[i]) == 0) {
			*(int *)to = (int)i;
			return 0;
		}
		size_t used = strlen(all);
		snprintf(all + used, sizeof(all) - used, "%s%s", used ? ", " : "", f->choices[i]);
	}
	return refuse(r, f->name, value, "none of %s", all);
}

static int read_object(struct reading *r, const json_t *object, const struct config_field *fields, void *to);

/** Read what is inside of @name, an object of @fields at @to. */
static int read_inner(
	struct reading *r, const char *name, const json_t *object, const struct config_field *fields, void *to)
{
	size_t size = strlen(r->path);

	if (!json_is_object(object))
		return refuse(r, name, object, "not an object");
	snprintf(r->path + size, sizeof(r->path) - size, "%s.", name);
	int rc = read_object(r, object, fields, to);
	r->path[size] = 0;
	return rc;
}

static int read_list(struct reading *r, const struct config_field *f, const json_t *value, void *to)
{
	size_t n = json_array_size(value);
	char name[32];

	if (!json_is_array(value))
		return refuse(r, f->name, value, "not a list of objects");
	char *list = make_list(r, n ? n : 1, f->size);
	int rc = list ? 0 : -ENOMEM;
	for (size_t i = 0; i < n && rc == 0; i++) {
		*(size_t *)(list + i * f->size) = f->size;
		snprintf(name, sizeof(name), "%s[%zu]", f->name, i);
		rc = read_inner(r, name, json_array_get(value, i), f->fields, list + i * f->size);
	}
	if (rc < 0)
		return rc;
	*(void **)((char *)to + f->offset) = list;
	*(size_t *)((char *)to + f->count) = n;
	return 0;
}

typedef int read_fn(struct reading *r, const struct config_field *f, const json_t *value, void *to);

/** Those whose value lies at the field's own offset. */
static read_fn *const readers[] = {
	[CONFIG_TEXT] = read_text,
	[CONFIG_TEXTS] = read_texts,
	[CONFIG_FLAG] = read_flag,
	[CONFIG_U16] = read_u16,
	[CONFIG_U32] = read_u32,
	[CONFIG_BYTES] = read_bytes,
	[CONFIG_TIME] = read_time,
	[CONFIG_CHOICE] = read_choice,
};

static int read_field(struct reading *r, const struct config_field *f, const json_t *value, void *to)
{
	if (f->kind == CONFIG_GROUP)
		return read_inner(r, f->name, value, f->fields, to);
	if (f->kind == CONFIG_LIST)
		return read_list(r, f, value, to);
	return readers[f->kind](r, f, value, (char *)to + f->offset);
}

static int read_object(struct reading *r, const json_t *object, const struct config_field *fields, void *to)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)object, key, value)
	{
		const struct config_field *f = fields;
		while (f->name && strcmp(f->name, key) != 0)
			f++;
		if (!f->name)
			return error_set(r->err, -EINVAL, "%s%.*s: there is no such field", r->path, SHOWN, key);
		int rc = json_is_null(value) ? 0 : read_field(r, f, value, to);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int config_json_read(
	struct husk_vm_config *config, const char *text, size_t n, struct husk_vm_json **out, struct husk_error *err)
{
	CLEANUP(cleanup_config_json) struct husk_vm_json *json = calloc(1, sizeof(*json));
	struct reading r = {.json = json, .err = err};
	struct husk_vm_config read = *config;
	json_error_t where;

	if (!json)
		return error_set(err, -ENOMEM, "read the configuration: out of memory");
	if (n > CONFIG_JSON_MAX)
		return error_set(err, -E2BIG, "a configuration of %zu bytes: at most %u are read", n, CONFIG_JSON_MAX);
	json->root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &where);
	if (!json->root)
		return error_set(err, -EINVAL, "line %d, column %d: %s", where.line, where.column, where.text);
	if (!json_is_object(json->root))
		return error_set(err, -EINVAL, "line 1: a configuration is an object, in braces");
	int rc = read_object(&r, json->root, config_fields, &read);
	if (rc < 0)
		return rc;
	*config = read;
	*out = steal_pointer(&json);
	return 0;
}

void config_json_free(struct husk_vm_json *json)
{
	if (!json)
		return;
	for (size_t i = 0; i < json->n_lists; i++)
		free(json->lists[i]);
	free(json->lists);
	json_decref(json->root);
	free(json);
}

/* ---- writing ---- */

/** JSON is UTF-8, which arguments and variables need not be: what is none becomes U+FFFD. */
json_t *config_json_text(const char *text)
{
	json_t *json = json_string(text);
	if (json)
		return json;
	CLEANUP_FREE char *clean = calloc(3, strlen(text) + 1);
	char *to = clean;
	for (const char *at = text; clean && *at;) {
		size_t n = 4;
		while (n && (strnlen(at, n) < n || !(json = json_stringn(at, n))))
			n--;
		json_decref(json);
		json = NULL;
		memcpy(to, n ? at : "\xef\xbf\xbd", n ? n : 3);
		to += n ? n : 3;
		at += n ? n : 1;
	}
	return clean ? json_string(clean) : NULL;
}

static json_t *write_texts(const char *const *list)
{
	json_t *json = json_array();
	for (; json && *list; list++)
		json_array_append_new(json, config_json_text(*list));
	return json;
}

static json_t *write_object(const void *from, const struct config_field *fields);

static json_t *write_list(const struct config_field *f, const char *from)
{
	const char *list = *(const char *const *)(from + f->offset);
	size_t n = *(const size_t *)(from + f->count);
	json_t *json = n ? json_array() : NULL;
	for (size_t i = 0; json && i < n; i++)
		json_array_append_new(json, write_object(list + i * f->size, f->fields));
	return json;
}

static json_t *choice_name(const struct config_field *f, int value)
{
	bool known = value >= 0 && (size_t)value < f->size && f->choices[value];
	return known ? json_string(f->choices[value]) : NULL;
}

/** NULL: there is nothing to say. */
static json_t *write_field(const struct config_field *f, const void *from)
{
	const void *at = (const char *)from + f->offset;

	switch (f->kind) {
	case CONFIG_TEXT:
		return *(const char *const *)at ? config_json_text(*(const char *const *)at) : NULL;
	case CONFIG_TEXTS:
		return *(const char *const *const *)at ? write_texts(*(const char *const *const *)at) : NULL;
	case CONFIG_FLAG:
		return json_boolean(*(const bool *)at);
	case CONFIG_U16:
		return json_integer(*(const uint16_t *)at);
	case CONFIG_U32:
		return json_integer(*(const uint32_t *)at);
	case CONFIG_BYTES:
	case CONFIG_TIME:
		return json_integer((json_int_t) * (const uint64_t *)at);
	case CONFIG_CHOICE:
		return choice_name(f, *(const int *)at);
	case CONFIG_GROUP:
		return write_object(from, f->fields);
	case CONFIG_LIST:
		return write_list(f, from);
	}
	return NULL;
}

static json_t *write_object(const void *from, const struct config_field *fields)
{
	json_t *json = json_object();
	for (; json && fields->name; fields++) {
		json_t *value = write_field(fields, from);
		if (value)
			json_object_set_new(json, fields->name, value);
	}
	return json;
}

json_t *config_json_write(const struct husk_vm_config *config)
{
	return write_object(config, config_fields);
}

/* ---- what survives both ---- */

static bool is_exact(const char *text)
{
	json_t *json = text ? json_string(text) : NULL;
	json_decref(json);
	return json || !text;
}

static int check_object(const void *from, const struct config_field *fields, struct husk_error *err);

static int check_field(const struct config_field *f, const void *from, struct husk_error *err)
{
	const void *at = (const char *)from + f->offset;
	bool exact = true;
	int rc = 0;

	if (f->kind == CONFIG_GROUP)
		return check_object(from, f->fields, err);
	if (f->kind == CONFIG_TEXT)
		exact = is_exact(*(const char *const *)at);
	if (f->kind == CONFIG_TEXTS)
		for (const char *const *text = *(const char *const *const *)at; text && *text && exact; text++)
			exact = is_exact(*text);
	for (size_t i = 0; f->kind == CONFIG_LIST && rc == 0 && i < *(const size_t *)((const char *)from + f->count); i++)
		rc = check_object(*(const char *const *)at + i * f->size, f->fields, err);
	return exact ? rc : error_set(err, -EINVAL,
		"%s: not valid UTF-8, and a VM that can be started again keeps its configuration as JSON", f->name);
}

static int check_object(const void *from, const struct config_field *fields, struct husk_error *err)
{
	int rc = 0;
	for (; rc == 0 && fields->name; fields++)
		rc = check_field(fields, from, err);
	return rc;
}

int config_json_check_texts(const struct husk_vm_config *config, struct husk_error *err)
{
	return check_object(config, config_fields, err);
}
