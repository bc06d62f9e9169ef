/* SPDX-License-Identifier: Apache-2.0 */
/* rights-test.c - regions of all rights, from both sides; the host looks at a running guest, and is refused after its end */
#include "tests/sandbox/running/rig.h"

#include <pthread.h>

#define UPDATES 100000

static struct husk_sandbox *sandbox;

static unsigned add_region(const char *name, unsigned rights, uint64_t gpa)
{
	unsigned n = 0;

	if (husk_sandbox_add_region(sandbox, name, 8192, rights, gpa, &n, &rig_error) < 0)
		printf("# %s: %s\n", name, rig_error.message);
	return n;
}

static void test_rights(struct husk_sandbox_image *image)
{
	static const char *const names[] = {
		"r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"};
	struct husk_sandbox_snapshot *snapshot;
	struct husk_sandbox_value r = {0};
	char what[100];
	uint8_t byte;

	husk_sandbox_create(image, NULL, &sandbox, &rig_error);
	for (unsigned rights = 0; rights < 16; rights++)
		if (!(rights & HUSK_SANDBOX_GUEST_W) || rights & HUSK_SANDBOX_GUEST_R)
			add_region(names[rights], rights, HUSK_SANDBOX_ANYWHERE);
	if (!CHECK(rig_start(sandbox) && husk_sandbox_snapshot(sandbox, &snapshot, &rig_error) == 0,
		    "a sandbox with regions of all rights starts"))
		return;
	for (unsigned rights = 0; rights < 16; rights++) {
		unsigned region;
		if (rights & HUSK_SANDBOX_GUEST_W && !(rights & HUSK_SANDBOX_GUEST_R))
			continue;
		husk_sandbox_find_region(sandbox, names[rights], &region, NULL, NULL, &rig_error);
		bool host_r = rights & HUSK_SANDBOX_HOST_R, host_w = rights & HUSK_SANDBOX_HOST_W,
		     guest_r = rights & HUSK_SANDBOX_GUEST_R, guest_w = rights & HUSK_SANDBOX_GUEST_W;
		bool fine = (husk_sandbox_region_write(sandbox, region, 8191, "\7", 1, &rig_error) == 0) == host_w;
		fine &= (husk_sandbox_region_read(sandbox, region, 8191, &byte, 1, &rig_error) == 0) == host_r;
		fine &= (RIG_CALL(sandbox, &r, "region_size", STRING(names[rights])) == 0 && r.u64 == 8192) == guest_r;
		if (guest_r)
			fine &= RIG_CALL(sandbox, &r, "region_read", STRING(names[rights]), U64(8191)) == 0 &&
				r.u32 == (host_w ? 7 : 0);
		if (guest_r) {
			int rc = RIG_CALL(sandbox, NULL, "region_write", STRING(names[rights]), U64(0), U32(9));
			fine &= guest_w ? rc == 0 : rc == -EFAULT && rig_report(sandbox).vector == 14;
			fine &= !guest_w || !host_r ||
				(husk_sandbox_region_read(sandbox, region, 0, &byte, 1, &rig_error) == 0 && byte == 9);
			fine &= husk_sandbox_restore(sandbox, snapshot, &rig_error) == 0;
		}
		snprintf(what, sizeof(what), "a region with the rights %s%s%s%s", host_r ? "HOST_R " : "",
			host_w ? "HOST_W " : "", guest_r ? "GUEST_R " : "", guest_w ? "GUEST_W" : "");
		CHECK(fine, what);
	}
	husk_sandbox_snapshot_free(snapshot);
	husk_sandbox_free(sandbox);
}

/* ---- under a guest that runs ---- */

static void *count_in_guest(void *data)
{
	const struct husk_sandbox_value args[] = {STRING("count"), U64(*(uint64_t *)data)};

	husk_sandbox_call(sandbox, "cell_count", args, 2, NULL, NULL, NULL);
	return NULL;
}

/** The other way round: the guest counts, and the host's threads look, at regions, too, until the sandbox is destroyed. */
static void test_look(struct husk_sandbox_image *image, uint64_t updates)
{
	pthread_t thread;
	unsigned cell;
	uint64_t last = 0, value = 0;
	bool fine = true;

	husk_sandbox_create(image, NULL, &sandbox, &rig_error);
	unsigned region = add_region("shared", 15, HUSK_SANDBOX_ANYWHERE);
	husk_sandbox_add_cell(sandbox, "count", HUSK_SANDBOX_CELL_GUEST, HUSK_SANDBOX_ANYWHERE, &cell, &rig_error);
	if (!CHECK(rig_start(sandbox) != NULL, "a sandbox with a cell of the guest's starts"))
		return;
	pthread_create(&thread, NULL, count_in_guest, &updates);
	while (value < updates) {
		uint8_t bytes[64];
		fine &= husk_sandbox_cell_load(sandbox, cell, updates, &value, &rig_error) == 0 && value >= last;
		fine &= husk_sandbox_region_write(sandbox, region, 4000, bytes, sizeof(bytes), &rig_error) == 0;
		fine &= husk_sandbox_region_read(sandbox, region, 4000, bytes, sizeof(bytes), &rig_error) == 0;
		last = value;
	}
	pthread_join(thread, NULL);
	CHECK(fine, "the host sees the guest's count grow, and uses a region meanwhile");
	husk_sandbox_destroy(sandbox, &rig_error);
	CHECK(husk_sandbox_cell_load(sandbox, cell, 1, &value, &rig_error) == -ESHUTDOWN &&
			husk_sandbox_region_read(sandbox, region, 0, &value, 1, &rig_error) == -ESHUTDOWN &&
			husk_sandbox_memory_read(sandbox, 0x100200000, &value, 1, &rig_error) == -ESHUTDOWN,
		"after the end all of it is refused");
	husk_sandbox_free(sandbox);
}

int main(int argc, char **argv)
{
	rig_need(argc);
	struct husk_sandbox_image *image = rig_load(argv[1], "basic");
	test_rights(image);
	test_look(image, UPDATES);
	husk_sandbox_image_free(image);
	return tap_done();
}
