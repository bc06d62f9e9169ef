/* SPDX-License-Identifier: Apache-2.0 */
/* table.c - every verb with its options: the one place that help, completions and manual pages come from */
#include "cli/verbs.h"

static const struct option run_options[] = {
	{.name = "cmdline", .value = "TEXT", .any = true, .help = "Append to the guest's kernel command line"},
	{.name = "cpus", .value = "N", .help = "Number of CPUs, a whole number (default 1)"},
	{.name = "entrypoint", .value = "PROGRAM", .help = "Use this instead of the image's Entrypoint; \"\" for none"},
	{.name = "env",
		.letter = 'e',
		.value = "NAME[=VALUE]",
		.many = true,
		.help = "Set an environment variable; a name alone takes its value from husk's own environment"},
	{.name = "env-file",
		.value = "FILE",
		.many = true,
		.help = "Read environment variables from a file, one per line"},
	{.name = "hostname", .letter = 'h', .value = "NAME", .help = "The guest's host name (default: the VM's id)"},
	{.name = "init", .help = "Run a reaper as PID 1, the command as its child"},
	{.name = "initramfs",
		.value = "FILE",
		.help = "Boot a foreign initramfs, without husk's agent: what needs the agent is refused"},
	{.name = "interactive", .letter = 'i', .help = "Connect stdin; without it the command reads /dev/null"},
	{.name = "kernel", .value = "FILE", .help = "Boot this kernel instead of the fetched one"},
	{.name = "machine", .value = "KIND", .choices = "auto|qemu|kvm", .help = "What runs the guest (default auto)"},
	{.name = "memory", .letter = 'm', .value = "SIZE", .help = "Memory, as in 512M or 2G (default 512M)"},
	{.name = "name", .value = "NAME", .help = "Name the VM; no two VMs have the same"},
	{.name = "offline", .help = "Never use the network for the image"},
	{.name = "platform", .value = "OS/ARCH", .help = "The image's platform, as in linux/amd64"},
	{.name = "pull",
		.value = "WHEN",
		.choices = "missing|always|never",
		.help = "Whether to pull the image before (default missing)"},
	{.name = "quiet", .letter = 'q', .help = "No progress, and no word about the wall"},
	{.name = "read-only", .help = "Make the root read-only; volumes, /dev/shm and /tmp stay writable"},
	{.name = "require-hardware", .help = "Refuse to run where only software separates guest and host"},
	{.name = "rm", .help = "Accepted: a foreground run's VM is always removed at its end"},
	{.name = "scratch", .value = "SIZE", .help = "Size of the sparse disk for what the guest writes (default 8G)"},
	{.name = "start-timeout", .value = "TIME", .help = "How long the boot may take, as in 60 or 1m (default 60s)"},
	{.name = "timeout",
		.value = "TIME",
		.help = "End the command after this time, counted from its start, with exit status 124"},
	{.name = "tty", .letter = 't', .help = "Give the command a terminal"},
	{.name = "user", .letter = 'u', .value = "USER[:GROUP]", .help = "Run as this user, names or numbers"},
	{.name = "workdir", .letter = 'w', .value = "DIR", .help = "Working directory in the guest"},
	{0},
};

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

static const struct option format_options[] = {
	{.name = "format", .value = "FORM", .choices = "table|json", .help = "How to print it (default table)"},
	{0},
};

static const char run_description[] =
	"Boots a microVM from the image, runs the command in it with the image's environment, user and directory, "
	"streams its "
	"input and output, and ends with its exit status. IMAGE is a reference (debian:12), an image id, or a local "
	"source: "
	"oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, rootfs:DIR, tar:FILE.\n\n"
	"Exit status: the command's own; 128 + n when signal n ended it; 124 when --timeout was over; 125 when husk or "
	"the VM "
	"failed; 126 when the command cannot be executed, 127 when it is not found.\n\n"
	"Signals are passed on to the command; SIGTERM becomes the image's StopSignal. A third Ctrl-C ends the VM.";

const struct verb cli_verbs[] = {
	{"run", "IMAGE [COMMAND [ARG…]]", "Run a command in a microVM made from an image", run_description, run_options,
		1, -1, .rest = true, .run = verb_run},
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
	{"kernel list", "", "Show the guest kernel that VMs boot", NULL, cli_no_options, 0, 0, .run = verb_kernel_list},
	{"gc", "", "Remove what no image refers to", NULL, cli_no_options, 0, 0, .run = verb_gc},
	{"doctor", "", "Tell what this machine can do, and why",
		"Exit status 1 when something keeps husk from running VMs.", format_options, 0, 0, .bare = true,
		.run = verb_doctor},
	{"version", "", "Show the version", NULL, cli_no_options, 0, 0, .bare = true, .run = verb_version},
	{"completion", "bash|zsh", "Print completions for a shell", "For bash: source <(husk completion bash)",
		cli_no_options, 1, 1, .bare = true, .run = verb_completion},
	{"help", "[COMMAND]", "Show help", NULL, cli_no_options, 0, 2, .bare = true, .run = verb_help},
	{"man", "[COMMAND]", "Print a manual page", NULL, cli_no_options, 0, 2, .bare = true, .hidden = true,
		.run = verb_man},
	{0},
};
