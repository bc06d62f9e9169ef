/* SPDX-License-Identifier: Apache-2.0 */
/*
 * requests.c - what clients of supervisor.sock can ask for
 *
 * Theory of operation: KILL and STOP are the supervisor's own, so that they work with a worker that hangs. SIGNAL, RESIZE and
 * POWER_BUTTON are sent on to the worker and answered at once: nobody could say what a guest makes of them. PAUSE, RESUME,
 * BALLOON, STATS and ATTACH go to the worker one at a time of each kind; what comes meanwhile waits in line, in order of
 * asking, and the worker's DONE of that kind answers the one that is there. Each client waits ASK_MS at most. If the worker
 * has not answered by then, its answer still has to come before the next of that kind is sent, so that it cannot be taken for
 * that one's.
 *
 * What does not fit into the channel waits for room, as doors do. A worker that has answered PAUSE or RESUME changes the
 * record whether anybody still waits for it or not.
 */
#include "vmm/supervisor/supervisor.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "vmm/control.h"

#include <string.h>

#define ASK_MS 5000
#define ANSWERED 1 /* of a rule: nothing more to say than "done" */

/* ---- questions to the worker ---- */

static struct asking *asking_of(struct supervisor *s, uint32_t kind)
{
	return &s->asking[kind - VM_CONTROL_PAUSE];
}

static void leave_line(struct service_client *client)
{
	client->in_line = false;
	if (client->fd >= 0)
		close(steal_fd(&client->fd));
}

/** Fire when the next client has waited long enough. */
static void set_timer(struct supervisor *s)
{
	uint64_t first = UINT64_MAX, now = clock_monotonic_ns();

	for (size_t i = 0; i < SERVICE_CLIENTS; i++) {
		const struct service_client *c = &s->service.client[i];
		if (c->supervisor && c->until_ns && c->until_ns < first)
			first = c->until_ns;
	}
	loop_timer_set(&s->ask_timer, first == UINT64_MAX ? 0 : first > now ? (first - now) / 1000000 + 1 : 1);
}

static void answer(struct service_client *client, int code, const char *text)
{
	client->until_ns = 0;
	service_answer(client, code, NULL, text);
}

/** The one that has waited longest. */
static struct service_client *next_in_line(struct supervisor *s, uint32_t kind)
{
	struct service_client *next = NULL;

	for (size_t i = 0; i < SERVICE_CLIENTS; i++) {
		struct service_client *c = &s->service.client[i];
		if (c->supervisor && c->in_line && c->asked.kind == kind && (!next || c->until_ns < next->until_ns))
			next = c;
	}
	return next;
}

/** Send the worker the next of that kind, if it is not busy with one; true when its channel is full. */
static bool ask_next(struct supervisor *s, uint32_t kind)
{
	struct asking *a = asking_of(s, kind);
	const struct vm_message own = {.kind = kind};

	while (!a->at_worker) {
		struct service_client *client = a->own ? NULL : next_in_line(s, kind);
		if (!a->own && !client)
			return false;
		ssize_t n = fd_send(s->channel, client ? &client->asked : &own, sizeof(own),
			client ? &client->fd : NULL, client && client->fd >= 0 ? 1 : 0);
		if (n == -EAGAIN)
			return true;
		a->own = false;
		a->at_worker = n >= 0;
		a->client = n >= 0 ? client : NULL;
		if (client)
			leave_line(client);
		if (client && n < 0)
			answer(client, (int)n, "the VM's worker does not listen");
	}
	return false;
}

bool requests_flush(struct supervisor *s)
{
	bool full = false;

	for (uint32_t kind = VM_CONTROL_PAUSE; kind <= VM_CONTROL_ATTACH; kind++)
		full |= ask_next(s, kind);
	return full;
}

void requests_done(struct supervisor *s, const struct vm_message *m)
{
	struct asking *a = asking_of(s, (uint32_t)m->number); /* in range: vm_message_check() */
	struct service_client *client = steal_pointer(&a->client);

	if (!a->at_worker)
		return;
	a->at_worker = false;
	if (m->number == VM_CONTROL_PAUSE && (m->value == 0 || m->value == EALREADY))
		life_paused(s);
	if (m->number == VM_CONTROL_RESUME && (m->value == 0 || m->value == EALREADY))
		life_resumed(s);
	if (m->number == VM_CONTROL_PAUSE && s->stopping.asked)
		requests_resume(s);
	if (client)
		answer(client, -(int)m->value, m->text);
	set_timer(s);
	channel_flush(s);
}

static void on_timer(struct loop_watch *watch, uint32_t events)
{
	struct supervisor *s = CONTAINER_OF(watch, struct supervisor, ask_timer);
	uint64_t now = clock_monotonic_ns();

	(void)events;
	for (size_t i = 0; i < SERVICE_CLIENTS; i++) {
		struct service_client *c = &s->service.client[i];
		if (!c->supervisor || !c->until_ns || c->until_ns > now)
			continue;
		struct asking *a = asking_of(s, c->asked.kind);
		if (a->client == c)
			a->client = NULL;
		leave_line(c);
		answer(c, -ETIMEDOUT, "the VM's worker did not answer in time");
	}
	set_timer(s);
}

void requests_forget(struct supervisor *s, struct service_client *client)
{
	leave_line(client);
	client->until_ns = 0;
	for (size_t i = 0; i < ASKING_KINDS; i++)
		if (s->asking[i].client == client)
			s->asking[i].client = NULL;
}

