/* SPDX-License-Identifier: Apache-2.0 */
/* table_life.c - options of the verbs of a VM's life (table.c) */
#include "cli/table.h"

#define VM_IS "VM is an id, the first digits of one (3 at least), or a name. "
#define EACH "Each one is tried, and named when it is done; exit status 1 when one failed."

#define OPTION_DETACH_KEYS                                                                                             \
	{                                                                                                              \
		.name = "detach-keys", .value = "KEYS",                                                                \
		.help = "What to type on a terminal to leave and let the VM be (default ctrl-p,ctrl-q)"                \
	}
#define OPTION_QUIET                                                                                                   \
	{                                                                                                              \
		.name = "quiet", .letter = 'q', .help = "No progress, and no word about the wall"                      \
	}
#define OPTION_SIG_PROXY                                                                                               \
	{                                                                                                              \
		.name = "sig-proxy",                                                                                   \
		.help = "Pass signals on to the command (default true); else they end husk, and the VM lives on"       \
	}
#define OPTION_TIME                                                                                                    \
	{                                                                                                              \
		.name = "time", .letter = 't', .value = "TIME",                                                        \
		.help = "How long they may take to end, as in 10, 1.5s or 2m, before they are killed (default 10s)"    \
	}

const struct option start_options[] = {
	{.name = "attach", .letter = 'a', .help = "Follow the VM's output, and end with its command's exit status"},
	OPTION_DETACH_KEYS,
	{.name = "interactive", .letter = 'i', .help = "The same, and feed the VM's stdin, if it was made with -i"},
	OPTION_QUIET,
	OPTION_SIG_PROXY,
	{0},
};

const struct option attach_options[] = {
	OPTION_DETACH_KEYS,
	{.name = "no-stdin", .help = "Leave the VM's stdin alone"},
	OPTION_SIG_PROXY,
	{0},
};

const struct option stop_options[] = {
	OPTION_TIME,
	{0},
};

const struct option kill_options[] = {
	{.name = "signal",
		.letter = 's',
		.value = "SIGNAL",
		.help = "The signal, as in TERM, SIGHUP, RTMIN+3 or 15; KILL ends the VM itself (default KILL)"},
	{0},
};

const struct option restart_options[] = {
	OPTION_QUIET,
	OPTION_TIME,
	{0},
};

const struct option rm_options[] = {
	{.name = "force", .letter = 'f', .help = "Kill those that run; one that is not there is no failure"},
	{0},
};

const struct option update_options[] = {
	{.name = "memory", .letter = 'm', .value = "SIZE", .help = "Memory, as in 256M"},
	{0},
};

const struct option console_options[] = {
	OPTION_DETACH_KEYS,
	{0},
};

const char start_description[] =
	"Starts VMs that are created, stopped or in error, each with its configuration, its image and the disk that it "
	"wrote, and "
	"returns when they are ready. One that runs already is left as it is. " VM_IS EACH "\n\n"
	"With --attach or --interactive, of one VM, husk stays: see 'husk attach'.";

const char attach_description[] = "Shows what the VM's command prints from now on; 'husk logs' has what was before. "
				  "With a VM that was made with -i, stdin goes "
				  "to the command, and its end as well unless it is a terminal or the VM has one; one "
				  "husk at a time. With one that was made "
				  "with -t, the terminal is the command's until the detach keys are typed.\n\n"
				  "Signals are passed on to the command, as by 'husk run'; a third Ctrl-C leaves the "
				  "VM to itself. Exit status: the "
				  "command's, as of 'husk run'; 0 when the detach keys were typed.";

const char stop_description[] =
	"Asks the command to end, with the image's StopSignal; after half of the time presses the machine's power "
	"button; at its end "
	"kills the VM. The record stays, and 'husk start' starts it again. One that does not run is stopped. " VM_IS
		EACH;

const char kill_description[] = "Ends VMs at once, without asking the guest. With another signal than KILL it is sent "
				"to the command, which does with it what "
				"it likes. " VM_IS EACH;

const char pause_description[] = "The guest stands still until 'husk unpause'; nobody's connections to it end, "
				 "and the command's --timeout stands still, too. " VM_IS EACH;

const char restart_description[] = "As 'husk stop' and 'husk start'. What the VM has written to its disk stays; it "
				   "runs with the configuration it was made "
				   "with. " VM_IS EACH;

const char rm_description[] = "Removes VMs that do not run, each with its disk and its logs. " VM_IS EACH;

const char wait_description[] = "Prints the exit status of each, one a line, in the order of the command line: the "
				"command's own, or as 'husk run' has "
				"them. " VM_IS "Exit status 1 when one cannot be told.";

const char update_description[] =
	"The guest is asked, by its balloon, to do with that much memory from now on, and after a restart: 32M up to "
	"what the VM was "
	"made with. It may keep more when it needs it; 'husk stats' shows what it has given back. " VM_IS EACH;

const char console_description[] =
	"Attaches to the guest's serial console: what its kernel says, and whatever a getty or a debugger there does. "
	"What is typed "
	"goes there as it is, Ctrl-C included, until the detach keys are typed or the VM ends. Several may attach at "
	"once, and then "
	"each sees a part. What was said before is in 'husk logs --boot'; the console's path is in 'husk inspect'.";
