/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.c - every verb with its options: the one place that help, completions and manual pages come from
 *
 * The options of `run` and its kin are in table_run.c, those of the other verbs of a VM's life in table_life.c, those of
 * what looks at VMs and cleans up in table_views.c.
 */
#include "cli/table.h"
#include "cli/verbs.h"

static const struct option pull_options[] = {
	{.name = "offline", .help = "Never use the network"},
	{.name = "platform", .value = "OS/ARCH", .help = "The platform, as in linux/amd64"},
	{.name = "policy",
		.value = "WHEN",
		.choices = "missing|always|never",
		.help = "always asks the registry whether the tag has changed (default always)"},
	{.name = "quiet", .letter = 'q', .help = "No progress"},
	{0},
};

static const struct option images_options[] = {
	{.name = "format", .value = "FORM", .choices = "table|json", .help = "How to print them (default table)"},
	{.name = "no-trunc", .help = "Print whole ids"},
	{.name = "quiet", .letter = 'q', .help = "Ids only"},
	{0},
};

static const struct option rmi_options[] = {
	{.name = "force", .letter = 'f', .help = "Remove the image with all its names, and when it is in use"},
	{0},
};

static const struct option import_options[] = {
	{.name = "platform", .value = "OS/ARCH", .help = "The platform that it is for, as in linux/amd64"},
	{.name = "quiet", .letter = 'q', .help = "No progress"},
	{0},
};

static const struct option login_options[] = {
	{.name = "password",
		.letter = 'p',
		.value = "PASSWORD",
		.help = "The password; other users may see it: prefer --password-stdin"},
	{.name = "password-stdin", .help = "Read the password from stdin"},
	{.name = "username", .letter = 'u', .value = "USER", .help = "The user"},
	{0},
};

static const struct option kernel_options[] = {
	{.name = "quiet", .letter = 'q', .help = "No progress"},
	{0},
};

static const struct option kernel_build_options[] = {
	{.name = "fragment", .value = "FILE", .help = "Kernel configuration to add to husk's own, lines as CONFIG_X=y"},
	{.name = "quiet", .letter = 'q', .help = "No progress"},
	{0},
};

static const struct option kernel_list_options[] = {
	{.name = "format", .value = "FORM", .choices = "table|json", .help = "How to print them (default table)"},
	{.name = "quiet", .letter = 'q', .help = "Only the id of the kernel that VMs boot"},
	{0},
};

static const struct option doctor_options[] = {
	{.name = "format", .value = "FORM", .choices = "table|json", .help = "How to print it (default table)"},
	{.name = "selftest", .help = "Boot, run and stop a guest on each machine as well"},
	{0},
};

static const struct option sandbox_run_options[] = {
	{.name = "core", .value = "FILE", .help = "Write a core file for gdb when the program faults or aborts"},
	{.name = "deadline",
		.value = "TIME",
		.help = "End the call after this time, as in 1.5, 100ms or 1m, with exit status 124"},
	{.name = "heap", .value = "SIZE", .help = "The program's heap, as in 16M (default 1M)"},
	{.name = "output", .value = "SIZE", .help = "How large a result may be (default 1M)"},
	{.name = "stack", .value = "SIZE", .help = "The program's stack (default 64K)"},
	{0},
};

static const char sandbox_cc_description[] =
	"Calls a C compiler with what a program for function sandboxes needs: flags, husk's headers, its runtime and "
	"its "
	"linker script. All words are handed to the compiler, so that options and files are the compiler's own: husk "
	"sandbox cc -O2 -g hello.c -o hello.elf. The compiler is $CC, or gcc, or clang. Without -o the program is "
	"a.out; with "
	"-c, -S, -E, -M or -fsyntax-only nothing is linked. A program that has to run on hosts which interpret guest "
	"code is "
	"compiled with -mgeneral-regs-only.\n\n"
	"Build systems take the same flags from pkg-config, package husk-sandbox.";

