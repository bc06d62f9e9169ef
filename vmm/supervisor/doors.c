/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doors.c - the doors of a VM, their ids and their paths
 *
 * Theory of operation: a door comes with its listening socket, from the engine at start or over supervisor.sock. It gets the
 * lowest free id, goes into the record (so that whoever finds us dead knows its path), and then to the worker, which answers
 * when it likes: nothing here waits for it, and what does not fit into its channel goes there later. The answer opens the door
 * or takes it down; a door that the VM was started with and that the worker refuses ends the VM.
 *
 * Closing removes the path first, so that nobody comes any more, and frees the id once the worker has answered and the door's
 * husk-tls is gone: until then connections of the old door may still count on that id.
 */
#include "vmm/supervisor/supervisor.h"

#include "base/cleanup.h"
#include "base/door.h"
#include "base/fd.h"
#include "base/path.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the record ---- */

static void record_door(struct supervised_door *d)
{
	struct supervisor *s = d->supervisor;
	bool known = (d->phase == DOOR_OPENING || d->phase == DOOR_OPEN) && !d->unwanted;

	s->record.doors[d->door.id - 1] = known ? d->door : (struct vm_door){0};
}

static void save(struct supervised_door *d)
{
	record_door(d);
	supervisor_save(d->supervisor, (enum vm_state)d->supervisor->record.state);
}

/** exec.sock and vsock.sock, which sockets.c binds. */
static void record_standard(struct supervisor *s)
{
	const struct vm_door standard[] = {
		{.id = VM_DOOR_EXEC_ID, .kind = VM_DOOR_EXEC, .endpoint = "exec.sock"},
		{.id = VM_DOOR_VSOCK_ID, .kind = VM_DOOR_VSOCK, .endpoint = "vsock.sock"},
	};
	char link[40], directory[VM_ENDPOINT_MAX];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", s->config.runtime_fd);
	ssize_t n = readlink(link, directory, sizeof(directory) - 1);
	directory[n > 0 ? n : 0] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(standard); i++) {
		struct vm_door *door = &s->record.doors[standard[i].id - 1];
		*door = standard[i];
		if (n > 0 && (size_t)n + 1 + strlen(standard[i].endpoint) < sizeof(door->endpoint))
			snprintf(door->endpoint, sizeof(door->endpoint), "%.*s/%s", (int)n, directory,
				standard[i].endpoint);
	}
}

/* ---- one door ---- */

static void close_fds(struct supervised_door *d)
{
	for (size_t i = 0; i < VMM_DOOR_FDS; i++)
		if (d->fd[i] >= 0)
			close(steal_fd(&d->fd[i]));
}

static void remove_paths(struct supervised_door *d)
{
	door_path_remove(&d->door);
	door_inner_remove(d->supervisor->config.runtime_fd, &d->door);
}

/** Tell who waits, if somebody does. */
static void answer(struct supervised_door *d, int code, const char *text)
{
	struct service_client *client = steal_pointer(&d->asker);

	if (client)
		service_answer(client, code, &d->door, text);
}

void door_settle(struct supervised_door *d)
{
	if (d->phase != DOOR_CLOSING || d->at_worker || d->tls.pid)
		return;
	d->phase = DOOR_FREE;
	answer(d, 0, NULL);
}

void door_shut(struct supervised_door *d)
{
	if (d->phase != DOOR_OPENING && d->phase != DOOR_OPEN)
		return;
	remove_paths(d);
	close_fds(d);
	d->phase = DOOR_CLOSING;
	d->unsent = d->at_worker;
	save(d);
	tls_end(d);
	channel_flush(d->supervisor);
	door_settle(d);
}

/** It could not be opened; @text is a whole sentence. */
static void fail(struct supervised_door *d, int code, const char *text)
{
	supervisor_log(d->supervisor, "%s", text);
	if (d->from_start)
		life_end(d->supervisor, VM_END_FAILED, 0, "%s", text);
	answer(d, code, text);
	door_shut(d);
}

/** The same for one that lacks the beginning of the sentence. */
static void fail_because(struct supervised_door *d, int code, const char *cause)
{
	struct vm_message said;

	vm_message_text(&said, "open the %s door %s: %s", vm_door_kind_name(d->door.kind), d->door.endpoint, cause);
	fail(d, code, said.text);
}

