/* SPDX-License-Identifier: Apache-2.0 */
/* confine.c - husk-image gives up what it does not need */
#include "image/confine.h"

#include <sys/prctl.h>

int confine(const struct store *store, const char *verb, struct husk_error *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(err, "set no_new_privs");
	return 0;
}
