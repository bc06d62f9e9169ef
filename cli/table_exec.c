/* SPDX-License-Identifier: Apache-2.0 */
/* table_exec.c - options and descriptions of `exec` and `cp` */
#include "cli/table.h"

const struct option exec_options[] = {
	{.name = "detach", .letter = 'd', .help = "Return when the command has started; it runs on alone"},
	{.name = "detach-keys",
		.value = "KEYS",
		.help = "Keys that leave a terminal session and let the command run on (default ctrl-p,ctrl-q)"},
	OPTION_ENV,
	OPTION_ENV_FILE,
	{.name = "file",
		.value = "HOST:GUEST",
		.many = true,
		.help = "Write a file of the host's into the guest before the command starts, as the command's user"},
	{.name = "group-add", .value = "GROUP", .many = true, .help = "A further group, name or number"},
	{.name = "interactive", .letter = 'i', .help = "Connect stdin; without it the command reads /dev/null"},
	{.name = "timeout",
		.value = "TIME",
		.help = "Kill the command with its process group after this time, with exit status 124"},
	OPTION_TTY,
	OPTION_USER,
	OPTION_WORKDIR,
	{0},
};

const char exec_description[] =
	"The command joins the VM's workload: its root, processes and cgroup. What is not said, user, working "
	"directory and "
	"environment, is the workload's. Signals that husk gets are passed on; the third Ctrl-C ends the command.\n\n"
	"The exit status is the command's; 128 + n when it died of signal n, 124 when its time was over, 126 when it "
	"cannot "
	"be executed, 127 when it was not found, 125 when husk failed. Each argument may have 131071 bytes, all of it "
	"with "
	"files and variables 1 MiB: more goes through stdin, or 'husk cp'.";

const struct option cp_options[] = {
	{.name = "archive", .letter = 'a', .help = "Keep the owners, by number; out of a guest only root can"},
	{.name = "follow-link", .letter = 'L', .help = "A source that is a symbolic link is followed"},
	{.name = "quiet", .letter = 'q', .help = "No progress"},
	{.name = "user", .letter = 'u', .value = "USER[:GROUP]", .help = "On whose behalf in the guest (default root)"},
	{0},
};

const char cp_description[] = "One of the places is VM:PATH, the other a path of the host's. A source goes into a "
			      "directory under its own name, and "
			      "otherwise becomes what the target is called, in a directory that exists; 'DIR/.' is "
			      "what is in DIR. '-' stands for a "
			      "tar archive, on stdin or stdout; the target of one is a directory.\n\n"
			      "Modes, times, links and holes are kept. Out of a guest come no devices and no sockets, "
			      "and nothing is written but "
			      "beneath the target, whatever names the guest sends.";