void requests_resume(struct supervisor *s)
{
	struct service_client *client;

	while ((client = next_in_line(s, VM_CONTROL_PAUSE))) {
		leave_line(client);
		answer(client, -EBUSY, "the VM is being stopped");
	}
	/* A PAUSE that is at the worker still is answered first: it would refuse another change meanwhile. */
	if (s->record.state == VM_PAUSED && !asking_of(s, VM_CONTROL_RESUME)->at_worker)
		asking_of(s, VM_CONTROL_RESUME)->own = true;
	channel_flush(s);
}

int requests_open(struct supervisor *s, struct husk_error *err)
{
	return loop_timer_open(&s->loop, &s->ask_timer, on_timer, err);
}

/* ---- the rules ---- */

static int take_question(struct service_client *client, const struct vm_message *m, int *fds, struct husk_error *err)
{
	struct supervisor *s = client->supervisor;

	if ((m->kind == VM_CONTROL_PAUSE || m->kind == VM_CONTROL_RESUME) && s->record.state == VM_STARTING)
		return error_set(err, -EAGAIN, "the VM is still starting");
	if (m->kind == VM_CONTROL_PAUSE && s->stopping.asked)
		return error_set(err, -EBUSY, "the VM is being stopped");
	client->asked = *m;
	client->fd = m->kind == VM_CONTROL_ATTACH ? steal_fd(&fds[0]) : -1;
	client->in_line = true;
	client->until_ns = clock_monotonic_ns() + ASK_MS * 1000000ull;
	set_timer(s);
	channel_flush(s);
	return 0;
}

static int take_note(struct service_client *client, const struct vm_message *m, int *fds, struct husk_error *err)
{
	struct supervisor *s = client->supervisor;

	(void)fds;
	if (m->kind != VM_CONTROL_POWER_BUTTON && s->config.exec_size == 0)
		return error_set(err, -ENOTSUP, "this VM has no workload of its agent's");
	if (m->kind == VM_CONTROL_SIGNAL && s->record.state == VM_STARTING)
		return error_set(err, -EAGAIN, "the VM is still starting");
	if (m->kind == VM_CONTROL_SIGNAL && s->draining)
		return error_set(err, -ESRCH, "the workload has ended");
	int rc = vm_message_send(s->channel, m);
	return rc < 0 ? error_set(err, rc, "the VM's worker does not listen: %s", strerror(-rc)) : ANSWERED;
}

static int take_kill(struct service_client *client, const struct vm_message *m, int *fds, struct husk_error *err)
{
	struct supervisor *s = client->supervisor;

	(void)m, (void)fds, (void)err;
	answer(client, 0, NULL);
	life_end(s, VM_END_KILLED, 0, "killed on request");
	return 0;
}

static int take_stop(struct service_client *client, const struct vm_message *m, int *fds, struct husk_error *err)
{
	struct supervisor *s = client->supervisor;

	(void)fds, (void)err;
	answer(client, 0, NULL);
	stop_begin(s, m->value);
	return 0;
}

static int take_expose(struct service_client *client, const struct vm_message *m, int *fds, struct husk_error *err)
{
	int taken[VMM_DOOR_FDS];

	for (size_t i = 0; i < VMM_DOOR_FDS; i++)
		taken[i] = steal_fd(&fds[i]);
	return doors_expose(client->supervisor, &m->door, taken, client, err);
}

static int take_unexpose(struct service_client *client, const struct vm_message *m, int *fds, struct husk_error *err)
{
	(void)fds;
	return doors_unexpose(client->supervisor, m->door.id, m->door.endpoint, client, err);
}

/** What can be asked for. A rule returns 0 when it answers itself, now or later, ANSWERED, or an error to answer with. */
static const struct rule {
	uint32_t kind;
	size_t n_fds;
	int (*take)(struct service_client *client, const struct vm_message *m, int *fds, struct husk_error *err);
} rules[] = {
	{VM_CONTROL_SIGNAL, 0, take_note},
	{VM_CONTROL_RESIZE, 0, take_note},
	{VM_CONTROL_POWER_BUTTON, 0, take_note},
	{VM_CONTROL_KILL, 0, take_kill},
	{VM_CONTROL_STOP, 0, take_stop},
	{VM_CONTROL_PAUSE, 0, take_question},
	{VM_CONTROL_RESUME, 0, take_question},
	{VM_CONTROL_BALLOON, 0, take_question},
	{VM_CONTROL_STATS, 0, take_question},
	{VM_CONTROL_ATTACH, 1, take_question},
	{VM_CONTROL_EXPOSE, 0, take_expose}, /* as many as its kind of door has */
	{VM_CONTROL_UNEXPOSE, 0, take_unexpose},
};

static const struct rule *find_rule(const struct vm_message *m, size_t n_fds)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		if (rules[i].kind != m->kind)
			continue;
		bool expose = m->kind == VM_CONTROL_EXPOSE;
		size_t wanted = expose ? vmm_door_fds(m->door.kind) : rules[i].n_fds;
		return n_fds == wanted && !(expose && m->door.id) ? &rules[i] : NULL;
	}
	return NULL;
}

bool request_take(struct service_client *client, const struct vm_message *m, int fds[VMM_DOOR_FDS], size_t n_fds)
{
	const struct rule *rule = find_rule(m, n_fds);
	bool door = m->kind == VM_CONTROL_EXPOSE || m->kind == VM_CONTROL_UNEXPOSE;
	struct husk_error err;

	if (!rule)
		return false;
	service_wait(client);
	int rc = rule->take(client, m, fds, &err);
	if (rc != 0)
		service_answer(client, rc < 0 ? rc : 0, door ? &m->door : NULL, rc < 0 ? err.message : NULL);
	return true;
}
