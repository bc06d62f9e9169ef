/* SPDX-License-Identifier: Apache-2.0 */
/* saved-test.c - snapshots of sandboxes that ran, through files; cores of guests that ran */
#include "rig.h"

#include "base/path.h"
#include "sandbox/snapshot.h"
#include "snapshot/memory_file.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <sys/user.h>

static char directory[] = "/tmp/husk-saved-XXXXXX";
static char state_path[sizeof(directory) + 8], memory_path[sizeof(directory) + 16];

static int nothing(void *data, const struct husk_sandbox_value *args, size_t n, struct husk_sandbox_value *result,
	struct husk_error *err)
{
	return 0;
}

/** A sandbox with a region, a cell of each owner and a function that its program does not need, and something in all of
 *  them. */
static struct husk_sandbox *make_full(struct husk_sandbox_image *image)
{
	const struct husk_sandbox_signature signature = {.size = sizeof(signature), .name = "spare"};
	const unsigned rights = HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W | HUSK_SANDBOX_GUEST_R | HUSK_SANDBOX_GUEST_W;
	struct husk_sandbox *s;
	unsigned number;

	if (husk_sandbox_create(image, NULL, &s, &rig_error) < 0 ||
		husk_sandbox_add_function(s, &signature, nothing, NULL, &rig_error) < 0 ||
		husk_sandbox_add_region(s, "r", 8192, rights, 0x40000, &number, &rig_error) < 0 ||
		husk_sandbox_add_cell(s, "ours", HUSK_SANDBOX_CELL_HOST, HUSK_SANDBOX_ANYWHERE, &number, &rig_error) <
			0 ||
		husk_sandbox_add_cell(
			s, "theirs", HUSK_SANDBOX_CELL_GUEST, HUSK_SANDBOX_ANYWHERE, &number, &rig_error) < 0)
		return NULL;
	if (!rig_start(s))
		return NULL;
	if (husk_sandbox_cell_set(s, 0, 4711, &rig_error) < 0 ||
		husk_sandbox_region_write(s, 0, 5000, "\x2a", 1, &rig_error) < 0 ||
		!RIG_U64_IS(s, 1100, "counter", U64(100)) ||
		RIG_CALL(s, NULL, "cell_store", STRING("theirs"), U64(815)) < 0)
		printf("# the sandbox cannot be filled: %s\n", rig_error.message);
	return s;
}

/** Is all there that make_full() left, and the counter @want when @by has been added to it? */
static bool is_full(struct husk_sandbox *s, uint64_t by, uint64_t want)
{
	struct husk_sandbox_value byte = {0};
	uint64_t theirs = 0;

	return RIG_U64_IS(s, want, "counter", U64(by)) && RIG_U64_IS(s, 4711, "cell_load", STRING("ours")) &&
	       husk_sandbox_cell_load(s, 1, UINT64_MAX, &theirs, &rig_error) == 0 && theirs == 815 &&
	       RIG_CALL(s, &byte, "region_read", STRING("r"), U64(5000)) == 0 && byte.u32 == 42;
}

static void test_saved(struct husk_sandbox_image *image)
{
	struct husk_sandbox *s = make_full(image), *born[2] = {NULL, NULL};
	struct husk_sandbox_snapshot *taken = NULL, *loaded = NULL;

	if (!CHECK(s, "a sandbox with something in it runs"))
		return;
	CHECK(husk_sandbox_snapshot(s, &taken, &rig_error) == 0 &&
			husk_sandbox_snapshot_save(taken, state_path, &rig_error) == 0,
		"its snapshot is saved");
	CHECK(husk_sandbox_snapshot_load(state_path, &loaded, &rig_error) == 0, "and loaded");
	if (!loaded) {
		printf("# %s\n", rig_error.message);
		return;
	}
	for (int i = 0; i < 2; i++) {
		if (husk_sandbox_create_from(loaded, NULL, &born[i], &rig_error) < 0) {
			printf("# %s\n", rig_error.message);
			return;
		}
		born[i] = rig_start(born[i]);
		CHECK(born[i] && is_full(born[i], i + 1u, 1101u + i),
			"a sandbox starts from it, with all that was in the first");
	}
	CHECK(is_full(born[0], 1, 1102), "and each has its own");
	CHECK(RIG_U64_IS(s, 1107, "counter", U64(7)) && husk_sandbox_restore(s, loaded, &rig_error) == 0 &&
			is_full(s, 0, 1100),
		"the first one goes back to what was loaded");
	CHECK(RIG_U64_IS(s, 1109, "counter", U64(9)) && husk_sandbox_restore(s, loaded, &rig_error) == 0 &&
			is_full(s, 0, 1100),
		"and again");
	CHECK(husk_sandbox_restore(born[1], taken, &rig_error) == 0 && is_full(born[1], 0, 1100),
		"and one of the new ones to what was taken");
	unlink(state_path);
	unlink(memory_path);
	husk_sandbox_snapshot_free(loaded);
	husk_sandbox_snapshot_free(taken);
	CHECK(is_full(born[0], 1, 1103), "they live without names and without the snapshot");
	for (int i = 0; i < 2; i++)
		husk_sandbox_free(born[i]);
	husk_sandbox_free(s);
}

