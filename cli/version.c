/* SPDX-License-Identifier: Apache-2.0 */
/* version.c - husk version */
#include "cli/verbs.h"

int verb_version(struct cli *cli)
{
	printf("husk %s\n", husk_version());
	return 0;
}
