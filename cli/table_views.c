/* SPDX-License-Identifier: Apache-2.0 */
/* table_views.c - options of the verbs that look at VMs and clean up (table.c) */
#include "cli/table.h"

#define OPTION_SINCE                                                                                                   \
	{                                                                                                              \
		.name = "since", .value = "TIME",                                                                      \
		.help = "Only what came since then: 2026-11-28T22:36:32Z, seconds since 1970, or how long ago (10m)"   \
	}
#define OPTION_UNTIL                                                                                                   \
	{                                                                                                              \
		.name = "until", .value = "TIME", .help = "Only what came before; as --since"                          \
	}

const struct option logs_options[] = {
	{.name = "boot", .help = "The guest's console and husk's own words instead of the workload's output"},
	{.name = "follow", .letter = 'f', .help = "Go on until the VM has ended"},
	OPTION_SINCE,
	{.name = "tail", .letter = 'n', .value = "N|all", .help = "Only the last N lines (default all)"},
	{.name = "timestamps", .letter = 't', .help = "Begin each line with its time"},
	OPTION_UNTIL,
	{0},
};

const char logs_description[] = "Shows what the VM's workload has written, its stdout on stdout and its stderr on "
				"stderr, from all its starts as far as the "
				"log's two files hold it (--log-size of 'husk run'). Where something had to be dropped "
				"a line on stderr says how many bytes. "
				"With --follow it goes on until the VM has ended or is removed; Ctrl-C ends it with "
				"exit status 130. A foreground run's "
				"output goes to who started it, so such a VM has the log of its boot only.";

const struct option ps_options[] = {
	{.name = "all", .letter = 'a', .help = "Those that do not run as well"},
	{.name = "filter",
		.letter = 'f',
		.value = "KEY=VALUE",
		.many = true,
		.help = "Only those that fit: status=STATE, name=PART, id=BEGINNING, ancestor=IMAGE or exited=CODE"},
	{.name = "format", .value = "FORM", .choices = "table|json", .help = "How to print them (default table)"},
	{.name = "last", .letter = 'n', .value = "N", .help = "The N that were created last, running or not"},
	{.name = "latest", .letter = 'l', .help = "The one that was created last"},
	{.name = "no-trunc", .help = "Print whole commands and reasons"},
	{.name = "quiet", .letter = 'q', .help = "Ids only"},
	{0},
};

const char ps_description[] = "Lists the VMs that run, or with --all every one there is a record of, the newest first. "
			      "STATUS says what is true now: "
			      "'up' and for how long, 'paused', 'stopped' with the exit status or with what was lost "
			      "(worker lost, supervisor lost, host "
			      "restarted), or 'error' and why. A record that cannot be read is listed with that as its "
			      "status. Several filters of one "
			      "key add up, those of different keys narrow down.";

const struct option events_options[] = {
	{.name = "filter",
		.letter = 'f',
		.value = "KEY=VALUE",
		.many = true,
		.help = "Only those that fit: event=NAME, or vm= with an id, the beginning of one, or a name"},
	{.name = "format",
		.value = "FORM",
		.choices = "json|table",
		.help = "A JSON object in each line (default), or columns"},
	OPTION_SINCE,
	OPTION_UNTIL,
	{0},
};

const char events_description[] =
	"Shows what happens to the VMs of the home as it happens: created, started, ready, exec, paused, resumed, oom, "
	"denied, "
	"stopped, renamed, updated, removed. With --since it begins with what has happened since then, with --until it "
	"ends then; "
	"otherwise it begins now and goes on until it is interrupted. The last 4 MiB of events at least are kept, "
	"those of removed "
	"VMs as well. Several filters of one key add up, those of different keys narrow down.";

const struct option inspect_options[] = {
	{.name = "format", .value = "FORM", .choices = "json", .help = "JSON, which is all there is"},
	{0},
};

const char inspect_description[] =
	"Shows an array of JSON objects: state, reason and status, when it was created, started and ended, its exit "
	"status, "
	"processes, doors and console, the files of its logs with their sizes, and its configuration as 'config'.";

const struct option stats_options[] = {
	{.name = "doors", .help = "What went through the doors instead"},
	{.name = "format", .value = "FORM", .choices = "table|json", .help = "How to print it (default table)"},
	{.name = "no-stream", .help = "Once, also on a terminal"},
	{.name = "prometheus", .help = "In the text format that Prometheus reads"},
	{0},
};

const char stats_description[] = "Shows what the VMs named, or all that run, use: CPU time of their processes on the "
				 "host in percent of one CPU, memory that the "
				 "host holds for the guest and the most there may be, memory that the guest has given "
				 "back, bytes read from and written to "
				 "all disks, bytes to and from the guest, exits of the vCPUs (kvm machine), and "
				 "processes and threads on the host. On a "
				 "terminal every second until it is interrupted, else once.\n\n"
				 "With --doors, for each door: connections accepted, tied to the guest now, waiting "
				 "for a listener and refused; bytes to "
				 "and from the guest; and in milliseconds the medians of connecting to the guest's "
				 "port (CONNECT) and of the time from "
				 "the accept to the guest's first byte (FIRST), with the latter's 99th percentile (P99 "
				 "ms). The format json has all of it.";

const struct option prune_options[] = {
	{.name = "force", .letter = 'f', .help = "Do not ask"},
	{0},
};

const char prune_description[] =
	"Removes every VM that is created, stopped or in error, each with its disk and its logs, and prints their ids "
	"and how much "
	"disk came back. Asks before on a terminal, and refuses without one unless --force is given.";

const struct option gc_options[] = {
	{.name = "dry-run", .help = "Say what would be removed, and remove nothing"},
	{.name = "images", .help = "Images that no VM uses as well"},
	{0},
};

const char gc_description[] = "Removes what crashes and interruptions leave behind: records that were being made, "
			      "sockets, scratch disks and names "
			      "without a VM; layers, blobs and downloads without an image. With --images also every "
			      "image that the record of no VM names. "
			      "Prints a line for each thing, with the reason. Nothing of a VM that runs is touched, "
			      "and what cannot be read keeps "
			      "everything that it might refer to.";
