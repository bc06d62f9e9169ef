/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore-test.c - a sandbox is put back: its memory bit for bit, registers, floating point, cells and regions; many are made
 * of one snapshot
 *
 * Memory and CPU are compared from outside, through the library's own insides, so that nothing that runs can hide a difference.
 */
#include "sandbox/run.h"
#include "sandbox/snapshot.h"
#include "tests/sandbox/running/rig.h"

static struct husk_sandbox *sandbox;
static struct husk_sandbox_snapshot *snapshot;

/** All bytes of all areas, one after the other, and the CPU. */
struct copy {
	uint8_t *bytes;
	size_t n;
	struct cpu_state cpu;
};

static struct copy copy_all(struct husk_sandbox *s)
{
	struct copy copy = {0};

	for (unsigned i = 0; i < s->areas.n; i++)
		copy.n += s->areas.list[i].size;
	copy.bytes = malloc(copy.n);
	size_t at = 0;
	for (unsigned i = 0; i < s->areas.n; i++) {
		memcpy(copy.bytes + at, s->areas.list[i].host, s->areas.list[i].size);
		at += s->areas.list[i].size;
	}
	if (run_settle(s, &rig_error) < 0 || cpu_save(s->kvm, &s->vcpu, &copy.cpu, &rig_error) < 0)
		printf("# %s\n", rig_error.message);
	return copy;
}

static bool same(const struct copy *a, const struct copy *b)
{
	if (a->n != b->n || memcmp(a->bytes, b->bytes, a->n) != 0)
		return false;
	if (memcmp(&a->cpu, &b->cpu, sizeof(a->cpu)) == 0)
		return true;
	for (size_t i = 0; i < sizeof(a->cpu); i++)
		if (((const uint8_t *)&a->cpu)[i] != ((const uint8_t *)&b->cpu)[i]) {
			printf("# byte %zu of the CPU's state differs\n", i);
			break;
		}
	return false;
}

static void dirty(struct husk_sandbox *s)
{
	RIG_CALL(s, NULL, "counter", U64(5));
	RIG_CALL(s, NULL, "touch", U32(20), U32(0xaa));
	RIG_CALL(s, NULL, "heap_stress", U64(3), U32(50));
	RIG_CALL(s, NULL, "region_write", STRING("shared"), U64(5000), U32(0x77));
	RIG_CALL(s, NULL, "cell_store", STRING("theirs"), U64(123));
	RIG_CALL(s, NULL, "write_cr", U32(8), U64(9));
	husk_sandbox_region_write(s, 0, 100, "host", 4, &rig_error);
	husk_sandbox_cell_set(s, 0, 99, &rig_error);
}

static bool is_clean(struct husk_sandbox *s)
{
	uint64_t mine = 0, theirs = 0;
	char text[4];

	husk_sandbox_cell_get(s, 0, &mine, &rig_error);
	husk_sandbox_cell_load(s, 1, UINT64_MAX, &theirs, &rig_error);
	husk_sandbox_region_read(s, 0, 100, text, 4, &rig_error);
	return mine == 7 && theirs == 8 && memcmp(text, "then", 4) == 0 &&
	       RIG_U64_IS(s, 7, "cell_load", STRING("mine")) && RIG_U64_IS(s, 1100, "counter", U64(0));
}

static struct husk_sandbox *make(struct husk_sandbox_image *image)
{
	struct husk_sandbox *s;
	unsigned n;

	if (husk_sandbox_create(image, NULL, &s, &rig_error) < 0 ||
		husk_sandbox_add_region(s, "shared", 16384, 15, HUSK_SANDBOX_ANYWHERE, &n, &rig_error) < 0 ||
		husk_sandbox_add_cell(s, "mine", HUSK_SANDBOX_CELL_HOST, HUSK_SANDBOX_ANYWHERE, &n, &rig_error) < 0 ||
		husk_sandbox_add_cell(s, "theirs", HUSK_SANDBOX_CELL_GUEST, HUSK_SANDBOX_ANYWHERE, &n, &rig_error) < 0)
		printf("# %s\n", rig_error.message);
	return rig_start(s);
}

