/* SPDX-License-Identifier: Apache-2.0 */
/* expose.c - husk expose, unexpose, port: the doors of a VM that runs */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/doors.h"
#include "cli/verbs.h"

#include <jansson.h>
#include <string.h>

int verb_expose(struct cli *cli)
{
	CLEANUP(door_list_free) struct door_list list = {0};
	struct husk_error err;
	if (door_list_take(&list, cli, &err) < 0)
		return cli_fail(&err, 1);
	if (!list.n) {
		cli_say("no door to open: choose one of the options that 'husk expose --help' lists");
		return 1;
	}
	for (size_t i = 0; i < list.n; i++) {
		CLEANUP_FREE char *endpoint = NULL;
		if (husk_expose(cli->husk, cli->operands[0], &list.doors[i], &endpoint, &err) < 0)
			return cli_fail(&err, 1);
		puts(endpoint);
		fflush(stdout);
	}
	return 0;
}

int verb_unexpose(struct cli *cli)
{
	struct husk_error err;
	int status = 0;
	for (size_t i = 1; i < cli->n_operands; i++)
		if (husk_unexpose(cli->husk, cli->operands[0], cli->operands[i], &err) < 0)
			status = cli_fail(&err, 1);
	return status;
}

/** A door in the form of `port`: "80/tcp", "80/tls", "first/tcp"; false for one that has no port on the host. */
static bool name_port(const json_t *door, char *out, size_t room)
{
	const char *kind = json_string_value(json_object_get(door, "kind"));
	int port = (int)json_integer_value(json_object_get(door, "guest_port"));
	if (!kind || (strcmp(kind, "tcp") != 0 && strcmp(kind, "tls") != 0))
		return false;
	if (port)
		snprintf(out, room, "%d/%s", port, kind);
	else
		snprintf(out, room, "first/%s", kind);
	return true;
}

int verb_port(struct cli *cli)
{
	CLEANUP_FREE char *text = NULL;
	struct husk_error err;
	const char *asked = cli->operands[1];
	char wanted[32] = "", name[32];
	size_t found = 0, index;
	if (asked && snprintf(wanted, sizeof(wanted), "%s%s", asked, strchr(asked, '/') ? "" : "/tcp") >=
			     (int)sizeof(wanted))
		wanted[0] = '?';
	if (husk_inspect(cli->husk, cli->operands[0], &text, &err) < 0)
		return cli_fail(&err, 1);
	json_t *vm = json_loads(text, 0, NULL), *door;
	json_array_foreach(json_object_get(vm, "doors"), index, door)
	{
		const char *endpoint = json_string_value(json_object_get(door, "endpoint"));
		if (!endpoint || !name_port(door, name, sizeof(name)))
			continue;
		if (!asked)
			printf("%s -> %s\n", name, endpoint);
		else if (strcmp(name, wanted) == 0)
			puts(endpoint);
		else
			continue;
		found++;
	}
	json_decref(vm);
	if (asked && !found)
		cli_say("no host port leads to %s of %s", asked, cli->operands[0]);
	return asked && !found;
}
