/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot.c - take, restore and be born of snapshots (theory of operation: snapshot.h) */
#include "sandbox/snapshot.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "sandbox/run.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#define WORD_BITS (8 * sizeof(unsigned long))

static bool bit(const unsigned long *bits, uint64_t i)
{
	return bits[i / WORD_BITS] >> i % WORD_BITS & 1;
}

static void set_bit(unsigned long *bits, uint64_t i)
{
	bits[i / WORD_BITS] |= 1ul << i % WORD_BITS;
}

/* ---- the struct ---- */

struct husk_sandbox_snapshot *snapshot_new(void)
{
	struct husk_sandbox_snapshot *snapshot = calloc(1, sizeof(*snapshot));

	if (snapshot)
		*snapshot = (struct husk_sandbox_snapshot){.refs = 1, .fd = -1};
	return snapshot;
}

struct husk_sandbox_snapshot *snapshot_ref(struct husk_sandbox_snapshot *snapshot)
{
	__atomic_add_fetch(&snapshot->refs, 1, __ATOMIC_RELAXED);
	return snapshot;
}

void snapshot_unref(struct husk_sandbox_snapshot *snapshot)
{
	if (!snapshot || __atomic_sub_fetch(&snapshot->refs, 1, __ATOMIC_ACQ_REL))
		return;
	if (snapshot->memory)
		munmap((void *)snapshot->memory, snapshot->size);
	cleanup_fd(&snapshot->fd);
	if (snapshot->image)
		image_unref(snapshot->image);
	free(snapshot->areas);
	free(snapshot->cells);
	free(snapshot->data);
	free(snapshot);
}

void husk_sandbox_snapshot_free(struct husk_sandbox_snapshot *snapshot)
{
	snapshot_unref(snapshot);
}

struct husk_sandbox_image *husk_sandbox_snapshot_image(struct husk_sandbox_snapshot *snapshot)
{
	return snapshot->image;
}

/** Mark what is no hole. A file system that knows no holes says that all is data. */
static int find_holes(struct husk_sandbox_snapshot *s, struct husk_error *err)
{
	off_t base = (off_t)s->memory_offset, end = base + (off_t)s->size;

	for (off_t at = base; at < end;) {
		off_t from = lseek(s->fd, at, SEEK_DATA);
		if (from < 0 && errno == ENXIO)
			return 0;
		off_t to = from < 0 ? -1 : lseek(s->fd, from, SEEK_HOLE);
		if (to < 0)
			return error_errno(err, "look for holes in a snapshot's memory");
		for (off_t page = from - from % (off_t)SANDBOX_PAGE; page < to && page < end;
			page += (off_t)SANDBOX_PAGE)
			set_bit(s->data, (uint64_t)(page - base) / SANDBOX_PAGE);
		at = to;
	}
	return 0;
}

int snapshot_open_memory(struct husk_sandbox_snapshot *s, struct husk_error *err)
{
	/* nothing_in_word() looks at the word behind that of any page. */
	s->data = calloc(s->size / SANDBOX_PAGE / WORD_BITS + 2, sizeof(*s->data));
	if (!s->data)
		return error_set(err, -ENOMEM, "open a snapshot's memory: out of memory");
	void *memory = mmap(NULL, s->size, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, s->fd, (off_t)s->memory_offset);
	if (memory == MAP_FAILED)
		return error_errno(err, "map a snapshot's memory");
	s->memory = memory;
	return find_holes(s, err);
}

/* ---- taking one ---- */

static int list_areas(struct husk_sandbox_snapshot *snapshot, const struct husk_sandbox *s, struct husk_error *err)
{
	snapshot->areas = calloc(s->areas.n, sizeof(*snapshot->areas));
	snapshot->cells = calloc(s->cells.n + 1, sizeof(*snapshot->cells));
	if (!snapshot->areas || !snapshot->cells)
		return error_set(err, -ENOMEM, "take a snapshot: out of memory");
	for (unsigned i = 0; i < s->areas.n; i++) {
		const struct area *area = &s->areas.list[i];
		if (area->kind == AREA_PROGRAM)
			continue;
		struct snapshot_area *to = &snapshot->areas[snapshot->n_areas++];
		*to = (struct snapshot_area){.kind = area->kind,
			.rights = area->rights,
			.gpa = area->gpa,
			.size = area->size,
			.offset = snapshot->size};
		memcpy(to->name, area->name, sizeof(to->name));
		snapshot->size += area->size;
	}
	for (unsigned i = 0; i < s->cells.n; i++) {
		const struct cell *cell = &s->cells.list[i];
		struct snapshot_cell *to = &snapshot->cells[snapshot->n_cells++];
		*to = (struct snapshot_cell){.owner = cell->owner, .gpa = cell->gpa, .shadow = cell->shadow};
		memcpy(to->name, cell->name, sizeof(to->name));
	}
	return 0;
}