static void test_bit_for_bit(struct husk_sandbox_image *image)
{
	sandbox = make(image);
	if (!CHECK(sandbox != NULL, "a sandbox with a region and two cells starts"))
		exit(tap_done());
	RIG_CALL(sandbox, NULL, "counter", U64(100));
	RIG_CALL(sandbox, NULL, "touch", U32(3), U32(1));
	RIG_CALL(sandbox, NULL, "cell_store", STRING("theirs"), U64(8));
	husk_sandbox_cell_set(sandbox, 0, 7, &rig_error);
	husk_sandbox_region_write(sandbox, 0, 100, "then", 4, &rig_error);
	CHECK(husk_sandbox_snapshot(sandbox, &snapshot, &rig_error) == 0, "a snapshot is taken");
	struct copy then = copy_all(sandbox);
	for (int round = 0; round < 3; round++) {
		dirty(sandbox);
		if (round == 1)
			RIG_CALL(sandbox, NULL, "ud2");
		if (round == 2)
			RIG_CALL(sandbox, NULL, "scribble", U32(0x55));
		struct copy before = copy_all(sandbox);
		CHECK(!same(&then, &before), "what runs changes it");
		CHECK(husk_sandbox_restore(sandbox, snapshot, &rig_error) == 0, "a restore");
		struct copy after = copy_all(sandbox);
		CHECK(same(&then, &after), "puts every byte of memory and CPU back");
		free(before.bytes);
		free(after.bytes);
	}
	CHECK(RIG_CALL(sandbox, NULL, "write_cr", U32(8), U64(9)) == 0 &&
			RIG_CALL(sandbox, NULL, "write_cr", U32(8), U64(0)) == 0,
		"CR8 is the guest's to raise and to lower");
	CHECK(is_clean(sandbox), "cells, their shadows and regions, too");
	free(then.bytes);
}

/** A second snapshot, and back and forth between the two. */
static void test_two(void)
{
	struct husk_sandbox_snapshot *second;

	husk_sandbox_restore(sandbox, snapshot, &rig_error);
	dirty(sandbox);
	CHECK(husk_sandbox_snapshot(sandbox, &second, &rig_error) == 0, "a second snapshot is taken on top");
	struct copy two = copy_all(sandbox);
	bool fine = true;
	for (int i = 0; i < 4; i++) {
		RIG_CALL(sandbox, NULL, "touch", U32(20), U32(0xbb));
		fine &= husk_sandbox_restore(sandbox, i % 2 ? second : snapshot, &rig_error) == 0;
		fine &= RIG_U64_IS(sandbox, i % 2 ? 1105 : 1100, "counter", U64(0));
	}
	fine &= husk_sandbox_restore(sandbox, second, &rig_error) == 0;
	struct copy again = copy_all(sandbox);
	CHECK(fine && same(&two, &again), "and the sandbox goes back and forth between the two");
	CHECK(husk_sandbox_restore(sandbox, snapshot, &rig_error) == 0 && is_clean(sandbox), "the first is as it was");
	/* VMX, which no sandbox has. */
	((struct kvm_cpuid_entry2 *)cpu_features_find(&second->features, 1, 0))->ecx |= 1u << 5;
	CHECK(husk_sandbox_restore(sandbox, second, &rig_error) == -ENOTSUP && is_clean(sandbox),
		"one of a CPU that can do more is refused, and nothing has changed");
	husk_sandbox_snapshot_free(second);
	free(two.bytes);
	free(again.bytes);
}

/** The cost follows the pages that were touched. */
static void test_cost(void)
{
	husk_sandbox_restore(sandbox, snapshot, &rig_error);
	uint64_t before = rig_stats(sandbox).pages_restored;
	husk_sandbox_restore(sandbox, snapshot, &rig_error);
	uint64_t none = rig_stats(sandbox).pages_restored - before;
	RIG_CALL(sandbox, NULL, "touch", U32(3), U32(9));
	husk_sandbox_restore(sandbox, snapshot, &rig_error);
	uint64_t three = rig_stats(sandbox).pages_restored - before - none;
	CHECK(none == 0 && three >= 3 && three < 20, "a restore copies what was touched");
}

static void test_children(struct husk_sandbox_image *image)
{
	enum { N = 8 };
	struct husk_sandbox *children[N];
	bool fine = true;

	for (int i = 0; i < N; i++) {
		fine &= husk_sandbox_create_from(snapshot, NULL, &children[i], &rig_error) == 0 &&
			rig_start(children[i]);
		fine &= RIG_U64_IS(children[i], 1100 + (uint64_t)i, "counter", U64((uint64_t)i));
	}
	CHECK(fine, "eight sandboxes are made of the snapshot, and each goes its own way");
	CHECK(RIG_U64_IS(sandbox, 1100, "counter", U64(0)) && RIG_U64_IS(children[0], 1100, "counter", U64(0)),
		"none sees another's writes");
	fine = true;
	for (int i = 0; i < N; i++) {
		dirty(children[i]);
		fine &= husk_sandbox_restore(children[i], snapshot, &rig_error) == 0 && is_clean(children[i]);
	}
	CHECK(fine, "each can be put back to it");
	for (int i = 0; i < N; i++)
		husk_sandbox_free(children[i]);
	struct husk_sandbox *plain = rig_begin(image, NULL);
	CHECK(husk_sandbox_restore(plain, snapshot, &rig_error) == -EINVAL &&
			husk_sandbox_state(plain) == HUSK_SANDBOX_READY && RIG_U64_IS(plain, 1000, "counter", U64(0)),
		"a sandbox with other memory is not, and lives on");
	husk_sandbox_free(plain);
}

