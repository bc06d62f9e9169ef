/* SPDX-License-Identifier: Apache-2.0 */
/* check_doors.c - refuse doors that cannot be, before anything is done for them */
#include "engine/check.h"

#include "base/cleanup.h"
#include "base/state.h"

#include <jansson.h>
#include <netdb.h>
#include <string.h>

/** Which fields a kind of door goes by. */
struct door_rule {
	const char *kind;
	bool path, address, guest_port, certificate;
};

static const struct door_rule door_rules[] = {
	[HUSK_DOOR_UNIX] = {"unix", .path = true, .guest_port = true},
	[HUSK_DOOR_TCP] = {"tcp", .address = true, .guest_port = true},
	[HUSK_DOOR_EXEC] = {"exec", .path = true},
	[HUSK_DOOR_HANDOFF] = {"handoff", .path = true, .guest_port = true},
	[HUSK_DOOR_TLS] = {"tls", .address = true, .guest_port = true, .certificate = true},
};

/** Protocol names of ALPN, comma-separated: what a TLS server takes, and fits the record. */
static bool alpn_ok(const char *list)
{
	size_t n = strlen(list);
	if (n == 0 || n >= sizeof(((struct vm_door *)0)->alpn) || list[0] == ',' || list[n - 1] == ',' ||
		strstr(list, ",,"))
		return false;
	for (const char *at = list; *at; at++)
		if (*at <= ' ' || *at > '~')
			return false;
	return true;
}

/** A path that the record and JSON can hold. */
static bool text_ok(const char *path)
{
	json_t *json = json_string(path); /* NULL when it is not UTF-8 */
	bool ok = json && *path;
	json_decref(json);
	for (const char *at = path; *at; at++)
		ok = ok && (unsigned char)*at >= ' ' && *at != 0x7f;
	return ok;
}

static bool numeric(const char *address)
{
	const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	if (!*address || getaddrinfo(address, NULL, &hints, &found) != 0)
		return false;
	freeaddrinfo(found);
	return true;
}

int check_door(const struct husk_door *door, struct husk_error *err)
{
	size_t kind = (size_t)door->kind;
	if (kind >= ARRAY_SIZE(door_rules) || !door_rules[kind].kind)
		return error_set(err, -EINVAL, "%d is not a kind of door", (int)door->kind);
	const struct door_rule *rule = &door_rules[kind];
	const struct {
		bool given, belongs, required;
		const char *name;
	} fields[] = {
		{door->path != NULL, rule->path, rule->path, "path"},
		{door->address != NULL, rule->address, false, "address"},
		{door->port != 0, rule->address, false, "port"},
		{door->guest_port != 0, rule->guest_port, false, "guest port"},
		{door->certificate != NULL, rule->certificate, rule->certificate, "certificate"},
		{door->key != NULL, rule->certificate, rule->certificate, "key"},
		{door->alpn != NULL, rule->certificate, false, "list of protocols (ALPN)"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		if (fields[i].given && !fields[i].belongs)
			return error_set(err, -EINVAL, "a door of kind %s has no %s", rule->kind, fields[i].name);
		if (fields[i].required && !fields[i].given)
			return error_set(err, -EINVAL, "a door of kind %s needs a %s", rule->kind, fields[i].name);
	}
	if (door->address && !numeric(door->address))
		return error_set(err, -EINVAL, "'%s' is not a numeric IPv4 or IPv6 address", door->address);
	if (door->path && !text_ok(door->path))
		return error_set(
			err, -EINVAL, "the path of a door of kind %s is empty or not printable UTF-8", rule->kind);
	if (door->alpn && !alpn_ok(door->alpn))
		return error_set(err, -EINVAL,
			"'%s' is not a list of protocols for ALPN: names separated by commas, at most %zu bytes",
			door->alpn, sizeof(((struct vm_door *)0)->alpn) - 1);
	return 0;
}

static bool same_text(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

/** Two doors with one endpoint: the second would say that the address is in use, by whom it would not. */
static bool same_endpoint(const struct husk_door *a, const struct husk_door *b)
{
	if (a->path || b->path)
		return same_text(a->path, b->path);
	static const char standard[] = "127.0.0.1";
	return a->port && a->port == b->port &&
	       same_text(a->address ? a->address : standard, b->address ? b->address : standard);
}

static int twice(const struct husk_door *door, struct husk_error *err)
{
	if (door->path)
		return error_set(err, -EINVAL, "two doors are to be at %s", door->path);
	return error_set(err, -EINVAL, "two doors are to be at %s, port %u",
		door->address ? door->address : "127.0.0.1", door->port);
}

int check_doors(const struct husk_vm_config *config, struct husk_error *err)
{
	if (config->n_doors > CHECK_DOORS_MAX)
		return error_set(
			err, -E2BIG, "doors: %zu are too many: %d is the most", config->n_doors, CHECK_DOORS_MAX);
	for (size_t i = 0; i < config->n_doors; i++) {
		const struct husk_door *door = &config->doors[i];
		int rc = check_door(door, err);
		for (size_t k = 0; k < i && rc == 0; k++)
			if (same_endpoint(door, &config->doors[k]))
				rc = twice(door, err);
		if (rc < 0)
			return error_prefix(err, rc, "doors[%zu]", i);
	}
	return 0;
}
