/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.c - husk inspect: what is known of VMs */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/verbs.h"

#include <jansson.h>

int verb_inspect(struct cli *cli)
{
	json_t *vms = json_array();
	int status = 0;

	for (size_t i = 0; i < cli->n_operands; i++) {
		CLEANUP_FREE char *text = NULL;
		struct husk_error err;
		if (husk_inspect(cli->husk, cli->operands[i], &text, &err) < 0)
			status = cli_fail(&err, 1);
		else
			json_array_append_new(vms, json_loads(text, 0, NULL));
	}
	json_dumpf(vms, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(vms);
	return status;
}