/** The memory of a snapshot that was saved says of the host's cells what the host does not. */
static void test_false_cells(struct husk_sandbox_image *image)
{
	struct husk_sandbox *s = make_full(image), *born = NULL;
	struct husk_sandbox_snapshot *taken = NULL, *loaded = NULL;
	const uint64_t lie = 1234567;
	off_t at = 0;

	if (!s || husk_sandbox_snapshot(s, &taken, &rig_error) < 0 ||
		husk_sandbox_snapshot_save(taken, state_path, &rig_error) < 0) {
		CHECK(false, rig_error.message);
		return;
	}
	for (unsigned i = 0; i < taken->n_cells; i++)
		for (unsigned k = 0; k < taken->n_areas; k++)
			if (taken->areas[k].kind == AREA_CELLS_HOST && strcmp(taken->cells[i].name, "ours") == 0)
				at = (off_t)(MEMORY_FILE_HEADER + taken->areas[k].offset +
					     (taken->cells[i].gpa - taken->areas[k].gpa));
	int fd = open(memory_path, O_RDWR | O_CLOEXEC);
	CHECK(at && pwrite(fd, &lie, sizeof(lie), at) == sizeof(lie) &&
			husk_sandbox_snapshot_load(state_path, &loaded, &rig_error) == 0,
		"a memory with a lie in it is loaded");
	close(fd);
	CHECK(loaded && husk_sandbox_create_from(loaded, NULL, &born, &rig_error) == 0 && rig_start(born) &&
			is_full(born, 0, 1100),
		"a sandbox that starts from it has the host's own word");
	for (int i = 0; i < 2; i++)
		CHECK(born && husk_sandbox_restore(i ? s : born, loaded, &rig_error) == 0 &&
				is_full(i ? s : born, 0, 1100),
			"and so has one that goes back to it");
	CHECK(husk_sandbox_restore(s, loaded, &rig_error) == 0 && is_full(s, 0, 1100), "each time");
	husk_sandbox_snapshot_free(loaded);
	husk_sandbox_snapshot_free(taken);
	husk_sandbox_free(born);
	husk_sandbox_free(s);
}

/** The registers and the signal of the core in @fd; false: it has none. */
static bool read_core(int fd, struct user_regs_struct *regs, int *signal)
{
	struct elf_prstatus status;
	Elf64_Ehdr header;
	Elf64_Phdr notes;
	Elf64_Nhdr note;

	if (pread(fd, &header, sizeof(header), 0) != sizeof(header) || header.e_type != ET_CORE ||
		pread(fd, &notes, sizeof(notes), (off_t)header.e_phoff) != sizeof(notes) || notes.p_type != PT_NOTE ||
		pread(fd, &note, sizeof(note), (off_t)notes.p_offset) != sizeof(note) || note.n_type != NT_PRSTATUS ||
		pread(fd, &status, sizeof(status), (off_t)notes.p_offset + sizeof(note) + 8) != sizeof(status))
		return false;
	memcpy(regs, status.pr_reg, sizeof(*regs));
	*signal = status.pr_cursig;
	return true;
}

static void test_core(struct husk_sandbox_image *image)
{
	struct husk_sandbox *s = rig_begin(image, NULL);
	struct user_regs_struct regs = {0};
	int signal = -1, fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (!CHECK(s && fd >= 0, "a program that will fault is ready"))
		return;
	CHECK(husk_sandbox_write_core(s, fd, &rig_error) == 0 && read_core(fd, &regs, &signal) && signal == 0 &&
			regs.rip > 0x100200000,
		"a core of a ready one is written, without a signal");
	CHECK(RIG_CALL(s, NULL, "crash", U64(20)) == -EFAULT, "it faults");
	struct husk_sandbox_report report = rig_report(s);
	CHECK(strncmp(report.symbol, "inner+", 6) == 0 && report.vector == 14 && report.address == 8,
		"where it should");
	CHECK(ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0 && husk_sandbox_write_core(s, fd, &rig_error) == 0 &&
			read_core(fd, &regs, &signal),
		"a core of it is written");
	CHECK(regs.rip == report.rip && regs.rsp == report.rsp && signal == 11, "of where the fault was");
	CHECK(regs.rdi == 42, "with the argument of the function that faulted");
	CHECK(husk_sandbox_state(s) == HUSK_SANDBOX_POISONED && husk_sandbox_write_core(s, -1, &rig_error) == -EBADF,
		"a core that cannot be written changes nothing");
	husk_sandbox_destroy(s, NULL);
	CHECK(husk_sandbox_write_core(s, fd, &rig_error) == -ESHUTDOWN, "a dead one has none");
	husk_sandbox_free(s);
	close(fd);
}

int main(int argc, char **argv)
{
	rig_need(argc);
	if (!mkdtemp(directory))
		return 1;
	snprintf(state_path, sizeof(state_path), "%s/s", directory);
	snprintf(memory_path, sizeof(memory_path), "%s/s.memory", directory);
	struct husk_sandbox_image *basic = rig_load(argv[1], "basic"), *core = rig_load(argv[1], "core");
	test_saved(basic);
	test_false_cells(basic);
	test_core(core);
	husk_sandbox_image_free(basic);
	husk_sandbox_image_free(core);
	path_remove_tree(directory, NULL);
	return tap_done();
}