static struct supervised_door *take_free(struct supervisor *s)
{
	for (uint32_t id = VM_DOOR_VSOCK_ID + 1; id <= VM_DOORS_MAX; id++) {
		struct supervised_door *d = &s->door[id - 1];
		if (d->phase != DOOR_FREE)
			continue;
		*d = (struct supervised_door){
			.supervisor = s, .fd = {-1, -1, -1, -1}, .tls = {.name = "husk-tls", .pidfd = -1}};
		d->door.id = id;
		return d;
	}
	return NULL;
}

static void begin(struct supervised_door *d, const struct vm_door *door, const int *fds)
{
	uint32_t id = d->door.id;

	d->door = *door;
	d->door.id = id;
	memcpy(d->fd, fds, vmm_door_fds(door->kind) * sizeof(int));
	d->phase = DOOR_OPENING;
	d->unsent = true;
}

/* ---- the start ---- */

int doors_take(struct supervisor *s, struct husk_error *err)
{
	struct vmm_config *c = &s->config;

	record_standard(s);
	for (size_t i = 0; i < c->n_doors; i++) {
		struct vmm_door_entry *entry = &c->doors[i];
		struct supervised_door *d = take_free(s);
		if (!d)
			return error_set(err, -E2BIG, "more doors than the %d that a VM can have", VM_DOORS_MAX);
		begin(d, &entry->door, entry->fd);
		for (size_t k = 0; k < VMM_DOOR_FDS; k++)
			entry->fd[k] = -1;
		d->from_start = true;
		record_door(d);
	}
	return 0;
}

bool doors_opening(const struct supervisor *s)
{
	for (size_t i = 0; i < VM_DOORS_MAX; i++)
		if (s->door[i].phase == DOOR_OPENING && s->door[i].from_start)
			return true;
	return false;
}

/* ---- to the worker, and back ---- */

/** 0, or -errno with the door as it was. */
static int tell_worker(struct supervised_door *d)
{
	bool opening = d->phase == DOOR_OPENING;
	struct vm_message m = {.kind = opening ? VM_CONTROL_EXPOSE : VM_CONTROL_UNEXPOSE, .door = d->door};

	ssize_t n = fd_send(d->supervisor->channel, &m, sizeof(m), d->fd, opening ? 1 : 0);
	if (n < 0)
		return (int)n;
	d->unsent = false;
	if (opening) {
		d->at_worker = true;
		close(steal_fd(&d->fd[0]));
	}
	return 0;
}

bool doors_flush(struct supervisor *s)
{
	bool full = false;

	for (size_t i = 0; i < VM_DOORS_MAX && !full; i++) {
		struct supervised_door *d = &s->door[i];
		int rc = d->unsent ? tell_worker(d) : 0;
		full = rc == -EAGAIN;
		if (rc == 0 || full)
			continue;
		d->unsent = false;
		if (d->phase == DOOR_OPENING)
			fail_because(d, rc, strerror(-rc));
	}
	return full;
}

/** The worker serves it. */
static void opened(struct supervised_door *d)
{
	struct husk_error err;

	d->phase = DOOR_OPEN;
	if (d->door.kind == VM_DOOR_TLS && !d->unwanted && tls_start(d, &err) < 0) {
		fail_because(d, err.code, err.message);
		return;
	}
	if (d->unwanted)
		door_shut(d);
	else
		answer(d, 0, NULL);
}

void doors_answered(struct supervisor *s, const struct vm_message *m)
{
	if (m->door.id == 0 || m->door.id > VM_DOORS_MAX)
		return;
	struct supervised_door *d = &s->door[m->door.id - 1];
	if (!d->at_worker || d->unsent)
		return;
	if (d->phase == DOOR_OPENING && m->value == 0) {
		opened(d);
	} else if (d->phase == DOOR_OPENING) {
		d->at_worker = false;
		if (m->text[0])
			fail(d, -(int)m->value, m->text);
		else
			fail_because(d, -(int)m->value, strerror((int)m->value));
	} else if (d->phase == DOOR_CLOSING) {
		d->at_worker = false;
		door_settle(d);
	}
}

/* ---- requests ---- */

static int option(int fd, int name)
{
	int value = -1;
	socklen_t size = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, name, &value, &size) < 0 ? -1 : value;
}

static bool listens(int fd, bool tcp)
{
	int domain = option(fd, SO_DOMAIN);

	return option(fd, SO_ACCEPTCONN) == 1 && option(fd, SO_TYPE) == SOCK_STREAM &&
	       (tcp ? domain == AF_INET || domain == AF_INET6 : domain == AF_UNIX);
}

