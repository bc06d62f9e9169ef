/* SPDX-License-Identifier: Apache-2.0 */
/*
 * selftest.c - a VM that boots, runs and stops, on each machine
 *
 * Theory of operation: no image is needed but one that is made here, of one static program: husk-init itself, which says a
 * line and exits with a status of its own when it is called `selftest`. The VM is an ordinary one; that the line and the
 * status arrive proves kernel, disks, agent, streams and end. The image is removed again.
 */
#include "engine/selftest.h"

#include "agent/boot.h"
#include "base/fd.h"
#include "base/path.h"
#include "engine/findings.h"
#include "engine/images.h"
#include "engine/live.h"
#include "engine/outcome.h"
#include "engine/machine.h"
#include "engine/start.h"

#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#define SELFTEST_IMAGE "husk-selftest/" HUSK_VERSION ":latest"

/** A root with nothing in it but the program, below a new directory *@directory. */
static int make_root(const struct husk *husk, char **directory, struct husk_error *err)
{
	CLEANUP_FREE char *init = NULL;
	struct stat st;
	int rc = engine_helper(husk, "husk-init", &init, err);
	if (rc < 0)
		return rc;
	*directory = path_format("%s/selftest.XXXXXX", husk->runtime);
	if (!*directory || !mkdtemp(*directory))
		return error_errno(err, "make a directory in %s", husk->runtime);
	CLEANUP_FREE char *program = path_join(*directory, "husk-init");
	CLEANUP_FD int from = open(init, O_RDONLY | O_CLOEXEC);
	CLEANUP_FD int to = program ? open(program, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755) : -1;
	if (from < 0 || to < 0 || fstat(from, &st) < 0)
		return error_errno(err, "copy %s", init);
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = sendfile(to, from, NULL, (size_t)left);
		if (n <= 0)
			return error_errno(err, "copy %s", init);
		left -= n;
	}
	return 0;
}

static int make_image(const struct husk *husk, struct husk_error *err)
{
	CLEANUP_FREE char *directory = NULL;
	int rc = make_root(husk, &directory, err);
	CLEANUP_FREE char *source = rc == 0 ? path_format("rootfs:%s", directory) : NULL;
	const char *const import[] = {"import", "--quiet", source, SELFTEST_IMAGE, NULL};
	if (rc == 0)
		rc = source ? images_command(husk, import, -1, -1, -1, NULL, err)
			    : error_set(err, -ENOMEM, "make the image of the self-test: out of memory");
	if (directory)
		path_remove_tree(directory, NULL);
	return rc;
}

/** What the VM's outcome and output say. */
static void judge(struct findings *f, const char *machine, struct husk_vm *vm, int output)
{
	char line[sizeof(BOOT_SELFTEST_LINE)] = "", text[VM_MESSAGE_TEXT];
	ssize_t n = read(output, line, sizeof(line) - 1);
	const struct vm_message *o = &vm->outcome;
	bool right = n == sizeof(line) - 1 && memcmp(line, BOOT_SELFTEST_LINE, sizeof(line) - 1) == 0;

	if (o->end != VM_END_EXITED || o->value != BOOT_SELFTEST_STATUS) {
		outcome_describe(o, text, sizeof(text));
		findings_add(f, HUSK_FINDING_ERROR, "selftest", NULL, "machine '%s': %s", machine, text);
	} else if (!right) {
		findings_add(f, HUSK_FINDING_ERROR, "selftest", NULL,
			"machine '%s': the guest ran, but what it said did not arrive", machine);
	} else {
		findings_add(f, HUSK_FINDING_OK, "selftest", NULL,
			"machine '%s' boots (%.0f ms to the agent's answer), runs and stops a guest; the wall is `%s`",
			machine, (double)vm->boot_ns / 1e6, vm->hardware ? "hardware" : "software");
	}
}

static void try_machine(const struct husk *husk, const char *machine, struct findings *f)
{
	static const char *const command[] = {"/husk-init", BOOT_SELFTEST_WORD, NULL};
	struct machine_choice CLEANUP(machine_choice_free) choice = MACHINE_CHOICE_INIT;
	struct husk_vm *vm = NULL;
	struct husk_error err;
	struct husk_vm_config config;
	int output[2];

	if (machine_choose(husk, machine, false, &choice, &err) < 0) {
		findings_add(f, HUSK_FINDING_NOTE, "selftest", NULL, "%s", err.message);
		return;
	}
	if (pipe2(output, O_CLOEXEC) < 0)
		return;
	husk_vm_config_init(&config);
	config.image = SELFTEST_IMAGE;
	config.command = command;
	config.machine = machine;
	config.pull = HUSK_PULL_NEVER;
	config.stdout_fd = output[1];
	struct husk quiet = *husk; /* the wall is part of the finding */
	quiet.notice = NULL;
	int rc = start_vm(&quiet, &config, &vm, &err);
	if (rc == 0)
		rc = live_wait(vm, -1, &err);
	close(output[1]);
	if (rc < 0)
		findings_add(f, HUSK_FINDING_ERROR, "selftest", NULL, "machine '%s': %s", machine, err.message);
	else
		judge(f, machine, vm, output[0]);
	close(output[0]);
	if (vm)
		live_close(vm);
}

int selftest_run(const struct husk *husk, struct husk_finding **findings, size_t *n, struct husk_error *err)
{
	static const char *const machines[] = {"kvm", "qemu"}, *const remove[] = {"rmi", SELFTEST_IMAGE, NULL};
	struct findings f = {0};
	int rc = make_image(husk, err);

	if (rc < 0)
		return error_prefix(err, rc, "self-test");
	for (size_t i = 0; i < ARRAY_SIZE(machines); i++)
		try_machine(husk, machines[i], &f);
	(void)images_command(husk, remove, -1, -1, -1, NULL, NULL);
	return findings_give(&f, findings, n, err);
}
