/* SPDX-License-Identifier: Apache-2.0 */
/* reaper.h - PID 1 of a workload that was asked for with --init */
#ifndef GUEST_REAPER_H
#define GUEST_REAPER_H

#include <sys/types.h>

/** Be PID 1 for @child: pass signals on, reap orphans, and end as the child does. All signals must be blocked since before
 *  the child was forked, so that none is lost. */
_Noreturn void reaper_run(pid_t child);

#endif