static bool is_file(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

/** What a client sends has to be what its kind of door needs. */
static int check_request(struct supervisor *s, const struct vm_door *door, const int *fds, struct husk_error *err)
{
	bool tls = door->kind == VM_DOOR_TLS;

	if (door->kind == VM_DOOR_VSOCK)
		return error_set(err, -EINVAL, "a VM has one door of kind vsock, its own");
	if (s->config.exec_size == 0)
		return error_set(err, -ENOTSUP, "this VM has no agent that could lead a door to its guest");
	if (!listens(fds[0], door->kind == VM_DOOR_TCP) || (tls && !listens(fds[1], true)))
		return error_set(err, -ENOTSOCK, "what came is not a listening socket of that kind");
	if (tls && (!is_file(fds[2]) || !is_file(fds[3])))
		return error_set(err, -EINVAL, "certificate and key are not regular files");
	if (tls && !s->config.tls_path)
		return error_set(err, -ENOENT, "husk-tls was not there when this VM was started");
	for (size_t i = 0; i < VM_DOORS_MAX; i++)
		if (s->record.doors[i].id && strcmp(s->record.doors[i].endpoint, door->endpoint) == 0)
			return error_set(err, -EEXIST, "there is a door at %s already", door->endpoint);
	return 0;
}

int doors_expose(struct supervisor *s, const struct vm_door *door, const int *fds, struct service_client *client,
	struct husk_error *err)
{
	int rc = check_request(s, door, fds, err);
	struct supervised_door *d = rc < 0 ? NULL : take_free(s);
	if (rc == 0 && !d)
		rc = error_set(err, -ENOSPC, "this VM has %d doors, which is the most", VM_DOORS_MAX);
	if (rc < 0) {
		for (uint32_t i = 0; i < vmm_door_fds(door->kind); i++)
			close(fds[i]);
		return error_prefix(err, rc, "open the %s door %s", vm_door_kind_name(door->kind), door->endpoint);
	}
	begin(d, door, fds);
	d->asker = client;
	save(d);
	channel_flush(s);
	return 0;
}

static struct supervised_door *find(struct supervisor *s, uint32_t id, const char *endpoint)
{
	for (size_t i = VM_DOOR_VSOCK_ID; i < VM_DOORS_MAX; i++) {
		struct supervised_door *d = &s->door[i];
		if (d->phase == DOOR_OPEN && (id ? d->door.id == id : strcmp(d->door.endpoint, endpoint) == 0))
			return d;
	}
	return NULL;
}

int doors_unexpose(
	struct supervisor *s, uint32_t id, const char *endpoint, struct service_client *client, struct husk_error *err)
{
	for (uint32_t own = VM_DOOR_EXEC_ID; own <= VM_DOOR_VSOCK_ID; own++)
		if (id ? id == own : strcmp(s->record.doors[own - 1].endpoint, endpoint) == 0)
			return error_set(err, -EPERM, "%s belongs to the VM and cannot be closed",
				s->record.doors[own - 1].endpoint);
	struct supervised_door *d = find(s, id, endpoint);
	if (!d)
		return error_set(err, -ENOENT, "there is no door at %s", id ? "that id" : endpoint);
	d->asker = client;
	door_shut(d);
	return 0;
}

/** The worker has been told of it and not answered: close it when it does, and let it be gone for everybody else. */
static void abandon(struct supervised_door *d)
{
	d->unwanted = true;
	remove_paths(d);
	save(d);
}

void doors_forget(struct supervisor *s, const struct service_client *client)
{
	for (size_t i = 0; i < VM_DOORS_MAX; i++) {
		struct supervised_door *d = &s->door[i];
		if (d->asker != client)
			continue;
		d->asker = NULL;
		if (d->phase == DOOR_OPENING && !d->at_worker)
			door_shut(d);
		else if (d->phase == DOOR_OPENING)
			abandon(d);
	}
}

void doors_end(struct supervisor *s)
{
	for (size_t i = 0; i < VM_DOORS_MAX; i++) {
		struct supervised_door *d = &s->door[i];
		if (d->phase == DOOR_OPENING || d->phase == DOOR_OPEN)
			remove_paths(d);
		tls_end(d);
	}
	for (size_t i = 0; i < VM_DOORS_MAX; i++)
		tls_reap(&s->door[i]);
	memset(s->record.doors, 0, sizeof(s->record.doors));
}
