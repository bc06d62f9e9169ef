/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doors.c - the options that open doors
 *
 * Theory of operation: a value is cut at its colons in place. What is digits only is a port and never an address or a path;
 * an IPv6 address stands in brackets. What can be read in two ways is refused with both ways to write it, since a port that
 * is open somewhere else than meant is worse than an error.
 */
#include "cli/doors.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/parse.h"

#include <string.h>

static bool digits_only(const char *text)
{
	return *text && text[strspn(text, "0123456789")] == 0;
}

static int read_port(const char *text, const char *what, unsigned least, uint16_t *out, struct husk_error *err)
{
	uint64_t n;
	int rc = parse_number(text, what, least, 65535, &n, err);
	if (rc == 0)
		*out = (uint16_t)n;
	return rc;
}

/** Cut "ADDR:" or "[ADDR]:" off the front of @text when there is one; *@rest is what follows. */
static int cut_address(char *text, const char *what, const char **address, char **rest, struct husk_error *err)
{
	char *colon = strchr(text, ':');
	*rest = text;
	if (text[0] == '[') {
		char *end = strchr(text, ']');
		if (!end || end[1] != ':' || end == text + 1)
			return error_set(err, -EINVAL, "%s: '%s' is not an address in brackets with a port behind it",
				what, text);
		*end = 0;
		*address = text + 1;
		*rest = end + 2;
		return 0;
	}
	size_t n = strcspn(text, ":");
	if (!colon || strspn(text, "0123456789") == n)
		return 0;
	*colon = 0;
	*address = text;
	*rest = colon + 1;
	return 0;
}

/** "…/tcp" loses its protocol; any other one is refused. */
static int cut_protocol(char *text, struct husk_error *err)
{
	char *slash = strchr(text, '/');
	if (!slash)
		return 0;
	if (strcmp(slash, "/udp") == 0)
		return error_set(err, -EINVAL,
			"--publish %s: udp cannot be published: a door carries streams, and datagrams are none", text);
	if (strcmp(slash, "/tcp") != 0)
		return error_set(err, -EINVAL, "--publish %s: only /tcp can be published", text);
	*slash = 0;
	return 0;
}

static int unclear(const char *text, struct husk_error *err)
{
	return error_set(err, -EINVAL,
		"--publish: '%s' is not [[ADDR:]PORT:]GUEST; write ADDR::GUEST or 0:GUEST to let the kernel choose the "
		"port",
		text);
}

int door_parse_publish(char *text, struct husk_door *door, struct husk_error *err)
{
	char *rest;
	door->kind = HUSK_DOOR_TCP;
	CLEANUP_FREE char *whole = strdup(text);
	int rc = whole ? cut_protocol(text, err) : error_set(err, -ENOMEM, "--publish: out of memory");
	rc = rc < 0 ? rc : cut_address(text, "--publish", &door->address, &rest, err);
	if (rc < 0)
		return rc;
	char *colon = strchr(rest, ':');
	/* An address needs a place for the port, and no place is left empty without one. */
	if ((door->address && !colon) || (colon == rest && !door->address) || (colon && strchr(colon + 1, ':')))
		return unclear(whole, err);
	if (colon) {
		*colon = 0;
		rc = *rest ? read_port(rest, "--publish: host port", 0, &door->port, err) : 0;
		rest = colon + 1;
	}
	return rc < 0 ? rc : read_port(rest, "--publish: guest port", 1, &door->guest_port, err);
}

int door_parse_http_port(char *text, struct husk_door *door, struct husk_error *err)
{
	char *rest;
	door->kind = HUSK_DOOR_TCP;
	int rc = cut_address(text, "--http-port", &door->address, &rest, err);
	return rc < 0 ? rc : read_port(rest, "--http-port", 0, &door->port, err);
}

int door_parse_tls_port(char *text, struct husk_door *door, struct husk_error *err)
{
	char *rest;
	door->kind = HUSK_DOOR_TLS;
	int rc = cut_address(text, "--tls-port", &door->address, &rest, err);
	if (rc < 0)
		return rc;
	char *colon = strchr(rest, ':');
	if (colon) {
		*colon = 0;
		rc = read_port(colon + 1, "--tls-port: guest port", 1, &door->guest_port, err);
	}
	return rc < 0 ? rc : read_port(rest, "--tls-port", 0, &door->port, err);
}