static void test_other_program(struct husk_sandbox_image *floats)
{
	struct husk_sandbox *s = rig_begin(floats, NULL);
	CHECK(s && husk_sandbox_restore(s, snapshot, &rig_error) == -EINVAL && strstr(rig_error.message, "program"),
		"one of another program is not, either");
	husk_sandbox_free(s);
}

/** What lies in the registers of floating point, and how they round. */
static void test_floats(struct husk_sandbox_image *floats)
{
	struct husk_sandbox_value r = {0};
	struct husk_sandbox_snapshot *first;
	struct husk_sandbox *s = rig_begin(floats, NULL);

	CHECK(RIG_CALL(s, &r, "echo_f32", F32(1.5f)) == 0 && r.type == HUSK_SANDBOX_F32 && r.f32 == 1.5f,
		"an f32 comes back");
	CHECK(RIG_CALL(s, &r, "sum_of_ten", F64(1), F64(2), F64(3), F64(4), F64(5), F64(6), F64(7), F64(8), F64(9),
		      F32(10)) == 0 &&
			r.f64 == 55,
		"ten arrive");
	CHECK(RIG_CALL(s, &r, "text_of", F64(-1234.5)) == 0 && strcmp(r.bytes.data, "-1234.500") == 0,
		"and are printed");
	husk_sandbox_value_clear(&r);
	CHECK(RIG_CALL(s, &r, "divide", F64(1), F64(0)) == 0 && r.f64 > 1e308, "a division by zero is infinite");
	RIG_CALL(s, NULL, "set_state", F64(2.25), U32(0x1f80), U32(0x37f));
	CHECK(husk_sandbox_snapshot(s, &first, &rig_error) == 0, "a snapshot with floating point in its registers");
	RIG_CALL(s, NULL, "set_state", F64(-8), U32(0x7f80), U32(0xc7f));
	CHECK(RIG_CALL(s, &r, "xmm15") == 0 && r.f64 == -8 && RIG_U64_IS(s, 0xc7f00007f80, "controls"), "they change");
	/* QEMU's emulated CPUs, the lab's, raise none of them. */
	int rc = RIG_CALL(s, NULL, "divide_unmasked", F64(1));
	CHECK(rc == 0 || (rc == -EFAULT && rig_report(s).vector == 19),
		"an exception of them, where the CPU raises it, is a fault");
	CHECK(husk_sandbox_restore(s, first, &rig_error) == 0 && RIG_CALL(s, &r, "xmm15") == 0 && r.f64 == 2.25 &&
			RIG_CALL(s, &r, "x87_top") == 0 && r.f64 == 2.25 && RIG_U64_IS(s, 0x37f00001f80, "controls"),
		"a restore brings values and rounding back");
	husk_sandbox_snapshot_free(first);
	husk_sandbox_free(s);
}

int main(int argc, char **argv)
{
	rig_need(argc);
	struct husk_sandbox_image *basic = rig_load(argv[1], "basic"), *floats = rig_load(argv[1], "floats");
	test_bit_for_bit(basic);
	test_two();
	test_cost();
	test_children(basic);
	test_other_program(floats);
	if (rig_is_interpreted(basic))
		SKIP("floating point", "this host interprets guest code, which has none then; the KVM lab runs it");
	else
		test_floats(floats);
	husk_sandbox_free(sandbox);
	struct husk_sandbox *orphan;
	CHECK(husk_sandbox_create_from(snapshot, NULL, &orphan, &rig_error) == 0 && rig_start(orphan) &&
			is_clean(orphan),
		"a snapshot outlives what it was taken of");
	husk_sandbox_snapshot_free(snapshot);
	husk_sandbox_image_free(basic);
	CHECK(RIG_U64_IS(orphan, 1100, "counter", U64(0)), "and a sandbox its snapshot and its image");
	husk_sandbox_free(orphan);
	husk_sandbox_image_free(floats);
	return tap_done();
}
