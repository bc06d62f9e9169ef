/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gc.c - collect what belongs to nothing
 *
 * Theory of operation: first the cleanup that every command does (cleanup.h), whose notices become lines of the report. Then what
 * is there is compared with what it would belong to, under the home's lock, with which records appear and disappear and names are
 * taken: a runtime directory without a record in vms or vms.new, at whose socket nobody takes requests; a name whose VM is not
 * there, or has another name by now; a record in which neither configuration nor state is left. A process that was killed in
 * mid-write leaves a temporary file, which is removed from a record whose lock is free. Images are husk-image's business.
 *
 * Whatever cannot be read is left, and so is everything that it might refer to. A dry run looks at the same things, and says what
 * it would do.
 */
#include "engine/gc.h"

#include "base/path.h"
#include "engine/cleanup.h"
#include "engine/images.h"
#include "engine/status.h"
#include "vmm/config.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>

struct gc {
	const struct husk *husk;
	bool dry_run;
	struct buffer *report;
};

/** Say that @what (beneath the home or the runtime) is removed, or would be, and why; true when it is to be done. */
__attribute__((format(printf, 3, 4))) static bool collect(struct gc *gc, const char *why, const char *format, ...)
{
	CLEANUP_FREE char *what = NULL;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&what, format, ap) < 0)
		what = NULL;
	va_end(ap);
	if (!what)
		return false;
	buffer_printf(gc->report, "%s %s: %s\n", gc->dry_run ? "would remove" : "removed", what, why);
	return !gc->dry_run;
}

/** Call @fn with the name of every entry of @directory; one that is not there has none. */
static int for_each(
	struct gc *gc, const char *directory, int (*fn)(struct gc *gc, const char *name), struct husk_error *err)
{
	CLEANUP_DIR DIR *dir = opendir(directory);
	int rc = 0;

	if (!dir)
		return errno == ENOENT ? 0 : error_errno(err, "open %s", directory);
	for (struct dirent *entry; rc == 0 && (entry = readdir(dir));)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			rc = fn(gc, entry->d_name);
	return rc;
}

/** True when @name is in @folder of the home; what cannot be looked at is. */
static bool is_there(const struct gc *gc, const char *folder, const char *name)
{
	CLEANUP_FREE char *path = path_format("%s/%s/%s", gc->husk->home, folder, name);
	return !path || access(path, F_OK) == 0 || errno != ENOENT;
}

/** Nobody holds the lock in @directory; it is held by us as *@fd, or there is none. */
static bool lock_free(const char *directory, int *fd)
{
	CLEANUP_FREE char *path = path_join(directory, "lock");

	*fd = path ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (*fd < 0)
		return path && errno == ENOENT;
	return flock(*fd, LOCK_EX | LOCK_NB) == 0;
}

/** True when somebody takes requests for the VM @id, or that cannot be told. */
static bool is_served(const struct gc *gc, const char *id)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s/" VM_SERVICE_NAME, gc->husk->runtime, id);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return true;
	return errno != ENOENT && errno != ECONNREFUSED;
}

/* ---- records ---- */

static int collect_staging(struct gc *gc, const char *name)
{
	CLEANUP_FREE char *path = path_format("%s/vms.new/%s", gc->husk->home, name);
	CLEANUP_FD int fd = -1;

	if (!path || !vm_id_check(name) || !lock_free(path, &fd))
		return 0;
	if (collect(gc, "making or removing this VM was interrupted", "vms.new/%s", name))
		path_remove_tree(path, NULL);
	return 0;
}

/** Temporary files of atomic writes: path_write_atomically() adds six letters. */
static void collect_temporary(struct gc *gc, const char *folder, const char *directory, const char *of)
{
	CLEANUP_DIR DIR *dir = opendir(directory);

	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		const char *name = entry->d_name;
		size_t n = strlen(name);
		bool temporary = n > 7 && name[n - 7] == '.' && (!of || (strncmp(name, of, n - 7) == 0 && !of[n - 7]));
		if (temporary && collect(gc, "a write that was interrupted", "%s/%s", folder, name))
			unlinkat(dirfd(dir), name, 0);
	}
}

/** A record of which cleaning up has left something. */
static int collect_record(struct gc *gc, const char *name)
{
	CLEANUP_FREE char *path = path_format("%s/vms/%s", gc->husk->home, name);
	CLEANUP_FREE char *folder = path_format("vms/%s", name);
	CLEANUP_FREE char *config = path ? path_join(path, "vm.json") : NULL;
	CLEANUP_FREE char *state = path ? path_join(path, "state") : NULL;
	CLEANUP_FD int fd = -1;
	struct status now;

	if (!config || !state || !folder || !vm_id_check(name))
		return 0;
	bool empty = access(config, F_OK) < 0 && errno == ENOENT && access(state, F_OK) < 0 && errno == ENOENT;
	if (!empty && (status_read(gc->husk, name, &now, NULL) < 0 || now.alive))
		return 0;
	if (is_served(gc, name) || !lock_free(path, &fd))
		return 0;
	if (!empty)
		collect_temporary(gc, folder, path, "vm.json");
	else if (collect(gc, "neither a configuration nor a state is left of this VM", "vms/%s", name))
		path_remove_tree(path, NULL);
	return 0;
}

