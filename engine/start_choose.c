/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start_choose.c - all of a start that comes before anything of the VM exists
 *
 * Theory of operation: what can be refused is refused first (check.c, the command, the name), then the image is obtained. Of a VM
 * that is started again name, port and image are those of its record; disks, machine, kernel and walls are looked at as they
 * are now.
 */
#include "engine/check.h"
#include "engine/exec.h"
#include "engine/start_internal.h"
#include "engine/vsock_port.h"
#include "image/platform.h"

/** An image of another architecture would only say "Exec format error", or run as what it is not. */
static int check_platform(const struct husk_vm_config *c, const struct image_record *image, struct husk_error *err)
{
	struct platform ours, theirs;
	char text[2][3 * PLATFORM_FIELD];
	if (!image->architecture || !*image->architecture)
		return 0;
	int rc = platform_parse(NULL, &ours, err);
	if (rc < 0)
		return rc;
	platform_set(&theirs, image->os && *image->os ? image->os : "linux", image->architecture, NULL);
	if (platform_rank(&ours, &theirs) >= 0)
		return 0;
	platform_format(&ours, text[0]);
	platform_format(&theirs, text[1]);
	return error_set(err, -EINVAL, "image '%s' is for the platform %s, and VMs on this host are %s", c->image,
		text[1], text[0]);
}

/** Disks, port, machine, walls: nothing of it costs much time. */
static int choose_place(struct start *s, struct husk_vm *vm, struct husk_error *err)
{
	const struct husk_vm_config *c = s->config;
	int rc = disks_open(c, &s->disks, err);
	if (!s->again)
		rc = rc < 0 ? rc : vsock_port_choose(s->husk, c, &s->vsock_port, err);
	s->boot.vsock_port = s->vsock_port;
	rc = rc < 0 ? rc : machine_choose(s->husk, c->machine, c->require_hardware, &s->machine, err);
	if (rc < 0)
		return rc;
	vm->hardware = s->machine.hardware;
	return shell_choose(s->husk, c->shell, &s->shell, err);
}

/** The image, fetched when the store does not have it, and the kernel. */
static int choose_image(struct start *s, struct husk_error *err)
{
	int found = s->again ? 1 : images_find(s->husk, s->config, &s->image, err);
	int rc = found < 0 ? found : boot_open(s->husk, s->config, s->machine.kind, &s->boot, err);
	return rc == 0 && !found ? images_fetch(s->husk, s->config, &s->image, err) : rc;
}

int start_choose(struct start *s, struct husk_vm *vm, struct husk_error *err)
{
	const struct husk_vm_config *c = s->config;
	const int serial[3] = {c->serial_input_fd, c->serial_fd, -1};
	const int streams[3] = {c->stdin_fd, c->stdout_fd, c->tty ? -1 : c->stderr_fd};
	int rc = check_config(c, err);
	if (rc == 0 && c->name && !s->again)
		rc = vm_name_free(s->husk, c->name, err);
	rc = rc < 0 ? rc : choose_place(s, vm, err);
	rc = rc < 0 ? rc : choose_image(s, err);
	vm->agentless = c->initramfs != NULL;
	if (rc == 0 && !vm->agentless)
		rc = check_platform(c, &s->image, err);
	vm->stop_signal = exec_stop_signal(rc == 0 ? s->image.stop_signal : NULL);
	if (rc == 0 && !vm->agentless)
		rc = exec_payload(c, &s->image, &s->exec, err);
	if (rc == 0 && !vm->agentless && !start_is_detached(s))
		rc = stdio_prepare(&vm->io, streams, err);
	if (rc == 0 && c->serial != HUSK_SERIAL_LOG)
		rc = stdio_prepare(&vm->serial, serial, err);
	return rc;
}
