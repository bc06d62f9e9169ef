/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor.c - what this machine can do, and why, in words a user can act on
 *
 * Theory of operation: one function per topic appends findings to a list. Nothing is changed on the machine.
 */
#include "engine/doctor.h"

#include "base/buffer.h"
#include "base/path.h"
#include "engine/findings.h"
#include "engine/helper.h"
#include "engine/kernel.h"
#include "engine/machine.h"
#include "engine/shell.h"

#include <string.h>
#include <sys/statvfs.h>

#define SPACE_WANTED (2ull << 30)
#define MEMORY_WANTED (1ull << 30)

/** What the kind of KVM means for function sandboxes, which have no other machine. */
static void look_at_sandboxes(struct findings *f, enum kvm_host kvm)
{
	if (kvm == KVM_HOST_HARDWARE)
		findings_add(f, HUSK_FINDING_OK, "sandbox", NULL, "function sandboxes run on the CPU, by /dev/kvm");
	else if (kvm == KVM_HOST_INTERPRETED)
		findings_add(f, HUSK_FINDING_NOTE, "sandbox",
			"compile sandbox programs with: husk sandbox cc -mgeneral-regs-only",
			"function sandboxes run only programs without SSE, x87, popcnt and int3, as /dev/kvm "
			"interprets guest code");
	else
		findings_add(f, HUSK_FINDING_NOTE, "sandbox", NULL,
			"function sandboxes cannot run here: they need a /dev/kvm that works, and have no emulation");
}

/** True when VMs run on `kvm`, so that QEMU is not needed. */
static bool look_at_kvm(struct findings *f, const struct husk *husk)
{
	struct machine_host host;
	const char *text = host.why;
	machine_look(husk, true, &host);
	switch (host.kvm) {
	case KVM_HOST_HARDWARE:
		findings_add(f, HUSK_FINDING_OK, "kvm", NULL, "/dev/kvm runs guests on the CPU (%s)", text);
		break;
	case KVM_HOST_INTERPRETED:
		findings_add(f, HUSK_FINDING_NOTE, "kvm", NULL,
			"/dev/kvm interprets guest code instead of running it on the CPU (%s): no hardware wall here",
			text);
		break;
	case KVM_HOST_DENIED:
		findings_add(f, HUSK_FINDING_NOTE, "kvm",
			"add yourself to the group kvm: adduser $USER kvm, then log in again",
			"/dev/kvm cannot be opened: %s", text);
		break;
	case KVM_HOST_ABSENT:
		findings_add(f, HUSK_FINDING_NOTE, "kvm",
			"on real hardware enable VT-x or SVM in the firmware; in a VM enable nested virtualisation",
			"%s: no hardware wall here", text);
		break;
	case KVM_HOST_BROKEN:
		findings_add(f, HUSK_FINDING_NOTE, "kvm", NULL, "%s: no hardware wall here", text);
		break;
	}
	if (host.kvm == KVM_HOST_HARDWARE)
		findings_add(f, HUSK_FINDING_OK, "wall", NULL, "VMs run on the machine 'kvm': the `hardware` wall");
	else
		findings_add(f, HUSK_FINDING_NOTE, "wall", NULL,
			"VMs run on the machine 'qemu': software emulation, the `software` wall");
	look_at_sandboxes(f, host.kvm);
	return host.kvm == KVM_HOST_HARDWARE;
}

static void look_at_qemu(struct findings *f, bool needed)
{
	enum husk_finding_status missing = needed ? HUSK_FINDING_ERROR : HUSK_FINDING_NOTE;
	static const char remedy[] = "apt-get update && apt-get install qemu-system-x86";
	CLEANUP_FREE char *path = engine_find_program("qemu-system-x86_64");
	CLEANUP_BUFFER struct buffer out = {0};
	struct husk_error err;
	int major, minor;
	if (!path) {
		findings_add(f, missing, "qemu", remedy, "qemu-system-x86_64 is not installed");
		return;
	}
	const char *const argv[] = {"qemu-system-x86_64", "--version", NULL};
	struct helper helper = {
		.path = path, .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .cancel_fd = -1};
	if (helper_run(&helper, &out, &err) < 0) {
		findings_add(f, missing, "qemu", remedy, "%s does not run: %s", path, err.message);
		return;
	}
	buffer_append(&out, "", 1);
	if (sscanf((char *)buffer_bytes(&out), "QEMU emulator version %d.%d", &major, &minor) != 2)
		findings_add(f, HUSK_FINDING_WARNING, "qemu", NULL, "%s does not tell its version", path);
	else if (major < 7)
		findings_add(f, HUSK_FINDING_WARNING, "qemu", "install QEMU 7.2 or newer",
			"%s is version %d.%d, older than any tested one", path, major, minor);
	else
		findings_add(f, HUSK_FINDING_OK, "qemu", NULL, "%s is version %d.%d", path, major, minor);
}

