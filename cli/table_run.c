/* SPDX-License-Identifier: Apache-2.0 */
/* table_run.c - options of run, create and expose: what a VM is made with (table.c) */
#include "cli/table.h"

/* Doors, for `run` and `expose`. */
#define OPTION_EXEC_DOOR                                                                                               \
	{                                                                                                              \
		.name = "exec-door", .value = "PATH", .many = true,                                                    \
		.help = "A unix socket that leads to the guest's agent"                                                \
	}
#define OPTION_HANDOFF                                                                                                 \
	{                                                                                                              \
		.name = "handoff", .value = "PATH[:PORT]", .many = true,                                               \
		.help = "A unix socket on which a router hands TCP connections over to the guest's port"               \
	}
#define OPTION_HTTP_PORT                                                                                               \
	{                                                                                                              \
		.name = "http-port", .value = "[ADDR:]PORT", .many = true,                                             \
		.help = "A TCP port that leads to the guest's first listener"                                          \
	}
#define OPTION_PUBLISH                                                                                                 \
	{                                                                                                              \
		.name = "publish", .letter = 'p', .value = "[[ADDR:]PORT:]GUEST[/tcp]", .many = true,                  \
		.help = "A TCP port (of 127.0.0.1, if no other address is given) that leads to the guest's port GUEST" \
	}
#define OPTION_TLS                                                                                                     \
	{                                                                                                              \
		.name = "tls", .value = "CERT:KEY",                                                                    \
		.help = "Certificate chain and private key for --tls-port, PEM files"                                  \
	}
#define OPTION_TLS_ALPN                                                                                                \
	{                                                                                                              \
		.name = "tls-alpn", .value = "LIST",                                                                   \
		.help = "Protocols that --tls-port agrees to, with commas between them (default http/1.1)"             \
	}
#define OPTION_TLS_PORT                                                                                                \
	{                                                                                                              \
		.name = "tls-port", .value = "[ADDR:]PORT[:GUEST]", .many = true,                                      \
		.help = "A TCP port on which TLS is ended; it leads to the guest's port GUEST, or its first listener"  \
	}
#define OPTION_VSOCK_MUX                                                                                               \
	{                                                                                                              \
		.name = "vsock-mux", .value = "PATH[:PORT]", .many = true,                                             \
		.help = "A unix socket that leads to the guest's TCP port PORT, or to its first listener"              \
	}

