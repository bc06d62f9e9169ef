/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.c - JSON that others wrote
 *
 * Theory of operation: manifests and configs come from strangers, and a parsed document may take a hundred times the room
 * of its text. So a scan over the bytes, which knows strings and nothing else of the grammar, counts depth and values
 * first and refuses what is beyond the bounds of json.h; only then jansson parses it, strictly: valid UTF-8, no NUL in
 * strings, no duplicate keys (two readers might pick different ones). Members are fetched by type, never guessed.
 */
#include "image/json.h"

#include "base/fd.h"
#include "base/path.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int check_bounds(const char *text, size_t n, const char *what, struct husk_error *err)
{
	size_t depth = 0, values = 0;
	bool in_string = false;
	if (n > JSON_BYTES_MAX)
		return error_set(err, -EFBIG, "%s: %zu bytes of JSON are too many", what, n);
	for (size_t i = 0; i < n; i++) {
		char c = text[i];
		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
			continue;
		}
		if (c == '"')
			in_string = true;
		else if (c == '{' || c == '[')
			depth++;
		else if ((c == '}' || c == ']') && depth)
			depth--;
		if (c == '{' || c == '[' || c == ',' || c == ':')
			values++;
		if (depth > JSON_DEPTH_MAX || values > JSON_VALUES_MAX)
			return error_set(err, -EFBIG, "%s: JSON that is %s", what,
				depth > JSON_DEPTH_MAX ? "nested too deeply" : "too large");
	}
	return 0;
}

int json_read(const void *bytes, size_t n, bool array, const char *what, json_t **out, struct husk_error *err)
{
	int rc = check_bounds(bytes, n, what, err);
	if (rc < 0)
		return rc;
	json_error_t fault;
	CLEANUP_JSON json_t *json = json_loadb(bytes, n, JSON_REJECT_DUPLICATES, &fault);
	if (!json)
		return error_set(err, -EBADMSG, "%s: not valid JSON: line %d: %s", what, fault.line, fault.text);
	if (array ? !json_is_array(json) : !json_is_object(json))
		return error_set(err, -EBADMSG, "%s: not a JSON %s", what, array ? "array" : "object");
	*out = steal_pointer(&json);
	return 0;
}

int json_read_file(const char *path, json_t **out, struct husk_error *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return error_errno(err, "open %s", path);
	CLEANUP_BUFFER struct buffer text = {0};
	int rc = fd_read_to_end(fd, &text, JSON_BYTES_MAX);
	if (rc < 0) {
		errno = -rc;
		return error_errno(err, "read %s", path);
	}
	return json_read(text.size ? buffer_bytes(&text) : (const uint8_t *)"", text.size, false, path, out, err);
}

int json_write_file(const char *path, const json_t *json, struct husk_error *err)
{
	CLEANUP_FREE char *text = json_dumps(json, JSON_INDENT(1));
	if (!text)
		return error_set(err, -ENOMEM, "write %s: out of memory", path);
	size_t n = strlen(text);
	if (n > JSON_BYTES_MAX)
		return error_set(err, -EFBIG, "write %s: the record is too large", path);
	return path_write_atomically(path, text, n, 0600, err);
}

static json_t *member(const json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);
	return json_is_null(value) ? NULL : value;
}

int json_get_string(const json_t *object, const char *key, size_t max, bool required, const char *what,
	const char **out, struct husk_error *err)
{
	json_t *value = member(object, key);
	*out = NULL;
	if (!value)
		return required ? error_set(err, -EBADMSG, "%s: '%s' is missing", what, key) : 0;
	if (!json_is_string(value))
		return error_set(err, -EBADMSG, "%s: '%s' is not a string", what, key);
	if (json_string_length(value) > max)
		return error_set(err, -EBADMSG, "%s: '%s' is too long", what, key);
	if (required && !json_string_length(value))
		return error_set(err, -EBADMSG, "%s: '%s' is empty", what, key);
	*out = json_string_value(value);
	return 0;
}

int json_get_size(
	const json_t *object, const char *key, uint64_t max, const char *what, uint64_t *out, struct husk_error *err)
{
	json_t *value = member(object, key);
	*out = 0;
	if (!value)
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > max)
		return error_set(
			err, -EBADMSG, "%s: '%s' is not a number from 0 to %llu", what, key, (unsigned long long)max);
	*out = (uint64_t)json_integer_value(value);
	return 0;
}

int json_get_object(const json_t *object, const char *key, const char *what, json_t **out, struct husk_error *err)
{
	*out = member(object, key);
	if (*out && !json_is_object(*out))
		return error_set(err, -EBADMSG, "%s: '%s' is not an object", what, key);
	return 0;
}

int json_get_array(const json_t *object, const char *key, const char *what, json_t **out, struct husk_error *err)
{
	*out = member(object, key);
	if (*out && !json_is_array(*out))
		return error_set(err, -EBADMSG, "%s: '%s' is not an array", what, key);
	return 0;
}

void strings_free(char **list)
{
	for (char **at = list; at && *at; at++)
		free(*at);
	free(list);
}

static void cleanup_strings(char ***list)
{
	strings_free(*list);
}

int json_get_strings(const json_t *object, const char *key, const char *what, char ***out, struct husk_error *err)
{
	json_t *array;
	int rc = json_get_array(object, key, what, &array, err);
	if (rc < 0)
		return rc;
	size_t n = json_array_size(array);
	CLEANUP(cleanup_strings) char **list = calloc(n + 1, sizeof(*list));
	if (!list)
		return error_set(err, -ENOMEM, "%s: out of memory", what);
	for (size_t i = 0; i < n; i++) {
		json_t *value = json_array_get(array, i);
		if (!json_is_string(value))
			return error_set(err, -EBADMSG, "%s: '%s' holds something that is not a string", what, key);
		list[i] = strdup(json_string_value(value));
		if (!list[i])
			return error_set(err, -ENOMEM, "%s: out of memory", what);
	}
	*out = steal_pointer(&list);
	return 0;
}

int json_get_keys(const json_t *object, const char *key, const char *what, char ***out, struct husk_error *err)
{
	json_t *from;
	int rc = json_get_object(object, key, what, &from, err);
	if (rc < 0)
		return rc;
	CLEANUP(cleanup_strings) char **list = calloc(json_object_size(from) + 1, sizeof(*list));
	if (!list)
		return error_set(err, -ENOMEM, "%s: out of memory", what);
	size_t n = 0;
	const char *name;
	json_t *value;
	json_object_foreach(from, name, value)
	{
		list[n] = strdup(name);
		if (!list[n++])
			return error_set(err, -ENOMEM, "%s: out of memory", what);
	}
	*out = steal_pointer(&list);
	return 0;
}