/** What cleaning up would do, without doing it. */
static int foresee_record(struct gc *gc, const char *name)
{
	CLEANUP_FREE char *path = path_format("%s/vms/%s/lock", gc->husk->home, name);
	struct vm_record record = VM_RECORD_INIT;
	CLEANUP_FREE char *directory = path_format("%s/vms/%s", gc->husk->home, name);
	CLEANUP_JSON json_t *json = NULL;
	struct status now;

	if (!path || !directory || !vm_id_check(name) || status_read(gc->husk, name, &now, NULL) < 0 || now.alive)
		return 0;
	CLEANUP_FD int lock = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (lock < 0 || flock(lock, LOCK_SH | LOCK_NB) < 0)
		return 0;
	memcpy(record.id, name, VM_ID_SIZE);
	record.directory = directory;
	if (vm_record_read(&record, &json, NULL) < 0)
		return 0;
	const char *lifetime = json_string_value(json_object_get(json, "lifetime"));
	bool left = lifetime && strcmp(lifetime, "caller") == 0 && now.state.state != VM_CREATED;
	if (left || (now.orphan && now.state.state == VM_CREATING))
		collect(gc, now.state.reason[0] ? now.state.reason : "its foreground run is gone", "VM %s", name);
	else if (now.orphan)
		buffer_printf(gc->report, "would set VM %s right: %s\n", name, now.state.reason);
	return 0;
}

static void on_notice(void *data, enum husk_notice kind, const char *line)
{
	struct gc *gc = data;

	if (kind == HUSK_NOTICE_CLEANUP)
		buffer_printf(gc->report, "%s\n", line);
}

/** The cleanup of every command. */
static int collect_dead(struct gc *gc, struct husk_error *err)
{
	struct husk loud = *gc->husk;

	loud.notice = on_notice;
	loud.notice_data = gc;
	return cleanup_run(&loud, NULL, err);
}

/* ---- what belongs to a record ---- */

static int collect_runtime(struct gc *gc, const char *name)
{
	CLEANUP_FREE char *path = path_join(gc->husk->runtime, name);

	if (!path || !vm_id_check(name) || is_there(gc, "vms", name) || is_there(gc, "vms.new", name) ||
		is_served(gc, name))
		return 0;
	if (collect(gc, "sockets of no VM", "%s", path))
		path_remove_tree(path, NULL);
	return 0;
}

/** Why the name that the file @path gives to a VM is nobody's; NULL: it may be somebody's. */
static const char *why_free(struct gc *gc, const char *name, const char *path)
{
	struct vm_record record = VM_RECORD_INIT;
	CLEANUP_JSON json_t *json = NULL;
	char id[VM_ID_SIZE] = {0};
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -1 : read(fd, id, VM_ID_SIZE);

	if (n < 0)
		return NULL;
	id[VM_ID_SIZE - 1] = 0;
	if (n != VM_ID_SIZE - 1 || !vm_id_check(id))
		return "a name that was not written to its end";
	if (!is_there(gc, "vms", id))
		return "the name of no VM";
	memcpy(record.id, id, VM_ID_SIZE);
	CLEANUP_FREE char *directory = path_format("%s/vms/%s", gc->husk->home, id);
	record.directory = directory;
	if (!directory || vm_record_read(&record, &json, NULL) < 0)
		return NULL;
	const char *its = json_string_value(json_object_get(json, "name"));
	return its && strcmp(its, name) == 0 ? NULL : "its VM has another name";
}

static int collect_name(struct gc *gc, const char *name)
{
	CLEANUP_FREE char *path = path_format("%s/vm-names/%s", gc->husk->home, name);
	const char *why = path ? why_free(gc, name, path) : NULL;

	if (why && collect(gc, why, "vm-names/%s", name))
		unlink(path);
	return 0;
}

/** All that is beneath @folder of the home, or with NULL of the runtime, with the home's lock. */
static int collect_in(
	struct gc *gc, const char *folder, int (*fn)(struct gc *gc, const char *name), struct husk_error *err)
{
	CLEANUP_FREE char *path = folder ? path_join(gc->husk->home, folder) : strdup(gc->husk->runtime);

	if (!path)
		return error_set(err, -ENOMEM, "collect: out of memory");
	CLEANUP_FD int lock = vm_home_lock(gc->husk, err);
	return lock < 0 ? lock : for_each(gc, path, fn, err);
}

static int collect_images(struct gc *gc, bool images, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer out = {0};
	const char *args[4] = {"gc"};
	size_t n = 1;

	if (images)
		args[n++] = "--images";
	if (gc->dry_run)
		args[n++] = "--dry-run";
	int rc = images_command(gc->husk, args, -1, -1, -1, &out, err);
	if (rc == 0 && out.size)
		rc = buffer_append(gc->report, buffer_bytes(&out), out.size);
	return rc;
}

int gc_run(const struct husk *husk, bool images, bool dry_run, struct buffer *report, struct husk_error *err)
{
	struct gc gc = {.husk = husk, .dry_run = dry_run, .report = report};

	/* Before the cleanup, which would do the same and say nothing. */
	int rc = collect_in(&gc, "vms.new", collect_staging, err);
	if (rc == 0)
		rc = dry_run ? collect_in(&gc, "vms", foresee_record, err) : collect_dead(&gc, err);
	rc = rc < 0 ? rc : collect_in(&gc, "vms", collect_record, err);
	rc = rc < 0 ? rc : collect_in(&gc, NULL, collect_runtime, err);
	rc = rc < 0 ? rc : collect_in(&gc, "vm-names", collect_name, err);
	return rc < 0 ? rc : collect_images(&gc, images, err);
}
