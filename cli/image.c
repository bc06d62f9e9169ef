/* SPDX-License-Identifier: Apache-2.0 */
/* image.c - husk pull, import, rmi, image inspect: each is one call per operand */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/verbs.h"

#include <string.h>

static enum husk_pull policy_of(const char *name, enum husk_pull standard)
{
	return !name                         ? standard
	       : strcmp(name, "always") == 0 ? HUSK_PULL_ALWAYS
	       : strcmp(name, "never") == 0  ? HUSK_PULL_NEVER
					     : HUSK_PULL_MISSING;
}

int verb_pull(struct cli *cli)
{
	struct husk_error err;
	struct husk_pull_options options;
	CLEANUP_FREE char *id = NULL;
	husk_pull_options_init(&options);
	options.platform = cli_value(cli, "platform");
	options.offline = cli_flag(cli, "offline");
	options.policy = policy_of(cli_value(cli, "policy"), options.offline ? HUSK_PULL_MISSING : HUSK_PULL_ALWAYS);
	options.progress_fd = cli_progress_fd(cli);
	if (husk_image_pull(cli->husk, cli->operands[0], &options, &id, &err) < 0)
		return cli_fail(&err, 1);
	puts(id);
	return 0;
}

int verb_import(struct cli *cli)
{
	struct husk_error err;
	struct husk_pull_options options;
	CLEANUP_FREE char *id = NULL;
	husk_pull_options_init(&options);
	options.platform = cli_value(cli, "platform");
	options.progress_fd = cli_progress_fd(cli);
	if (husk_image_import(cli->husk, cli->operands[0], cli->operands[1], &options, &id, &err) < 0)
		return cli_fail(&err, 1);
	puts(id);
	return 0;
}

int verb_rmi(struct cli *cli)
{
	int status = 0;
	for (size_t i = 0; i < cli->n_operands; i++) {
		struct husk_error err;
		CLEANUP_FREE char *report = NULL;
		if (husk_image_remove(cli->husk, cli->operands[i], cli_flag(cli, "force"), &report, &err) < 0)
			status = cli_fail(&err, 1);
		else if (*report)
			puts(report);
	}
	return status;
}

int verb_image_inspect(struct cli *cli)
{
	int status = 0;
	putchar('[');
	for (size_t i = 0, n = 0; i < cli->n_operands; i++) {
		struct husk_error err;
		CLEANUP_FREE char *json = NULL;
		if (husk_image_inspect(cli->husk, cli->operands[i], &json, &err) < 0)
			status = cli_fail(&err, 1);
		else
			printf("%s\n%s", n++ ? "," : "", json);
	}
	puts("\n]");
	return status;
}
