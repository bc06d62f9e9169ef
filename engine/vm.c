/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.c - the record of a VM on disk
 *
 * Theory of operation: a record is made whole in HOME/vms.new, under the home's lock, and then renamed into HOME/vms, so
 * that whoever reads there finds a vm.json. It is the placeholder: side effects (a scratch disk, processes) come after it,
 * and whoever finds it later knows what to clean up. Removing it goes the same way back: renamed into vms.new it is gone,
 * and what is left of it there is anybody's to clean up.
 *
 * Whoever makes or changes a record holds its lock, a flock that the kernel drops with the process; a record whose lock is free
 * and whose supervisor is dead belongs to nobody. The lock of one record is taken before the home's, never while that is held,
 * but for a record that nobody knows of yet.
 *
 * A name is a file with the VM's id, written before vm.json has the name and removed after it: what counts is vm.json, and
 * a name whose VM is gone or calls itself otherwise is free. So no second truth has to be kept in step.
 */
#include "engine/vm.h"

#include "base/event.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/rfc3339.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#define LOCK_NAP_MS 10

int vm_name_check(const char *name, struct husk_error *err)
{
	static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	static const char rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
	size_t n = strlen(name);
	if (n == 0 || n > 128 || !strchr(first, name[0]) || strspn(name, rest) != n)
		return error_set(err, -EINVAL,
			"'%s' is not a name for a VM: letters, digits, '_', '.' and '-', beginning with a letter or "
			"digit",
			name);
	return 0;
}

bool vm_id_check(const char *text)
{
	return strlen(text) == VM_ID_SIZE - 1 && strspn(text, "0123456789abcdef") == VM_ID_SIZE - 1;
}