static const char sandbox_run_description[] =
	"Starts the program in a new sandbox, calls the function, prints its result and ends. Without a function it "
	"lists the "
	"functions of the program, and those of the host that it needs; only print is there, so a program that needs "
	"others "
	"does not start.\n\n"
	"Arguments are read by the function's types: numbers in decimal or, with 0x, in hexadecimal; true or false; "
	"strings as they are; bytes as they are, or the contents of a file with @FILE. Numbers, true and false and "
	"strings are "
	"printed as a line, bytes as they are. What the program itself prints goes to stderr. On a terminal control "
	"characters of "
	"the program's are replaced.\n\n"
	"Exit status: 0; 1 when the function said that it failed; 124 at the deadline; 125 when husk failed or "
	"refused; "
	"128 + n when the program ended as a process would by signal n: 139 after a memory fault, 132 an invalid "
	"instruction, 136 an "
	"arithmetic fault, 134 an abort, 133 a breakpoint.";

const struct verb cli_verbs[] = {
	{"run", "IMAGE [COMMAND [ARG…]]", "Run a command in a microVM made from an image", run_description, run_options,
		0, -1, .rest = true, .own = true, .run = verb_run},
	{"create", "IMAGE [COMMAND [ARG…]]", "Make a VM without starting it", create_description, create_options, 0, -1,
		.rest = true, .run = verb_create},
	{"start", "VM…", "Start VMs that are created or stopped", start_description, start_options, 1, -1,
		.run = verb_start},
	{"attach", "VM", "Follow a running VM's output, and feed its stdin", attach_description, attach_options, 1, 1,
		.run = verb_attach},
	{"stop", "VM…", "Stop VMs", stop_description, stop_options, 1, -1, .run = verb_stop},
	{"kill", "VM…", "End VMs at once, or send their commands a signal", kill_description, kill_options, 1, -1,
		.run = verb_kill},
	{"pause", "VM…", "Halt the CPUs of VMs", pause_description, cli_no_options, 1, -1, .run = verb_pause},
	{"unpause", "VM…", "Let paused VMs go on", NULL, cli_no_options, 1, -1, .run = verb_unpause},
	{"restart", "VM…", "Stop VMs and start them again", restart_description, restart_options, 1, -1,
		.run = verb_restart},
	{"rm", "VM…", "Remove VMs", rm_description, rm_options, 1, -1, .run = verb_rm},
	{"wait", "VM…", "Wait until VMs have ended, and print their exit statuses", wait_description, cli_no_options, 1,
		-1, .run = verb_wait},
	{"rename", "VM NAME", "Give a VM another name", NULL, cli_no_options, 2, 2, .run = verb_rename},
	{"update", "VM…", "Change how much memory VMs have", update_description, update_options, 1, -1,
		.run = verb_update},
	{"console", "VM", "Attach to a VM's console", console_description, console_options, 1, 1, .run = verb_console},
	{"expose", "VM", "Open doors of a running VM", expose_description, expose_options, 1, 1, .run = verb_expose},
	{"unexpose", "VM ENDPOINT…", "Close doors of a running VM",
		"ENDPOINT is what 'husk expose' and 'husk inspect' show. Connections that reached the guest live on.",
		cli_no_options, 2, -1, .run = verb_unexpose},
	{"port", "VM [GUEST[/tcp]]", "Show which host ports lead into a VM",
		"Prints a line for each, as in '80/tcp -> 127.0.0.1:8080'; '80/tls' when TLS is ended there, "
		"'first/tcp' when it "
		"leads to the guest's first listener. With GUEST only the addresses that lead to it; exit status 1 "
		"when there is "
		"none.",
		cli_no_options, 1, 2, .run = verb_port},
	{"ps", "", "List VMs", ps_description, ps_options, 0, 0, .looks = true, .run = verb_ps},
	{"logs", "VM", "Show what a VM's workload has written", logs_description, logs_options, 1, 1, .looks = true,
		.run = verb_logs},
	{"events", "", "Show what happens to VMs", events_description, events_options, 0, 0, .looks = true,
		.run = verb_events},
	{"inspect", "VM…", "Show VMs as JSON", inspect_description, inspect_options, 1, -1, .run = verb_inspect},
	{"stats", "[VM…]", "Show what running VMs use", stats_description, stats_options, 0, -1, .looks = true,
		.run = verb_stats},
	{"cp", "VM:PATH|PATH|- PATH|VM:PATH|-", "Copy files between host and guest", cp_description, cp_options, 2, 2,
		.run = verb_cp},
	{"exec", "VM COMMAND [ARG…]", "Run a command in a VM that runs", exec_description, exec_options, 2, -1, .rest = true,
		.own = true, .run = verb_exec},
	{"pull", "SOURCE", "Bring an image into the store", NULL, pull_options, 1, 1, .run = verb_pull},
	{"images", "", "List the images in the store", NULL, images_options, 0, 0, .run = verb_images},
	{"rmi", "IMAGE…", "Remove images", NULL, rmi_options, 1, -1, .run = verb_rmi},
	{"import", "SOURCE|- [NAME]", "Import a local source, or a root file system tar from stdin", NULL,
		import_options, 1, 2, .run = verb_import},
	{"image inspect", "IMAGE…", "Show images as JSON", NULL, cli_no_options, 1, -1, .run = verb_image_inspect},
	{"login", "[REGISTRY]", "Log in to a registry",
		"Checks the credentials and stores them in ~/.docker/config.json.", login_options, 0, 1,
		.run = verb_login},
	{"logout", "[REGISTRY]", "Forget a registry's credentials", NULL, cli_no_options, 0, 1, .run = verb_logout},
	{"kernel fetch", "", "Fetch and unpack the guest kernel",
		"Downloads Debian's cloud kernel package with apt-get.", kernel_options, 0, 0,
		.run = verb_kernel_fetch},
	{"kernel build", "", "Build the tuned guest kernel",
		"Builds a small kernel with all drivers in it from Debian's package linux-source-6.12, which takes "
		"about ten "
		"minutes on two processors and 3 GiB of disk for as long. VMs boot it from then on, since it starts "
		"faster; the fetched one stays and is a 'husk run --kernel linux' away. Nothing is done when the very "
		"kernel "
		"is there: its id comes from the source's version, the configuration, and the compiler's and the "
		"linker's "
		"versions. Needs: apt-get install build-essential flex bison bc libelf-dev xz-utils.",
		kernel_build_options, 0, 0, .run = verb_kernel_build},
	{"kernel list", "", "Show the guest kernels, and which one VMs boot",
		"A tuned kernel is used wherever one is built, the distribution's otherwise; of several the one made "
		"last.",
		kernel_list_options, 0, 0, .run = verb_kernel_list},
	{"sandbox cc", "[COMPILER-OPTION…] FILE…", "Compile a program for function sandboxes", sandbox_cc_description,
		cli_no_options, 1, -1, .raw = true, .bare = true, .run = verb_sandbox_cc},
	{"sandbox run", "PROGRAM [FUNCTION [ARG…]]", "Call a function of a sandbox program, or list them",
		sandbox_run_description, sandbox_run_options, 1, -1, .rest = true, .own = true, .bare = true,
		.run = verb_sandbox_run},
	{"prune", "", "Remove all VMs that do not run", prune_description, prune_options, 0, 0, .run = verb_prune},
	{"gc", "", "Remove what belongs to nothing", gc_description, gc_options, 0, 0, .looks = true, .run = verb_gc},
	{"doctor", "", "Tell what this machine can do, and why",
		"Exit status 1 when something keeps husk from running VMs.", doctor_options, 0, 0, .bare = true,
		.run = verb_doctor},
	{"version", "", "Show the version", NULL, cli_no_options, 0, 0, .bare = true, .run = verb_version},
	{"completion", "bash|zsh", "Print completions for a shell", "For bash: source <(husk completion bash)",
		cli_no_options, 1, 1, .bare = true, .run = verb_completion},
	{"help", "[COMMAND]", "Show help", NULL, cli_no_options, 0, 2, .bare = true, .run = verb_help},
	{"man", "[COMMAND]", "Print a manual page", NULL, cli_no_options, 0, 2, .bare = true, .hidden = true,
		.run = verb_man},
	{0},
};
