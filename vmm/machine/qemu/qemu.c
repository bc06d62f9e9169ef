/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qemu.c - the `qemu` machine: a child process of the supervisor, driven over QMP
 *
 * Theory of operation: the supervisor has started QEMU with stopped CPUs, on guest memory that is ours and with a socket to
 * each of our devices (qemu_argv.c). While QEMU sets itself up it asks our devices, then it greets on QMP; `start` is the
 * `cont` that follows. RESUME and STOP events say when CPUs run and rest, SHUTDOWN why the machine ended (QEMU runs with
 * -no-reboot, so a reset is an end as well). When the connection closes without that the supervisor, which has QEMU's exit
 * status, knows more than we do.
 */
#include "vmm/machine/machine.h"

#include "base/cleanup.h"
#include "vmm/machine/qemu/qmp.h"
#include "vmm/virtio/vhost_user.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define QEMU_DEVICES_MAX 32

/** A device that QEMU shows the guest, and its socket. */
struct qemu_device {
	struct machine *machine;
	struct vhost_user *transport;
	device_broken_fn *broken;
	void *data;
};

struct machine {
	struct qmp qmp;
	struct loop *loop;
	const struct memory *memory;
	machine_event_fn *event;
	void (*ballooned)(void *data, uint64_t bytes);
	void *data;
	bool ended;
	struct qemu_device devices[QEMU_DEVICES_MAX];
	unsigned n_devices;
};

/** Where q35 puts RAM with max-ram-below-4g=2G (qemu_argv.c): up to 2 GiB at 0, the rest from 4 GiB on. */
#define Q35_LOW_MAX (2ull << 30)
#define Q35_HIGH (4ull << 30)

static int qemu_map_memory(struct memory *memory, uint64_t size, struct husk_error *err)
{
	uint64_t low = size < Q35_LOW_MAX ? size : Q35_LOW_MAX;
	int rc = memory_add(memory, 0, low, 0, err);
	return rc == 0 && size > low ? memory_add(memory, Q35_HIGH, size - low, low, err) : rc;
}

static const char *shutdown_cause(const struct json *json, long at)
{
	static const char *const causes[][2] = {
		{"guest-shutdown", "the guest powered off"},
		{"guest-reset", "the guest reset itself"},
		{"guest-panic", "the guest panicked"},
		{"host-qmp-quit", "QEMU was told to quit"},
		{"host-signal", "QEMU got a signal to end"},
	};
	long reason = json_member(json, at, "reason");

	for (size_t i = 0; i < sizeof(causes) / sizeof(causes[0]); i++)
		if (json_is(json, reason, causes[i][0]))
			return causes[i][1];
	return "QEMU shut down";
}

static void on_event(void *data, const struct json *json, const char *name, long at)
{
	struct machine *m = data;
	uint64_t actual;

	if (strcmp(name, "SHUTDOWN") == 0 && !m->ended) {
		bool off = json_is(json, json_member(json, at, "reason"), "guest-shutdown");
		m->ended = true;
		m->event(m->data, off ? MACHINE_OFF : MACHINE_ENDED, shutdown_cause(json, at));
	} else if (strcmp(name, "RESUME") == 0) {
		m->event(m->data, MACHINE_RUNNING, "");
	} else if (strcmp(name, "STOP") == 0 && !m->ended) {
		m->event(m->data, MACHINE_PAUSED, "");
	} else if (strcmp(name, "BALLOON_CHANGE") == 0 && m->ballooned &&
		   json_number(json, json_member(json, at, "actual"), &actual)) { /* what the guest has left */
		m->ballooned(m->data, actual < m->memory->fd_size ? m->memory->fd_size - actual : 0);
	}
}

static void on_closed(void *data, const char *why)
{
	struct machine *m = data;
	if (!m->ended)
		m->event(m->data, MACHINE_LOST, why ? why : "QEMU closed its control connection");
}

static const struct qmp_handler handler = {.event = on_event, .closed = on_closed};

