/* SPDX-License-Identifier: Apache-2.0 */
/* table.h - options and descriptions of verbs that have a table of their own (table.c) */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include "cli/cli.h"

/* What is said of a command that is started in a VM, for `run`, `create` and `exec`. */
#define OPTION_ENV                                                                                                     \
	{                                                                                                              \
		.name = "env", .letter = 'e', .value = "NAME[=VALUE]", .many = true,                                   \
		.help = "Set an environment variable; a name alone takes its value from husk's own environment"        \
	}
#define OPTION_ENV_FILE                                                                                                \
	{                                                                                                              \
		.name = "env-file", .value = "FILE", .many = true,                                                     \
		.help = "Read environment variables from a file, one per line"                                         \
	}
#define OPTION_TTY                                                                                                     \
	{                                                                                                              \
		.name = "tty", .letter = 't', .help = "Give the command a terminal"                                    \
	}
#define OPTION_USER                                                                                                    \
	{                                                                                                              \
		.name = "user", .letter = 'u', .value = "USER[:GROUP]",                                                \
		.help = "Run as this user, names or numbers"                                                           \
	}
#define OPTION_WORKDIR                                                                                                 \
	{                                                                                                              \
		.name = "workdir", .letter = 'w', .value = "DIR", .help = "Working directory in the guest"             \
	}

/* table_run.c */
extern const struct option run_options[]; /* the first one is --detach, which `create` does not have */
#define create_options (run_options + 1)
extern const struct option expose_options[];
extern const char run_description[], create_description[], expose_description[];

/* table_exec.c */
extern const struct option exec_options[], cp_options[];
extern const char exec_description[], cp_description[];

/* table_life.c */
extern const struct option start_options[], attach_options[], stop_options[], kill_options[], restart_options[];
extern const struct option rm_options[], update_options[], console_options[];
extern const char start_description[], attach_description[], stop_description[], kill_description[];
extern const char pause_description[], restart_description[], rm_description[], wait_description[];
extern const char update_description[], console_description[];

/* table_views.c */
extern const struct option ps_options[], logs_options[], events_options[], inspect_options[], stats_options[], prune_options[], gc_options[];
extern const char ps_description[], logs_description[], events_description[];
extern const char inspect_description[], stats_description[], prune_description[], gc_description[];

#endif