static void look_at_tools(struct findings *f)
{
	static const struct {
		const char *program, *package, *use;
		enum husk_finding_status status;
	} tools[] = {
		{"mke2fs", "e2fsprogs", "makes scratch disks", HUSK_FINDING_ERROR},
		{"mmdebstrap", "mmdebstrap", "makes Debian images from packages (make demo)", HUSK_FINDING_NOTE},
		{"apt-get", "apt", "fetches the guest kernel", HUSK_FINDING_NOTE},
		{"dpkg-deb", "dpkg", "unpacks the guest kernel", HUSK_FINDING_NOTE},
	};
	for (size_t i = 0; i < ARRAY_SIZE(tools); i++) {
		CLEANUP_FREE char *path = engine_find_program(tools[i].program);
		CLEANUP_FREE char *remedy = path_format("apt-get update && apt-get install %s", tools[i].package);
		if (path)
			findings_add(f, HUSK_FINDING_OK, tools[i].program, NULL, "%s %s", path, tools[i].use);
		else
			findings_add(f, tools[i].status, tools[i].program, remedy, "%s is not installed; it %s",
				tools[i].program, tools[i].use);
	}
}

static void look_at_helpers(struct findings *f, const struct husk *husk)
{
	static const struct {
		const char *name, *without; /* what does not work then; NULL: nothing does */
	} helpers[] = {
		{"husk-vmm", NULL},
		{"husk-image", NULL},
		{"husk-init", NULL},
		{"husk-tls", "doors with TLS are refused"},
	};
	size_t missing = 0;
	for (size_t i = 0; i < ARRAY_SIZE(helpers); i++) {
		const char *without = helpers[i].without;
		CLEANUP_FREE char *path = NULL;
		struct husk_error err;
		if (engine_helper(husk, helpers[i].name, &path, &err) == 0)
			continue;
		findings_add(f, without ? HUSK_FINDING_WARNING : HUSK_FINDING_ERROR, "helpers",
			"install husk again (make install), or set HUSK_LIBEXEC", "%s%s%s", err.message,
			without ? "; without it " : "", without ? without : "");
		missing++;
	}
	if (!missing)
		findings_add(f, HUSK_FINDING_OK, "helpers", NULL, "husk's helper programs are in %s", husk->libexec);
}

static void look_at_kernel(struct findings *f, const struct husk *husk)
{
	struct kernel kernel = {0};
	struct husk_error err;
	if (kernel_find(husk->home, NULL, &kernel, &err) == 0)
		findings_add(f, HUSK_FINDING_OK, "kernel", NULL, "guest kernel %s", kernel.id);
	else
		findings_add(f, HUSK_FINDING_ERROR, "kernel", "husk kernel fetch", "%s", err.message);
	kernel_free(&kernel);
}

static void look_at_shell(struct findings *f, const struct husk *husk)
{
	CLEANUP(shell_choice_free) struct shell_choice found = {0};
	CLEANUP_FREE char *missing = NULL;
	struct husk_error err;
	if (shell_look(husk, &found, &err) < 0 || shell_missing(&found, &missing, &err) < 0)
		findings_add(f, HUSK_FINDING_ERROR, "shell", NULL, "%s", err.message);
	else if (*missing)
		findings_add(f, HUSK_FINDING_WARNING, "shell",
			geteuid() == 0 ? "in a container: run it with --privileged, or husk with --shell=degraded"
				       : "allow user namespaces (sysctl user.max_user_namespaces, "
					 "kernel.unprivileged_userns_clone, "
					 "kernel.apparmor_restrict_unprivileged_userns), or run husk with "
					 "--shell=degraded",
			"the shell around VMs cannot be built here; missing: %s", missing);
	else
		findings_add(f, HUSK_FINDING_OK, "shell", NULL,
			"worker and QEMU of a VM get namespaces, a root, %s and a filter of system calls of their own",
			geteuid() == 0 ? "an id" : "no capabilities");
}

static void look_at_home(struct findings *f, const struct husk *husk)
{
	struct statvfs fs;
	if (statvfs(husk->home, &fs) < 0) {
		findings_add(f, HUSK_FINDING_ERROR, "home", NULL, "%s: %s", husk->home, strerror(errno));
		return;
	}
	uint64_t available = (uint64_t)fs.f_bavail * fs.f_frsize;
	bool small = available < SPACE_WANTED;
	findings_add(f, small ? HUSK_FINDING_WARNING : HUSK_FINDING_OK, "home",
		small ? "free some space, or set HUSK_HOME to a directory with more" : NULL,
		"%s is writable and has %.1f GiB free; sockets lie in %s", husk->home, (double)available / (1 << 30),
		husk->runtime);
}

static void look_at_memory(struct findings *f)
{
	unsigned long long available = 0;
	CLEANUP_FILE FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %llu kB", &available) == 1)
			break;
	available <<= 10;
	bool small = available < MEMORY_WANTED;
	findings_add(f, small ? HUSK_FINDING_WARNING : HUSK_FINDING_OK, "memory",
		small ? "run VMs with less memory (husk run -m 128M)" : NULL,
		"%.1f GiB of memory are available, %ld CPUs", (double)available / (1 << 30),
		sysconf(_SC_NPROCESSORS_ONLN));
}

int doctor_run(const struct husk *husk, const struct husk_error *open_error, struct husk_finding **findings, size_t *n,
	struct husk_error *err)
{
	struct findings f = {0};
	bool kvm = look_at_kvm(&f, husk);
	look_at_qemu(&f, !kvm);
	if (husk) {
		look_at_helpers(&f, husk);
		look_at_kernel(&f, husk);
		look_at_home(&f, husk);
		look_at_shell(&f, husk);
	} else {
		findings_add(&f, HUSK_FINDING_ERROR, "home", "set HUSK_HOME to a directory of your own", "%s",
			open_error ? open_error->message : "the home cannot be opened");
	}
	look_at_tools(&f);
	look_at_memory(&f);
	return findings_give(&f, findings, n, err);
}