/** Where the bytes of page @i of an area are that is like the base unless it is dirty; NULL: zeroes. */
static const uint8_t *page_of(const struct husk_sandbox *s, const struct area *area, uint64_t offset, uint64_t i)
{
	const struct husk_sandbox_snapshot *base = s->synced;

	if (bit(area->dirty, i))
		return bytes_are_zero(area->host + i * SANDBOX_PAGE, SANDBOX_PAGE) ? NULL
										   : area->host + i * SANDBOX_PAGE;
	if (base)
		return bit(base->data, offset / SANDBOX_PAGE + i) ? base->memory + offset + i * SANDBOX_PAGE : NULL;
	/* From the start on only the program's data are no zeroes; they are mapped there, whoever touched them. */
	bool data = area->kind == AREA_CORE && i < s->image->data_size / SANDBOX_PAGE;
	return data ? area->host + i * SANDBOX_PAGE : NULL;
}

static int write_run(int fd, const uint8_t *from, uint64_t n, uint64_t offset, struct husk_error *err)
{
	int rc = fd_write_all_at(fd, from, n, offset);
	return rc < 0 ? error_set(err, rc, "take a snapshot: copy memory: %s", strerror(-rc)) : 0;
}

/** Words of dirty bits and of the base's that are all zero are passed over, so that the cost is that of what there is. */
static bool nothing_in_word(const struct husk_sandbox *s, const struct area *area, uint64_t offset, uint64_t i)
{
	if (i % WORD_BITS || area->dirty[i / WORD_BITS])
		return false;
	if (!s->synced)
		return area->kind != AREA_CORE || i >= s->image->data_size / SANDBOX_PAGE;
	uint64_t first = offset / SANDBOX_PAGE + i;
	return !s->synced->data[first / WORD_BITS] && !s->synced->data[first / WORD_BITS + 1];
}

static int copy_area(
	const struct husk_sandbox *s, const struct area *area, int fd, uint64_t offset, struct husk_error *err)
{
	uint64_t pages = area->size / SANDBOX_PAGE, from = 0, n = 0;
	const uint8_t *run = NULL;
	int rc = 0;

	for (uint64_t i = 0; rc == 0 && i < pages; i++) {
		if (nothing_in_word(s, area, offset, i)) {
			i += WORD_BITS - 1;
			continue;
		}
		const uint8_t *page = page_of(s, area, offset, i);
		if (page && run && page == run + n && from + n == i * SANDBOX_PAGE) {
			n += SANDBOX_PAGE;
			continue;
		}
		rc = run ? write_run(fd, run, n, offset + from, err) : 0;
		run = page;
		from = i * SANDBOX_PAGE;
		n = SANDBOX_PAGE;
	}
	return rc == 0 && run ? write_run(fd, run, n, offset + from, err) : rc;
}

