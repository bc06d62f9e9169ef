/* SPDX-License-Identifier: Apache-2.0 */
/*
 * start_doors.c - what a start holds of doors until the supervisor has it
 *
 * Theory of operation: doors are bound by whoever asks for them, since the worker cannot bind and the supervisor parses no
 * paths of a user. Each is noted in the state record before anything of it appears in the file system; the supervisor, the
 * record's writer later on, does not exist yet. So a start that is killed at any point leaves a record that says which paths
 * are to be removed.
 */
#include "engine/start_doors.h"

#include "base/path.h"
#include "base/stats.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SERVICE_BACKLOG 64

/** The counters, all zero. */
static int make_stats(const struct vm_record *record, int *out, struct husk_error *err)
{
	const struct vm_stats head = {.magic = STATS_MAGIC, .size = sizeof(struct vm_stats)};
	CLEANUP_FD int fd =
		openat(record->runtime_fd, STATS_NAME, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(head)) < 0 ||
		pwrite(fd, &head, offsetof(struct vm_stats, door), 0) != offsetof(struct vm_stats, door))
		return error_errno(err, "make the counters of VM %s", record->id);
	*out = steal_fd(&fd);
	return 0;
}

/** The socket on which the supervisor takes requests. Its path fits: see HOME_RUNTIME_MAX. */
static int make_service(const struct vm_record *record, int *out, struct husk_error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s/" VM_SERVICE_NAME, record->runtime);
	if (n >= (int)sizeof(address.sun_path))
		return error_set(err, -ENAMETOOLONG, "make the supervisor's socket: %s is too long", record->runtime);
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, SERVICE_BACKLOG) < 0)
		return error_errno(err, "make the supervisor's socket %s", address.sun_path);
	*out = steal_fd(&fd);
	return 0;
}

/** The doors so far, and where they are written down. */
struct notes {
	const struct start_doors *doors;
	const struct vm_record *record;
};

/** Write into the state of the VM, which has no supervisor yet, that it has these doors, @next among them. */
static int note_door(void *data, const struct vm_door *next)
{
	const struct notes *notes = data;
	struct vm_state_record state = {.state = VM_CREATING};
	size_t n = notes->doors->n;
	(void)state_read(notes->record->state_fd, &state, NULL); /* of an earlier life */
	state.supervisor = state.worker = state.machine = (struct process_id){0};
	memset(state.doors, 0, sizeof(state.doors));
	host_boot_id(state.boot_id);
	for (size_t i = 0; i < n; i++)
		state.doors[i] = notes->doors->doors[i].door;
	state.doors[n] = *next;
	return state_write(notes->record->state_fd, &state, NULL);
}

int start_doors_open(const struct husk *husk, const struct husk_vm_config *config, const struct vm_record *record,
	struct start_doors *out, struct husk_error *err)
{
	int rc = make_stats(record, &out->stats_fd, err);
	rc = rc < 0 ? rc : make_service(record, &out->service_fd, err);
	if (rc < 0)
		return rc;
	engine_helper(husk, "husk-tls", &out->tls_path, NULL);
	out->doors = calloc(config->n_doors + 1, sizeof(*out->doors));
	if (!out->doors)
		return error_set(err, -ENOMEM, "open the VM's doors: out of memory");
	struct notes notes = {out, record};
	const struct door_nest nest = {.id = record->id, .note = note_door, .data = &notes};
	for (size_t i = 0; i < config->n_doors; i++) {
		rc = door_open(husk, record->runtime_fd, &config->doors[i], &nest, &out->doors[i], err);
		if (rc < 0)
			return rc;
		out->n++;
	}
	return 0;
}

void start_doors_put(const struct start_doors *d, struct envelope *e)
{
	envelope_fd(e, VMM_STATS_FD, d->stats_fd);
	envelope_fd(e, VMM_SERVICE_FD, d->service_fd);
	if (d->tls_path)
		envelope_string(e, VMM_TLS_PATH, d->tls_path);
	for (size_t i = 0; i < d->n; i++)
		envelope_door(e, &d->doors[i].door, d->doors[i].fd);
}

void start_doors_take_down(struct start_doors *d)
{
	for (size_t i = 0; i < d->n; i++)
		door_take_down(&d->doors[i]);
}

void start_doors_free(struct start_doors *d)
{
	for (size_t i = 0; i < d->n; i++)
		door_close(&d->doors[i]);
	free(steal_pointer(&d->doors));
	free(steal_pointer(&d->tls_path));
	d->n = 0;
	if (d->stats_fd >= 0)
		close(steal_fd(&d->stats_fd));
	if (d->service_fd >= 0)
		close(steal_fd(&d->service_fd));
}
