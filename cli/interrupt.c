/* SPDX-License-Identifier: Apache-2.0 */
/* interrupt.c - verbs that go on until they are interrupted */
#include "cli/interrupt.h"

#include "base/cleanup.h"

#include <signal.h>

/** Nothing that such a verb does has to be finished, and it may be blocked in a write. */
static void end(int signal_number)
{
	_exit(128 + signal_number);
}

void interrupt_ends(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		struct sigaction now;
		if (sigaction(signals[i], NULL, &now) < 0 || now.sa_handler == SIG_IGN)
			continue;
		now = (struct sigaction){.sa_handler = end};
		sigaction(signals[i], &now, NULL);
	}
}
