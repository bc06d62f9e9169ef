/* SPDX-License-Identifier: Apache-2.0 */
/* images.c - husk images: the store as a table or as JSON */
#include "base/age.h"
#include "base/cleanup.h"
#include "base/rfc3339.h"
#include "base/size.h"
#include "base/when.h"
#include "cli/verbs.h"

#include <jansson.h>
#include <string.h>

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text ? text : "";
}

/** "3 days ago" from RFC 3339; "" when it does not say. */
static void print_age(char *out, size_t room, const char *created)
{
	char age[AGE_SIZE];
	uint64_t ns;
	*out = 0;
	if (!when_read(created, strlen(created), &ns, NULL))
		return;
	age_since(ns, clock_realtime_ns(), age);
	snprintf(out, room, "%.*s ago", AGE_SIZE, age);
}

static void print_row(const struct cli *cli, const json_t *image, const char *name)
{
	char age[AGE_SIZE + 8], size[SIZE_TEXT];
	const char *id = text_of(image, "id");
	const char *hex = strchr(id, ':') ? strchr(id, ':') + 1 : id;
	print_age(age, sizeof(age), text_of(image, "created"));
	size_format((uint64_t)json_integer_value(json_object_get(image, "size")), size);
	if (cli->quiet)
		printf("%.*s\n", cli_flag(cli, "no-trunc") ? 71 : 12, cli_flag(cli, "no-trunc") ? id : hex);
	else
		printf("%-44s %-*.*s  %-20s %8s\n", name, cli_flag(cli, "no-trunc") ? 71 : 12,
			cli_flag(cli, "no-trunc") ? 71 : 12, cli_flag(cli, "no-trunc") ? id : hex, age, size);
}

int verb_images(struct cli *cli)
{
	struct husk_error err;
	CLEANUP_FREE char *text = NULL;
	const char *format = cli_value(cli, "format");
	if (format && strcmp(format, "json") == 0 && cli->quiet) {
		cli_say("--quiet prints ids only, so it excludes --format json");
		return 1;
	}
	if (husk_image_list(cli->husk, &text, &err) < 0)
		return cli_fail(&err, 1);
	if (format && strcmp(format, "json") == 0) {
		puts(text);
		return 0;
	}
	json_t *images = json_loads(text, 0, NULL), *image, *name;
	size_t i, j;
	if (!cli->quiet)
		printf("%-44s %-*s  %-20s %8s\n", "IMAGE", cli_flag(cli, "no-trunc") ? 71 : 12, "ID", "CREATED",
			"SIZE");
	json_array_foreach(images, i, image)
	{
		json_t *names = json_object_get(image, "names");
		if (json_array_size(names) == 0 || cli->quiet) {
			print_row(cli, image, "<none>");
			continue;
		}
		json_array_foreach(names, j, name) print_row(cli, image, json_string_value(name));
	}
	json_decref(images);
	return 0;
}