static void make_id(char id[VM_ID_SIZE])
{
	uint8_t bytes[6];
	while (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		;
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(id + 2 * i, 3, "%02x", bytes[i]);
}

/** Take the lock of @fd, waiting at most @wait_ms: -EWOULDBLOCK. flock(2) can wait for ever or not at all, and nothing tells when a
 *  lock is let go: so look again every now and then. */
static int lock_within(int fd, unsigned wait_ms)
{
	struct timespec nap = {.tv_nsec = LOCK_NAP_MS * 1000000};
	for (unsigned waited = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; waited += LOCK_NAP_MS) {
		if ((errno != EWOULDBLOCK && errno != EINTR) || waited >= wait_ms)
			return -errno;
		nanosleep(&nap, NULL);
	}
	return 0;
}

int vm_home_lock(const struct husk *husk, struct husk_error *err)
{
	CLEANUP_FREE char *path = path_join(husk->home, "vms.lock");
	if (!path)
		return error_set(err, -ENOMEM, "lock the home: out of memory");
	CLEANUP_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno(err, "open %s", path);
	int rc = lock_within(fd, VM_LOCK_MS);
	if (rc == -EWOULDBLOCK)
		return error_set(err, -EBUSY, "another process holds %s, and does not let go", path);
	return rc < 0 ? error_set(err, rc, "lock %s: %s", path, strerror(-rc)) : steal_fd(&fd);
}

/** True when the record @id exists and has this name. One that cannot be read keeps it. */
static bool is_named(const struct husk *husk, const char *id, const char *name)
{
	CLEANUP_FREE char *path = path_format("%s/vms/%s/vm.json", husk->home, id);
	if (!path || access(path, F_OK) < 0)
		return false;
	CLEANUP_JSON json_t *json = json_load_file(path, 0, NULL);
	const char *named = json_string_value(json_object_get(json, "name"));
	return json ? named && strcmp(named, name) == 0 : access(path, F_OK) == 0;
}

/** Where the name's file is; *@owner gets the id of the living VM that has it, or "". */
static int name_look_up(
	const struct husk *husk, const char *name, char **path, char owner[VM_ID_SIZE], struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer text = {0};
	owner[0] = 0;
	*path = path_format("%s/vm-names/%s", husk->home, name);
	if (!*path)
		return error_set(err, -ENOMEM, "look up the name %s: out of memory", name);
	CLEANUP_FD int fd = open(*path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? 0 : error_errno(err, "open %s", *path);
	if (fd_read_to_end(fd, &text, VM_ID_SIZE - 1) < 0 || text.size != VM_ID_SIZE - 1)
		return 0; /* torn: nobody's */
	char id[VM_ID_SIZE] = {0};
	memcpy(id, buffer_bytes(&text), VM_ID_SIZE - 1);
	if (vm_id_check(id) && is_named(husk, id, name))
		memcpy(owner, id, VM_ID_SIZE);
	return 0;
}

int vm_name_owner(const struct husk *husk, const char *name, char id[VM_ID_SIZE], struct husk_error *err)
{
	CLEANUP_FREE char *path = NULL;
	return name_look_up(husk, name, &path, id, err);
}

int vm_name_free(const struct husk *husk, const char *name, struct husk_error *err)
{
	char owner[VM_ID_SIZE];
	int rc = vm_name_owner(husk, name, owner, err);
	if (rc < 0 || !owner[0])
		return rc;
	return error_set(err, -EEXIST, "the name '%s' is taken by VM %s; choose another one", name, owner);
}

static int name_take(const struct husk *husk, const char *name, const char *id, struct husk_error *err)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *directory = path_join(husk->home, "vm-names");
	char owner[VM_ID_SIZE];
	if (!directory)
		return error_set(err, -ENOMEM, "take the name %s: out of memory", name);
	int rc = vm_name_free(husk, name, err);
	rc = rc < 0 ? rc : path_make_directories(directory, 0700, err);
	rc = rc < 0 ? rc : name_look_up(husk, name, &path, owner, err);
	return rc < 0 ? rc : path_write_atomically(path, id, strlen(id), 0600, err);
}

/** Remove the file of a name that @id had. The home's lock is held, and no record @id calls itself so. */
static void name_drop(const struct husk *husk, const char *name, const char *id)
{
	CLEANUP_BUFFER struct buffer text = {0};
	CLEANUP_FREE char *path = path_format("%s/vm-names/%s", husk->home, name);
	CLEANUP_FD int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (fd >= 0 && fd_read_to_end(fd, &text, VM_ID_SIZE - 1) == 0 && text.size == VM_ID_SIZE - 1 &&
		memcmp(buffer_bytes(&text), id, VM_ID_SIZE - 1) == 0)
		unlink(path);
}

static void add_header(json_t *configuration, const char *id, const char *name)
{
	char created[RFC3339_SIZE];
	rfc3339_format(clock_realtime_ns(), created);
	json_object_set_new(configuration, "schema", json_integer(VM_SCHEMA));
	json_object_set_new(configuration, "id", json_string(id));
	json_object_set_new(configuration, "name", name ? json_string(name) : json_null());
	json_object_set_new(configuration, "created", json_string(created));
}

static int write_json(const char *directory, json_t *configuration, struct husk_error *err)
{
	CLEANUP_FREE char *path = path_join(directory, "vm.json");
	CLEANUP_FREE char *text = json_dumps(configuration, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	if (!path || !text)
		return error_set(err, -ENOMEM, "write the VM's record: out of memory");
	return path_write_atomically(path, text, strlen(text), 0600, err);
}

static int open_beneath(const char *directory, const char *name, int flags, struct husk_error *err)
{
	CLEANUP_FREE char *path = path_join(directory, name);
	int fd = path ? open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
	return fd >= 0 ? fd : path ? error_errno(err, "open %s", path) : error_set(err, -ENOMEM, "out of memory");
}

/** Take the lock of the record in @directory, waiting at most @wait_ms for it: -EBUSY. */
static int take_lock(struct vm_record *record, const char *directory, int create, unsigned wait_ms, struct husk_error *err)
{
	struct stat ours, there;
	CLEANUP_FREE char *path = path_join(directory, "lock");
	CLEANUP_FD int fd = path ? open(path, O_RDWR | create | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
	if (fd < 0)
		return path && errno == ENOENT ? error_set(err, -ENOENT, "there is no VM %s", record->id)
					       : error_errno(err, "open the lock of VM %s", record->id);
	int rc = lock_within(fd, wait_ms);
	if (rc == -EWOULDBLOCK)
		return error_set(err, -EBUSY, "VM %s is being changed, started or removed by another process", record->id);
	if (rc < 0)
		return error_set(err, rc, "lock VM %s: %s", record->id, strerror(-rc));
	if (!create && (fstat(fd, &ours) < 0 || stat(path, &there) < 0 || ours.st_ino != there.st_ino))
		return error_set(err, -ENOENT, "VM %s was removed", record->id); /* by whom we have waited for */
	record->lock_fd = steal_fd(&fd);
	return 0;
}

/** Open the files of the record that lies in @directory, and lock it. */
static int open_files(struct vm_record *record, const char *directory, int create, unsigned wait_ms, struct husk_error *err)
{
	int rc = take_lock(record, directory, create, wait_ms, err);
	if (rc < 0)
		return rc;
	record->state_fd = open_beneath(directory, "state", O_RDWR | create, err);
	if (record->state_fd < 0)
		return record->state_fd;
	record->log_fd = open_beneath(directory, "log", O_RDWR | O_APPEND | create, err);
	return record->log_fd < 0 ? record->log_fd : 0;
}

static int set_paths(const struct husk *husk, struct vm_record *record, struct husk_error *err)
{
	record->directory = path_format("%s/vms/%s", husk->home, record->id);
	record->runtime = path_join(husk->runtime, record->id);
	return record->directory && record->runtime ? 0
						    : error_set(err, -ENOMEM, "open the VM's record: out of memory");
}

/** Build the record in vms.new and let it appear in vms. The home's lock is held. */
static int publish(const struct husk *husk, struct vm_record *record, json_t *configuration, struct husk_error *err)
{
	CLEANUP_FREE char *vms = path_join(husk->home, "vms");
	CLEANUP_FREE char *staging = path_format("%s/vms.new/%s", husk->home, record->id);
	if (!vms || !staging)
		return error_set(err, -ENOMEM, "make the VM's record: out of memory");
	int rc = path_make_directories(vms, 0700, err);
	rc = rc < 0 ? rc : path_make_directories(staging, 0700, err);
	rc = rc < 0 ? rc : open_files(record, staging, O_CREAT, 0, err);
	rc = rc < 0 ? rc : write_json(staging, configuration, err);
	if (rc == 0 && rename(staging, record->directory) < 0)
		rc = error_errno(err, "make the VM's record %s", record->directory);
	if (rc < 0)
		path_remove_tree(staging, NULL);
	return rc;
}

int vm_record_make_runtime(struct vm_record *record, struct husk_error *err)
{
	int rc = path_remove_tree(record->runtime, err);
	if (rc < 0)
		return rc;
	if (mkdir(record->runtime, 0700) < 0)
		return error_errno(err, "make the VM's runtime directory %s", record->runtime);
	record->runtime_fd = open(record->runtime, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return record->runtime_fd < 0 ? error_errno(err, "open %s", record->runtime) : 0;
}

int vm_record_create(
	const struct husk *husk, const char *name, json_t *configuration, struct vm_record *out, struct husk_error *err)
{
	CLEANUP_VM_RECORD struct vm_record record = VM_RECORD_INIT;
	make_id(record.id);
	int rc = set_paths(husk, &record, err);
	if (rc < 0)
		return rc;
	add_header(configuration, record.id, name);
	record.name = name ? strdup(name) : NULL;
	if (name && !record.name)
		return error_set(err, -ENOMEM, "make the VM's record: out of memory");
	CLEANUP_FD int home_lock = vm_home_lock(husk, err);
	if (home_lock < 0)
		return home_lock;
	rc = name ? name_take(husk, name, record.id, err) : 0;
	rc = rc < 0 ? rc : publish(husk, &record, configuration, err);
	if (rc < 0 && name)
		name_drop(husk, name, record.id);
	if (rc < 0)
		return rc;
	*out = record;
	record = (struct vm_record)VM_RECORD_INIT;
	return 0;
}

int vm_record_rename(const struct husk *husk, struct vm_record *record, const char *name, struct husk_error *err)
{
	CLEANUP_JSON json_t *json = NULL;
	CLEANUP_FREE char *copy = name ? strdup(name) : NULL;
	if (name && !copy)
		return error_set(err, -ENOMEM, "rename VM %s: out of memory", record->id);
	if (name && record->name && strcmp(name, record->name) == 0)
		return 0;
	CLEANUP_FD int home_lock = vm_home_lock(husk, err);
	int rc = home_lock < 0 ? home_lock : vm_record_read(record, &json, err);
	rc = rc < 0 ? rc : name ? name_take(husk, name, record->id, err) : 0;
	if (rc < 0)
		return rc;
	json_object_set_new(json, "name", name ? json_string(name) : json_null());
	rc = vm_record_write(record, json, err);
	if (rc < 0)
		return rc;
	if (record->name)
		name_drop(husk, record->name, record->id);
	free(record->name);
	record->name = steal_pointer(&copy);
	return 0;
}

int vm_record_write(const struct vm_record *record, json_t *configuration, struct husk_error *err)
{
	return write_json(record->directory, configuration, err);
}

int vm_record_remove(const struct husk *husk, struct vm_record *record, struct husk_error *err)
{
	CLEANUP_FREE char *parent = path_join(husk->home, "vms.new");
	CLEANUP_FREE char *staging = parent ? path_join(parent, record->id) : NULL;
	CLEANUP_FREE char *events = path_join(husk->home, "events");
	if (!staging)
		return error_set(err, -ENOMEM, "remove VM %s: out of memory", record->id);
	int rc = path_make_directories(parent, 0700, err);
	if (rc == 0 && rename(record->directory, staging) < 0)
		rc = error_errno(err, "remove VM %s", record->id);
	if (rc < 0)
		return rc;
	/* It is gone. Whoever is interrupted from here on leaves it there for the next cleanup, runtime directory and all. */
	rc = path_remove_tree(record->runtime, err);
	CLEANUP_FD int home_lock = record->name ? vm_home_lock(husk, NULL) : -1;
	if (home_lock >= 0) {
		name_drop(husk, record->name, record->id);
		close(steal_fd(&home_lock));
	}
	if (events)
		event_tell(events, "removed", record->id, record->name, NULL, 0);
	int removed = path_remove_tree(staging, err);
	return rc < 0 ? rc : removed;
}

void vm_record_close(struct vm_record *record)
{
	int *fds[] = {&record->lock_fd, &record->state_fd, &record->log_fd, &record->runtime_fd};
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (*fds[i] >= 0)
			close(steal_fd(fds[i]));
	free(steal_pointer(&record->directory));
	free(steal_pointer(&record->runtime));
	free(steal_pointer(&record->name));
}

int vm_record_open_within(
	const struct husk *husk, const char *id, unsigned wait_ms, struct vm_record *out, struct husk_error *err)
{
	CLEANUP_VM_RECORD struct vm_record record = VM_RECORD_INIT;
	snprintf(record.id, sizeof(record.id), "%s", id);
	int rc = set_paths(husk, &record, err);
	rc = rc < 0 ? rc : open_files(&record, record.directory, 0, wait_ms, err);
	if (rc < 0)
		return rc;
	CLEANUP_JSON json_t *configuration = NULL;
	if (vm_record_read(&record, &configuration, NULL) == 0) {
		const char *name = json_string_value(json_object_get(configuration, "name"));
		if (name && vm_name_check(name, NULL) == 0)
			record.name = strdup(name);
	}
	*out = record;
	record = (struct vm_record)VM_RECORD_INIT;
	return 0;
}

int vm_record_open(const struct husk *husk, const char *id, struct vm_record *out, struct husk_error *err)
{
	return vm_record_open_within(husk, id, 0, out, err);
}

void vm_record_unlock(struct vm_record *record)
{
	if (record->lock_fd >= 0)
		close(steal_fd(&record->lock_fd));
}

int vm_record_read(const struct vm_record *record, json_t **out, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer text = {0};
	json_error_t why;
	CLEANUP_FD int fd = open_beneath(record->directory, "vm.json", O_RDONLY, err);
	if (fd < 0)
		return fd;
	int rc = fd_read_to_end(fd, &text, 1 << 20);
	if (rc < 0)
		return error_set(err, rc, "read the record of VM %s: %s", record->id, strerror(-rc));
	CLEANUP_JSON json_t *json = json_loadb((const char *)buffer_bytes(&text), text.size, 0, &why);
	if (!json_is_object(json))
		return error_set(err, -EBADMSG, "the record of VM %s is not valid: %s", record->id, why.text);
	if (json_integer_value(json_object_get(json, "schema")) != VM_SCHEMA)
		return error_set(
			err, -EPROTO, "the record of VM %s was written by another version of husk", record->id);
	*out = steal_pointer(&json);
	return 0;
}
