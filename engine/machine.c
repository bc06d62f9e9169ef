/* SPDX-License-Identifier: Apache-2.0 */
/* machine.c - which machine a VM runs on (theory of operation: machine.h) */
#include "engine/machine.h"

#include "base/fd.h"
#include "base/path.h"
#include "base/state.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define KEPT_NAME "kvm" /* in the runtime directory: one line, "BOOT-ID DEVICE VERDICT WHY" */
#define KEPT_MAX 512

const char *machine_name(enum vmm_machine kind)
{
	return kind == VMM_MACHINE_KVM ? "kvm" : "qemu";
}

/** What a kept answer must begin with to be about this boot and this /dev/kvm; false when there is none to ask. */
static bool key_of(char *key, size_t room)
{
	char boot_id[40];
	struct stat st;

	if (stat("/dev/kvm", &st) < 0)
		return false;
	host_boot_id(boot_id);
	snprintf(key, room, "%s %llx.%llx.%llx", boot_id, (unsigned long long)st.st_rdev, (unsigned long long)st.st_ino,
		(unsigned long long)st.st_ctim.tv_sec);
	return true;
}

static bool recall(const char *path, const char *key, struct machine_host *host)
{
	CLEANUP_BUFFER struct buffer text = {0};
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	size_t n = strlen(key);
	unsigned verdict;
	int at = 0;

	if (fd < 0 || fd_read_to_end(fd, &text, KEPT_MAX) < 0 || buffer_append(&text, "", 1) < 0)
		return false;
	const char *line = (const char *)buffer_bytes(&text);
	if (strncmp(line, key, n) != 0 || sscanf(line + n, " %u %n", &verdict, &at) != 1 ||
		(verdict != KVM_HOST_HARDWARE && verdict != KVM_HOST_INTERPRETED))
		return false;
	host->kvm = (enum kvm_host)verdict;
	snprintf(host->why, sizeof(host->why), "%s", line + n + at);
	return true;
}

void machine_look(const struct husk *husk, bool fresh, struct machine_host *host)
{
	char key[128], line[KEPT_MAX];
	CLEANUP_FREE char *path = husk ? path_join(husk->runtime, KEPT_NAME) : NULL;
	bool keep = path && key_of(key, sizeof(key));

	if (keep && !fresh && recall(path, key, host))
		return;
	host->kvm = kvm_probe(host->why, sizeof(host->why));
	if (!keep || (host->kvm != KVM_HOST_HARDWARE && host->kvm != KVM_HOST_INTERPRETED))
		return;
	int n = snprintf(line, sizeof(line), "%s %u %s", key, (unsigned)host->kvm, host->why);
	(void)path_write_atomically(path, line, (size_t)n, 0600, NULL); /* not kept: the next start looks again */
}

/** Why `kvm` cannot be had, with what to do about it. */
static int refuse_kvm(const struct machine_host *host, struct husk_error *err)
{
	static const char *const remedies[] = {
		[KVM_HOST_ABSENT] = "enable VT-x or SVM in the firmware, or nested virtualisation when this is a VM",
		[KVM_HOST_DENIED] = "add yourself to the group kvm",
		[KVM_HOST_BROKEN] = "use --machine qemu",
	};
	return error_set(err, -ENODEV, "the machine 'kvm' cannot be had: %s; %s", host->why, remedies[host->kvm]);
}

static int choose_kvm(const struct machine_host *host, struct machine_choice *out, struct husk_error *err)
{
	if (host->kvm != KVM_HOST_HARDWARE && host->kvm != KVM_HOST_INTERPRETED)
		return refuse_kvm(host, err);
	out->kind = VMM_MACHINE_KVM;
	out->hardware = host->kvm == KVM_HOST_HARDWARE;
	snprintf(out->why, sizeof(out->why), "%s",
		out->hardware ? "the CPU runs this VM" : "this host's KVM interprets this VM's code");
	out->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	return out->kvm_fd < 0 ? error_errno(err, "open /dev/kvm") : 0;
}

static int choose_qemu(struct machine_choice *out, struct husk_error *err)
{
	out->kind = VMM_MACHINE_QEMU;
	snprintf(out->why, sizeof(out->why), "QEMU emulates this VM");
	out->qemu = engine_find_program("qemu-system-x86_64");
	if (!out->qemu)
		return error_set(err, -ENODEV,
			"QEMU is missing, and the machine 'qemu' needs it; install the package qemu-system-x86");
	return 0;
}

int machine_choose(const struct husk *husk, const char *machine, bool require_hardware, struct machine_choice *out,
	struct husk_error *err)
{
	struct machine_host host = {.kvm = KVM_HOST_ABSENT};
	bool any = !machine || strcmp(machine, "auto") == 0, kvm = machine && strcmp(machine, "kvm") == 0;

	if (!any && !kvm && strcmp(machine, "qemu") != 0)
		return error_set(err, -EINVAL, "unknown machine '%s': choose auto, kvm or qemu", machine);
	if (any || kvm)
		machine_look(husk, false, &host);
	if (require_hardware && !any && !kvm)
		return error_set(
			err, -ENODEV, "hardware isolation is required, but the machine 'qemu' emulates in software");
	if (require_hardware && host.kvm != KVM_HOST_HARDWARE)
		return error_set(err, -ENODEV, "hardware isolation is required, but this host has none for VMs: %s%s",
			host.kvm == KVM_HOST_INTERPRETED ? "its /dev/kvm interprets guest code, " : "", host.why);
	if (kvm || (any && host.kvm == KVM_HOST_HARDWARE))
		return choose_kvm(&host, out, err);
	return choose_qemu(out, err);
}

void machine_choice_free(struct machine_choice *choice)
{
	cleanup_fd(&choice->kvm_fd);
	free(choice->qemu);
	*choice = (struct machine_choice)MACHINE_CHOICE_INIT;
}