static int qemu_create(const struct machine_setup *setup, struct machine **out, struct husk_error *err)
{
	struct machine *m = calloc(1, sizeof(*m));
	if (!m)
		return error_set(err, -ENOMEM, "make the machine: out of memory");
	m->loop = setup->loop;
	m->memory = setup->memory;
	m->event = setup->event;
	m->ballooned = setup->ballooned;
	m->data = setup->data;
	int rc = qmp_open(&m->qmp, setup->loop, setup->control_fd, &handler, m, err);
	if (rc < 0) {
		free(m);
		return rc;
	}
	*out = m;
	return 0;
}

static void on_device_failed(void *data, struct husk_error *err)
{
	struct qemu_device *d = data;
	struct machine *m = d->machine;

	if (err->code == -EBADMSG) {
		d->broken(d->data, err->message);
		return;
	}
	vhost_user_destroy(steal_pointer(&d->transport));
	if (!m->ended)
		m->event(m->data, MACHINE_LOST, err->message);
}

static int qemu_attach(struct machine *m, const struct machine_device *device, struct husk_error *err)
{
	if (m->n_devices == QEMU_DEVICES_MAX)
		return error_set(err, -ENOSPC, "more than %d devices in a machine", QEMU_DEVICES_MAX);
	struct qemu_device *d = &m->devices[m->n_devices];

	*d = (struct qemu_device){.machine = m, .broken = device->broken, .data = device->data};
	int rc = vhost_user_create(
		m->loop, m->memory, device->device, device->socket_fd, on_device_failed, d, &d->transport, err);
	if (rc < 0)
		return error_prefix(err, rc, "%s", device->name);
	m->n_devices++;
	return 0;
}

static void on_refused(void *data, const char *error)
{
	struct machine *m = data;
	if (error && !m->ended)
		m->event(m->data, MACHINE_LOST, error);
}

static int execute(struct machine *m, const char *command, struct husk_error *err)
{
	int rc = qmp_execute(&m->qmp, command, NULL, on_refused);
	return rc == 0 ? 0 : error_set(err, rc, "tell QEMU to %s", command);
}

static int qemu_run(struct machine *m, struct husk_error *err)
{
	return execute(m, "cont", err);
}

static int qemu_pause(struct machine *m, struct husk_error *err)
{
	return execute(m, "stop", err);
}

static int qemu_power(struct machine *m, enum machine_power how, struct husk_error *err)
{
	static const char *const commands[] = {
		[MACHINE_POWER_BUTTON] = "system_powerdown",
		[MACHINE_POWER_RESET] = "system_reset",
		[MACHINE_POWER_KILL] = "quit",
	};
	return execute(m, commands[how], err);
}

static void on_balloon(void *data, const char *error)
{
	struct machine *m = data;
	if (!m->ended)
		m->event(m->data, MACHINE_BALLOON, error ? error : "");
}

/** QEMU is told what the guest is to have left. */
static int qemu_balloon(struct machine *m, uint64_t bytes, struct husk_error *err)
{
	uint64_t size = m->memory->fd_size;
	char arguments[40];

	snprintf(arguments, sizeof(arguments), "{\"value\":%" PRIu64 "}", bytes < size ? size - bytes : 0);
	int rc = qmp_execute(&m->qmp, "balloon", arguments, on_balloon);
	return rc == 0 ? 0 : error_set(err, rc, "tell QEMU to set the balloon");
}

static void qemu_destroy(struct machine *m)
{
	if (!m)
		return;
	for (unsigned i = 0; i < m->n_devices; i++)
		vhost_user_destroy(m->devices[i].transport);
	qmp_close(&m->qmp);
	free(m);
}

const struct machine_ops machine_qemu_ops = {
	.capabilities =
		{
			.name = "qemu",
			.pause = true,
			.power_button = true,
			.cpus_max = 64,
			.memory_max = 1ull << 40,
		},
	.map_memory = qemu_map_memory,
	.create = qemu_create,
	.attach = qemu_attach,
	.start = qemu_run,
	.pause = qemu_pause,
	.resume = qemu_run,
	.power = qemu_power,
	.balloon = qemu_balloon,
	.destroy = qemu_destroy,
};
