/* SPDX-License-Identifier: Apache-2.0 */
/* gc.c - husk gc, husk prune: clean up what belongs to nothing, and VMs that do not run */
#include "base/cleanup.h"
#include "base/size.h"
#include "cli/verbs.h"

#include <string.h>

int verb_gc(struct cli *cli)
{
	CLEANUP_FREE char *report = NULL;
	struct husk_error err;

	if (husk_gc(cli->husk, cli_flag(cli, "images"), cli_flag(cli, "dry-run"), &report, &err) < 0)
		return cli_fail(&err, 1);
	if (*report)
		puts(report);
	return 0;
}

/** Whether the user at the terminal says yes. */
static bool confirm(void)
{
	char answer[16];

	fputs("This removes every VM that does not run, with its disk and its logs. Go on? [y/N] ", stderr);
	return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

int verb_prune(struct cli *cli)
{
	CLEANUP_FREE char *report = NULL;
	char size[SIZE_TEXT];
	struct husk_error err;
	uint64_t freed;

	if (!cli_flag(cli, "force") && !isatty(STDIN_FILENO)) {
		cli_say("prune removes every VM that does not run; there is no terminal to ask at, so say --force");
		return 1;
	}
	if (!cli_flag(cli, "force") && !confirm())
		return 1;
	if (husk_vm_prune(cli->husk, &report, &freed, &err) < 0)
		return cli_fail(&err, 1);
	if (*report)
		puts(report);
	size_format(freed, size);
	printf("Total reclaimed space: %s\n", size);
	return 0;
}