const struct option run_options[] = {
	{.name = "detach",
		.letter = 'd',
		.help = "Let the VM live on by itself, and print its id; its output goes into its log"},
	{.name = "cidfile", .value = "FILE", .help = "Write the VM's id into this file, which must not exist"},
	{.name = "cmdline", .value = "TEXT", .any = true, .help = "Append to the guest's kernel command line"},
	{.name = "config",
		.value = "FILE",
		.help = "Read the VM's configuration, JSON, from a file, or from stdin with '-'; other options count "
			"more"},
	{.name = "cpus", .value = "N", .help = "Number of CPUs, a whole number (default 1)"},
	{.name = "disk",
		.value = "PATH[:ro][,serial=S]",
		.many = true,
		.help = "Give the VM a disk, a raw image or a block device: /dev/vdb, the next one /dev/vdc, and so "
			"on"},
	{.name = "entrypoint", .value = "PROGRAM", .help = "Use this instead of the image's Entrypoint; \"\" for none"},
	OPTION_ENV,
	OPTION_ENV_FILE,
	OPTION_EXEC_DOOR,
	OPTION_HANDOFF,
	{.name = "hostname", .letter = 'h', .value = "NAME", .help = "The guest's host name (default: the VM's id)"},
	OPTION_HTTP_PORT,
	{.name = "init", .help = "Run a reaper as PID 1, the command as its child"},
	{.name = "initramfs",
		.value = "FILE",
		.help = "Boot a foreign initramfs, without husk's agent: what needs the agent is refused"},
	{.name = "interactive",
		.letter = 'i',
		.help = "Connect stdin, or keep it open for 'husk attach' where the VM lives on; without it the "
			"command reads /dev/null"},
	{.name = "kernel",
		.value = "FILE|ID",
		.help = "Boot this kernel: a file, or the id of one that 'husk kernel list' shows, or how an id "
			"begins"},
	{.name = "listen-wait",
		.value = "TIME",
		.help = "How long a connection waits for its port to be listened on (default 1s, 10s on emulation)"},
	{.name = "log-size",
		.value = "SIZE",
		.help = "Bytes of each of the two files of a log, used in turn (default 16M); where the VM lives on"},
	{.name = "machine", .value = "KIND", .choices = "auto|qemu|kvm", .help = "What runs the guest (default auto)"},
	{.name = "memory", .letter = 'm', .value = "SIZE", .help = "Memory, as in 512M or 2G (default 512M)"},
	{.name = "name", .value = "NAME", .help = "Name the VM; no two VMs have the same"},
	{.name = "offline", .help = "Never use the network for the image"},
	{.name = "platform", .value = "OS/ARCH", .help = "The image's platform, as in linux/amd64"},
	OPTION_PUBLISH,
	{.name = "pull",
		.value = "WHEN",
		.choices = "missing|always|never",
		.help = "Whether to pull the image before (default missing)"},
	{.name = "quiet", .letter = 'q', .help = "No progress, and no word about the wall"},
	{.name = "read-only", .help = "Make the root read-only; volumes, /dev/shm and /tmp stay writable"},
	{.name = "require-hardware", .help = "Refuse to run where only software separates guest and host"},
	{.name = "rm", .help = "Remove the VM when it ends; one that runs in the foreground always is"},
	{.name = "scratch", .value = "SIZE", .help = "Size of the sparse disk for what the guest writes (default 8G)"},
	{.name = "serial",
		.value = "WHERE",
		.choices = "log|inherit|capture",
		.help = "Where the guest's console goes: into the VM's log (default); there and to husk's own output; "
			"or /dev/hvc0, for the command alone, to husk's output"},
	{.name = "shell",
		.value = "KIND",
		.choices = "full|degraded",
		.help = "Walls around the VM's processes: all, or those this host allows (default full)"},
	{.name = "start-timeout", .value = "TIME", .help = "How long the boot may take, as in 60 or 1m (default 60s)"},
	{.name = "timeout",
		.value = "TIME",
		.help = "End the command after this time, counted from its start, with exit status 124"},
	OPTION_TLS,
	OPTION_TLS_ALPN,
	OPTION_TLS_PORT,
	OPTION_TTY,
	OPTION_USER,
	OPTION_VSOCK_MUX,
	{.name = "vsock-port",
		.value = "WHICH",
		.help = "The host ports that the guest reaches over vsock: any (default), none, auto for one from "
			"50000 to "
			"59999, or a number; the guest finds the port in HUSK_VSOCK_PORT"},
	OPTION_WORKDIR,
	{0},
};

const struct option expose_options[] = {
	OPTION_EXEC_DOOR,
	OPTION_HANDOFF,
	OPTION_HTTP_PORT,
	OPTION_PUBLISH,
	OPTION_TLS,
	OPTION_TLS_ALPN,
	OPTION_TLS_PORT,
	OPTION_VSOCK_MUX,
	{0},
};

const char run_description[] =
	"Boots a microVM from the image, runs the command in it with the image's environment, user and directory, "
	"streams its "
	"input and output, and ends with its exit status. IMAGE is a reference (debian:12), an image id, or a local "
	"source: "
	"oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, rootfs:DIR, tar:FILE.\n\n"
	"Exit status: the command's own; 128 + n when signal n ended it; 124 when --timeout was over; 125 when husk or "
	"the VM "
	"failed; 126 when the command cannot be executed, 127 when it is not found.\n\n"
	"With --config IMAGE may be left out: the file names it then. An option on the command line counts more than "
	"the "
	"file: it "
	"replaces a single value and the list of disks or doors, and adds to the environment. docs/configuration.md "
	"has "
	"every "
	"field; 'husk inspect' shows the configuration of a running VM as 'config'.\n\n"
	"A VM in the foreground ends with husk, and is removed. With --detach the VM is ready when husk returns; it "
	"lives on by itself "
	"until its command ends or somebody ends it, keeps its record, its disk and its logs, and can be started "
	"again: see 'husk "
	"start', 'stop', 'logs', 'attach', 'exec' and 'rm'.\n\n"
	"Signals are passed on to the command, but for those that husk was started with ignored, as by nohup; SIGTERM "
	"becomes the image's StopSignal. A third Ctrl-C ends the VM.";

const char create_description[] = "Makes a VM as 'husk run --detach' does, with the same options, and does not start "
				  "it: 'husk start' does. Prints its id. The "
				  "image is pulled if need be, and everything is checked as for a start.";

const char expose_description[] =
	"Opens doors of a VM that runs: sockets of the host that lead into it. VM is an id, the first digits of one, "
	"or a name. "
	"Prints where each door is, one per line. The doors close with the VM, or by 'husk unexpose'.\n\n"
	"Without a port a door leads to the guest's first listener: the program that has listened on a TCP port for "
	"the longest "
	"time. A connection that comes before anybody listens waits; see --listen-wait of 'husk run'.";
