/* SPDX-License-Identifier: Apache-2.0 */
/* kernel.c - husk kernel fetch, kernel build and kernel list */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/verbs.h"

#include <jansson.h>
#include <string.h>

int verb_kernel_fetch(struct cli *cli)
{
	struct husk_error err;
	CLEANUP_FREE char *id = NULL;
	if (husk_kernel_fetch(cli->husk, cli_progress_fd(cli), &id, &err) < 0)
		return cli_fail(&err, 1);
	puts(id);
	return 0;
}

int verb_kernel_build(struct cli *cli)
{
	struct husk_error err;
	CLEANUP_FREE char *id = NULL;
	if (husk_kernel_build(cli->husk, cli_value(cli, "fragment"), cli_progress_fd(cli), &id, &err) < 0)
		return cli_fail(&err, 1);
	puts(id);
	return 0;
}

/** The id alone; nothing, and no failure, without a kernel. */
static int print_used(struct cli *cli)
{
	struct husk_error err;
	CLEANUP_FREE char *id = NULL;
	int rc = husk_kernel_find(cli->husk, &id, &err);
	if (rc == -ENOENT)
		return 0;
	if (rc < 0)
		return cli_fail(&err, 1);
	puts(id);
	return 0;
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text ? text : "";
}

int verb_kernel_list(struct cli *cli)
{
	struct husk_error err;
	CLEANUP_FREE char *text = NULL;
	const char *format = cli_value(cli, "format");
	bool json = format && strcmp(format, "json") == 0;
	if (json && cli->quiet) {
		cli_say("--quiet prints an id only, so it excludes --format json");
		return 1;
	}
	if (cli->quiet)
		return print_used(cli);
	if (husk_kernel_list(cli->husk, &text, &err) < 0)
		return cli_fail(&err, 1);
	if (json) {
		puts(text);
		return 0;
	}
	json_t *kernels = json_loads(text, 0, NULL), *kernel;
	size_t i;
	printf("%-56s %-12s  %-4s  %s\n", "KERNEL", "FLAVOR", "USED", "WHY");
	json_array_foreach(kernels, i, kernel)
		printf("%-56s %-12s  %-4s  %s\n", text_of(kernel, "id"), text_of(kernel, "flavor"),
			json_is_true(json_object_get(kernel, "used")) ? "yes" : "no", text_of(kernel, "reason"));
	json_decref(kernels);
	return 0;
}