static int copy_memory(struct husk_sandbox_snapshot *snapshot, struct husk_sandbox *s, struct husk_error *err)
{
	snapshot->fd = memfd_create("sandbox-snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (snapshot->fd < 0 || ftruncate(snapshot->fd, (off_t)snapshot->size) < 0)
		return error_errno(err, "take a snapshot: make memory for it");
	int rc = areas_collect(&s->areas, &s->vm, err);
	unsigned next = 0;
	for (unsigned i = 0; rc == 0 && i < s->areas.n; i++)
		if (s->areas.list[i].kind != AREA_PROGRAM)
			rc = copy_area(s, &s->areas.list[i], snapshot->fd, snapshot->areas[next++].offset, err);
	if (rc == 0 && fcntl(snapshot->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		rc = error_errno(err, "seal a snapshot's memory");
	return rc < 0 ? rc : snapshot_open_memory(snapshot, err);
}

/** From now on the dirty bits count from @snapshot. */
static void sync_with(struct husk_sandbox *s, struct husk_sandbox_snapshot *snapshot)
{
	areas_clean(&s->areas);
	if (s->synced == snapshot)
		return;
	snapshot_unref(s->synced);
	s->synced = snapshot_ref(snapshot);
}

static int take(struct husk_sandbox *s, struct husk_sandbox_snapshot *snapshot, struct husk_error *err)
{
	int rc = run_settle(s, err);

	rc = rc < 0 ? rc : cpu_save(s->kvm, &s->vcpu, &snapshot->cpu, err);
	pthread_mutex_lock(&s->memory_lock);
	rc = rc < 0 ? rc : list_areas(snapshot, s, err);
	rc = rc < 0 ? rc : copy_memory(snapshot, s, err);
	if (rc == 0)
		sync_with(s, snapshot);
	pthread_mutex_unlock(&s->memory_lock);
	return rc;
}

int husk_sandbox_snapshot(struct husk_sandbox *sandbox, struct husk_sandbox_snapshot **out, struct husk_error *err)
{
	int rc = sandbox_enter(sandbox, IN_STATE(HUSK_SANDBOX_READY), "take a snapshot", err);

	if (rc < 0)
		return rc;
	struct husk_sandbox_snapshot *snapshot = snapshot_new();
	if (!snapshot) {
		rc = error_set(err, -ENOMEM, "take a snapshot: out of memory");
	} else {
		snapshot->image = image_ref(sandbox->image);
		snapshot->config = sandbox->config;
		snapshot->features = sandbox->features;
		rc = take(sandbox, snapshot, err);
	}
	if (rc < 0) {
		snapshot_unref(snapshot);
	} else {
		sandbox->stats.snapshots++;
		*out = snapshot;
	}
	sandbox_leave(sandbox);
	return rc;
}

/* ---- going back to one ---- */

static bool same_program(const struct husk_sandbox_image *a, const struct husk_sandbox_image *b)
{
	return a == b || (a->elf_size == b->elf_size && memcmp(a->elf, b->elf, a->elf_size) == 0);
}

/** Is @snapshot one of a sandbox like this? */
static int check_likeness(
	const struct husk_sandbox *s, const struct husk_sandbox_snapshot *snapshot, struct husk_error *err)
{
	unsigned next = 0;
	const char *differs = same_program(s->image, snapshot->image) ? NULL : "program";

	for (unsigned i = 0; !differs && i < s->areas.n; i++) {
		const struct area *a = &s->areas.list[i];
		if (a->kind == AREA_PROGRAM)
			continue;
		const struct snapshot_area *b = &snapshot->areas[next++];
		if (next > snapshot->n_areas || a->kind != b->kind || a->gpa != b->gpa || a->size != b->size ||
			a->rights != b->rights || strcmp(a->name, b->name) != 0)
			differs = "sizes or regions";
	}
	if (!differs && next != snapshot->n_areas)
		differs = "sizes or regions";
	if (!differs && s->cells.n != snapshot->n_cells)
		differs = "cells";
	for (unsigned i = 0; !differs && i < s->cells.n; i++) {
		const struct cell *a = &s->cells.list[i];
		const struct snapshot_cell *b = &snapshot->cells[i];
		if (a->owner != b->owner || a->gpa != b->gpa || strcmp(a->name, b->name) != 0)
			differs = "cells";
	}
	return differs ? error_set(err, -EINVAL, "restore: the snapshot is of a sandbox with other %s", differs) : 0;
}

/** Put back the dirty pages of an area; how many. */
static uint64_t copy_back(
	const struct husk_sandbox_snapshot *snapshot, const struct snapshot_area *from, struct area *area)
{
	uint64_t first = 0, run, n = 0;

	for (; area_dirty_run(area, &first, &run); first += run, n += run)
		for (uint64_t i = first; i < first + run; i++) {
			uint8_t *to = area->host + i * SANDBOX_PAGE;
			if (bit(snapshot->data, from->offset / SANDBOX_PAGE + i))
				memcpy(to, snapshot->memory + from->offset + i * SANDBOX_PAGE, SANDBOX_PAGE);
			else
				memset(to, 0, SANDBOX_PAGE);
		}
	return n;
}

static int put_memory_back(struct husk_sandbox *s, struct husk_sandbox_snapshot *snapshot, struct husk_error *err)
{
	const bool known = s->synced == snapshot;
	int rc = areas_collect(&s->areas, &s->vm, err);
	unsigned next = 0;

	/* When this ends halfway, some areas are like one snapshot and some like another: the next restore has to map all. */
	if (!known) {
		snapshot_unref(s->synced);
		s->synced = NULL;
	}
	for (unsigned i = 0; rc == 0 && i < s->areas.n; i++) {
		struct area *area = &s->areas.list[i];
		if (area->kind == AREA_PROGRAM)
			continue;
		const struct snapshot_area *from = &snapshot->areas[next++];
		if (known)
			s->stats.pages_restored += copy_back(snapshot, from, area);
		else /* KVM hears of it from the kernel */
			rc = area_map_over(area, area->size, snapshot->fd, snapshot->memory_offset + from->offset, err);
		if (area->lost)
			sandbox_set_state(s, HUSK_SANDBOX_DEAD);
	}
	for (unsigned i = 0; rc == 0 && i < s->cells.n; i++)
		s->cells.list[i].shadow = snapshot->cells[i].shadow;
	if (rc == 0) {
		sync_with(s, snapshot);
		/* The shadows are the truth: the memory of a snapshot that was loaded may say something else. */
		cells_publish(&s->cells, &s->areas);
	}
	return rc;
}

int husk_sandbox_restore(struct husk_sandbox *sandbox, struct husk_sandbox_snapshot *snapshot, struct husk_error *err)
{
	int rc = sandbox_enter(sandbox, IN_STATE(HUSK_SANDBOX_READY) | IN_STATE(HUSK_SANDBOX_POISONED), "restore", err);

	if (rc < 0)
		return rc;
	rc = check_likeness(sandbox, snapshot, err);
	if (rc == 0 && sandbox->synced != snapshot) /* it has not been here yet */
		rc = cpu_features_fit(&snapshot->features, &sandbox->features, err);
	if (rc == 0) {
		rc = run_settle(sandbox, err);
		pthread_mutex_lock(&sandbox->memory_lock);
		rc = rc < 0 ? rc : put_memory_back(sandbox, snapshot, err);
		pthread_mutex_unlock(&sandbox->memory_lock);
		rc = rc < 0 ? rc : cpu_load(sandbox->kvm, &sandbox->vcpu, &snapshot->cpu, err);
		/* Half of it may have been put back; what has lost memory is dead already. */
		if (husk_sandbox_state(sandbox) != HUSK_SANDBOX_DEAD)
			sandbox_set_state(sandbox, rc < 0 ? HUSK_SANDBOX_POISONED : HUSK_SANDBOX_READY);
		sandbox->stats.restores += rc == 0;
	}
	sandbox_leave(sandbox);
	return rc;
}

/* ---- being born of one ---- */

int snapshot_map(struct husk_sandbox_snapshot *snapshot, struct husk_sandbox *s, struct husk_error *err)
{
	int rc = 0;

	for (unsigned i = 0; rc == 0 && i < snapshot->n_areas; i++) {
		const struct snapshot_area *from = &snapshot->areas[i];
		unsigned number;
		rc = areas_add(&s->areas, from->kind, from->rights, from->gpa, from->size, snapshot->fd,
			snapshot->memory_offset + from->offset, &number, err);
		if (rc == 0)
			memcpy(s->areas.list[number].name, from->name, sizeof(from->name));
	}
	for (unsigned i = 0; rc == 0 && i < snapshot->n_cells; i++) {
		const struct snapshot_cell *from = &snapshot->cells[i];
		rc = cells_add_back(&s->cells, &s->areas, from->name, from->owner, from->gpa, from->shadow, err);
	}
	if (rc == 0)
		cells_publish(&s->cells, &s->areas);
	return rc;
}

int snapshot_begin(struct husk_sandbox_snapshot *snapshot, struct husk_sandbox *s, struct husk_error *err)
{
	int rc = cpu_load(s->kvm, &s->vcpu, &snapshot->cpu, err);

	if (rc < 0)
		return error_prefix(err, rc, "start from a snapshot");
	pthread_mutex_lock(&s->memory_lock);
	/* What the host wrote since it was made stays, and counts as dirty; sync_with() would forget it. */
	s->synced = snapshot_ref(snapshot);
	pthread_mutex_unlock(&s->memory_lock);
	return 0;
}