/** PATH[:PORT]: digits behind the last colon are the port, so a path that ends so needs a port behind it. */
static int parse_path(char *text, const char *what, struct husk_door *door, struct husk_error *err)
{
	char *colon = strrchr(text, ':');
	int rc = 0;
	if (colon && !colon[1])
		return error_set(err, -EINVAL, "%s: '%s' lacks the port behind its ':'", what, text);
	if (colon && digits_only(colon + 1)) {
		*colon = 0;
		rc = read_port(colon + 1, what, 1, &door->guest_port, err);
	}
	if (rc == 0 && !*text)
		return error_set(err, -EINVAL, "%s: there is no path", what);
	door->path = text;
	return rc;
}

int door_parse_vsock_mux(char *text, struct husk_door *door, struct husk_error *err)
{
	door->kind = HUSK_DOOR_UNIX;
	return parse_path(text, "--vsock-mux", door, err);
}

int door_parse_handoff(char *text, struct husk_door *door, struct husk_error *err)
{
	door->kind = HUSK_DOOR_HANDOFF;
	return parse_path(text, "--handoff", door, err);
}

int door_parse_exec_door(char *text, struct husk_door *door, struct husk_error *err)
{
	door->kind = HUSK_DOOR_EXEC;
	door->path = text;
	return *text ? 0 : error_set(err, -EINVAL, "--exec-door: there is no path");
}

static const struct {
	const char *option;
	int (*parse)(char *text, struct husk_door *door, struct husk_error *err);
} parsers[] = {
	{"exec-door", door_parse_exec_door},
	{"handoff", door_parse_handoff},
	{"http-port", door_parse_http_port},
	{"publish", door_parse_publish},
	{"tls-port", door_parse_tls_port},
	{"vsock-mux", door_parse_vsock_mux},
};

/** Certificate and key go to every TLS door. */
static int take_tls(struct door_list *list, const struct cli *cli, struct husk_error *err)
{
	const char *given = cli_value(cli, "tls"), *alpn = cli_value(cli, "tls-alpn");
	size_t n = 0;
	for (size_t i = 0; i < list->n; i++)
		n += list->doors[i].kind == HUSK_DOOR_TLS;
	if (n && !given)
		return error_set(err, -EINVAL, "--tls-port needs --tls CERT:KEY");
	if (!n && (given || alpn))
		return error_set(err, -EINVAL, "%s does nothing without --tls-port", given ? "--tls" : "--tls-alpn");
	if (!n)
		return 0;
	list->tls = strdup(given);
	char *colon = list->tls ? strchr(list->tls, ':') : NULL;
	if (list->tls && (!colon || colon == list->tls || !colon[1] || strchr(colon + 1, ':')))
		return error_set(
			err, -EINVAL, "--tls: '%s' is not CERT:KEY, two paths with one ':' between them", given);
	if (!list->tls)
		return error_set(err, -ENOMEM, "--tls: out of memory");
	*colon = 0;
	for (size_t i = 0; i < list->n; i++) {
		struct husk_door *door = &list->doors[i];
		if (door->kind != HUSK_DOOR_TLS)
			continue;
		door->certificate = list->tls;
		door->key = colon + 1;
		door->alpn = alpn;
	}
	return 0;
}

int door_list_take(struct door_list *list, const struct cli *cli, struct husk_error *err)
{
	list->doors = calloc(cli->n_given + 1, sizeof(*list->doors));
	list->texts = calloc(cli->n_given + 1, sizeof(*list->texts));
	if (!list->doors || !list->texts)
		return error_set(err, -ENOMEM, "read the doors: out of memory");
	for (size_t i = 0; i < cli->n_given; i++) {
		for (size_t k = 0; k < ARRAY_SIZE(parsers); k++) {
			if (strcmp(cli->given[i].option->name, parsers[k].option) != 0)
				continue;
			struct husk_door *door = &list->doors[list->n];
			husk_door_init(door);
			char *text = list->texts[list->n++] = strdup(cli->given[i].value);
			int rc = text ? parsers[k].parse(text, door, err)
				      : error_set(err, -ENOMEM, "read the doors: out of memory");
			if (rc < 0)
				return rc;
		}
	}
	return take_tls(list, cli, err);
}

void door_list_free(struct door_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->texts[i]);
	free(list->texts);
	free(list->doors);
	free(list->tls);
}
