/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inject-test.c - sandboxes in a host that is out of something: each call of the system's fails once, in all that is done with
 * them. Without an argument what needs no KVM; with the directory of the test programs what does.
 */
#include "sandbox/access.h"

#include "tests/sandbox/inject.h"
#include "tests/sandbox/make.h"
#include "tests/sandbox/running/rig.h"

#include <fcntl.h>

#define ANYWHERE HUSK_SANDBOX_ANYWHERE
#define ALL_RIGHTS (HUSK_SANDBOX_HOST_R | HUSK_SANDBOX_HOST_W | HUSK_SANDBOX_GUEST_R | HUSK_SANDBOX_GUEST_W)

/* ---- without KVM ---- */

static int share(struct husk_sandbox *s, struct husk_error *err)
{
	unsigned region, cell;
	uint64_t value;
	int rc = husk_sandbox_add_region(s, "shared", 1 << 20, ALL_RIGHTS, ANYWHERE, &region, err);

	rc = rc < 0 ? rc : husk_sandbox_add_cell(s, "ours", HUSK_SANDBOX_CELL_HOST, ANYWHERE, &cell, err);
	rc = rc < 0 ? rc : husk_sandbox_cell_add(s, cell, 5, &value, err);
	rc = rc < 0 ? rc : husk_sandbox_add_cell(s, "theirs", HUSK_SANDBOX_CELL_GUEST, ANYWHERE, &cell, err);
	rc = rc < 0 ? rc : husk_sandbox_cell_load(s, cell, 5, &value, err);
	rc = rc < 0 ? rc : husk_sandbox_region_write(s, region, 4095, "ab", 2, err);
	return rc;
}

static int host_i32(void *data, const struct husk_sandbox_value *args, size_t n, struct husk_sandbox_value *result,
	struct husk_error *err)
{
	result->i32 = args[0].i32 + 1;
	return 0;
}

static int add_function(struct husk_sandbox *s, struct husk_error *err)
{
	const enum husk_sandbox_type i32 = HUSK_SANDBOX_I32;
	const struct husk_sandbox_signature signature = {
		.size = sizeof(signature), .name = "host_i32", .result = i32, .args = &i32, .n_args = 1};

	return husk_sandbox_add_function(s, &signature, host_i32, NULL, err);
}

/** A program, a sandbox of it, and what is shared, up to the start. */
static int configure(void *data, struct husk_error *err)
{
	struct husk_sandbox_image *image = NULL;
	struct husk_sandbox *sandbox = NULL;
	int rc = husk_sandbox_image_load_bytes(data, sizeof(struct test_program), &image, err);

	rc = rc < 0 ? rc : husk_sandbox_create(image, NULL, &sandbox, err);
	rc = rc < 0 ? rc : share(sandbox, err);
	rc = rc < 0 ? rc : add_function(sandbox, err);
	husk_sandbox_free(sandbox);
	husk_sandbox_image_free(image);
	return rc;
}

/** Many cells: the list grows, twice within one page. */
static int add_cells(void *data, struct husk_error *err)
{
	struct husk_sandbox *sandbox = NULL;
	int rc = husk_sandbox_create(data, NULL, &sandbox, err);

	for (char name[] = "a0"; rc == 0 && name[0] <= 'z'; name[0]++)
		rc = husk_sandbox_add_cell(
			sandbox, name, name[0] % 2 + 1, name[0] % 3 ? ANYWHERE : name[0] * 4096ull, NULL, err);
	husk_sandbox_free(sandbox);
	return rc;
}

static void test_without_kvm(void)
{
	static struct test_program program;
	struct husk_sandbox_image *image = NULL;

	test_program_make(&program);
	inject_all("configure", configure, &program, INJECT_FAIL, 0, 1);
	if (!CHECK(husk_sandbox_image_load_bytes(&program, sizeof(program), &image, NULL) == 0, "a program is loaded"))
		return;
	inject_all("cells", add_cells, image, INJECT_FAIL, 0, 1);
	husk_sandbox_image_free(image);
}

/* ---- with KVM ---- */

struct programs {
	const char *directory;
	struct husk_sandbox_image *basic;
};

static int expect(const struct husk_sandbox_value *result, int64_t want, struct husk_error *err)
{
	int64_t is = result->type == HUSK_SANDBOX_I32 ? result->i32 : (int64_t)result->u64;

	if (is == want)
		return 0;
	err->code = -EPROTO;
	snprintf(err->message, sizeof(err->message), "the result is %jd, not %jd", (intmax_t)is, (intmax_t)want);
	return err->code;
}

static int call(struct husk_sandbox *s, const char *name, const struct husk_sandbox_value *args, size_t n, int64_t want,
	struct husk_error *err)
{
	struct husk_sandbox_value result = {0};
	struct husk_sandbox_call_options options;

	husk_sandbox_call_options_init(&options);
	options.deadline_ns = 20000000000;
	int rc = husk_sandbox_call(s, name, args, n, &result, &options, err);
	return rc < 0 ? rc : expect(&result, want, err);
}

#define AT_ONCE 8 /* KVM lets whoever makes and closes a VM wait: 100 ms in the lab, with the CPUs idle */

/** From the file of the program to a call of the host's, and the end. */
static int live(void *data, struct husk_error *err)
{
	const struct programs *programs = data;
	struct husk_sandbox_image *image = NULL;
	struct husk_sandbox *sandbox = NULL;
	char path[512];

	snprintf(path, sizeof(path), "%s/basic.elf", programs->directory);
	int rc = husk_sandbox_image_load(path, &image, err);
	rc = rc < 0 ? rc : husk_sandbox_create(image, NULL, &sandbox, err);
	rc = rc < 0 ? rc : share(sandbox, err);
	rc = rc < 0 ? rc : husk_sandbox_start(sandbox, err);
	const struct husk_sandbox_value two[] = {I32(40), I32(2)};
	rc = rc < 0 ? rc : call(sandbox, "add", two, 2, 42, err);
	const struct husk_sandbox_value text = STRING("ours");
	rc = rc < 0 ? rc : call(sandbox, "cell_load", &text, 1, 5, err);
	husk_sandbox_free(sandbox);
	husk_sandbox_image_free(image);
	return rc;
}

/** A snapshot, a restore of it after something was touched, and another sandbox of it. */
static int remember(void *data, struct husk_error *err)
{
	const struct programs *programs = data;
	struct husk_sandbox *sandbox = NULL, *other = NULL;
	struct husk_sandbox_snapshot *snapshot = NULL;
	const struct husk_sandbox_value one = U64(1);
	int rc = husk_sandbox_create(programs->basic, NULL, &sandbox, err);

	rc = rc < 0 ? rc : share(sandbox, err);
	rc = rc < 0 ? rc : husk_sandbox_start(sandbox, err);
	rc = rc < 0 ? rc : call(sandbox, "counter", &one, 1, 1001, err);
	rc = rc < 0 ? rc : husk_sandbox_snapshot(sandbox, &snapshot, err);
	rc = rc < 0 ? rc : call(sandbox, "counter", &one, 1, 1002, err);
	rc = rc < 0 ? rc : husk_sandbox_restore(sandbox, snapshot, err);
	rc = rc < 0 ? rc : call(sandbox, "counter", &one, 1, 1002, err);
	rc = rc < 0 ? rc : husk_sandbox_create_from(snapshot, NULL, &other, err);
	husk_sandbox_snapshot_free(snapshot);
	rc = rc < 0 ? rc : husk_sandbox_start(other, err);
	rc = rc < 0 ? rc : call(other, "counter", &one, 1, 1002, err);
	husk_sandbox_free(sandbox);
	husk_sandbox_free(other);
	return rc;
}

/** One sandbox that lives on: what a restore that failed has left the next one puts right. */
static int restore_again(void *data, struct husk_error *err)
{
	struct husk_sandbox *sandbox = ((void **)data)[0];
	char text[3] = "";
	int rc = husk_sandbox_region_write(sandbox, 0, 4095, "xy", 2, err);

	/* To another one than the last, by mapping it, and to the same, by copying. */
	for (unsigned i = 1; i < 4; i++)
		rc = rc < 0 ? rc : husk_sandbox_restore(sandbox, ((void **)data)[i], err);
	rc = rc < 0 ? rc : husk_sandbox_region_read(sandbox, 0, 4095, text, 2, err);
	return rc < 0 ? rc : expect(&U64(strcmp(text, "ab") == 0), 1, err);
}

static void test_restores(struct programs *programs)
{
	struct husk_sandbox *sandbox = NULL;
	struct husk_sandbox_snapshot *snapshots[2] = {NULL};
	struct husk_error err;
	const struct husk_sandbox_value one = U64(1);
	int rc = husk_sandbox_create(programs->basic, NULL, &sandbox, &err);

	rc = rc < 0 ? rc : share(sandbox, &err);
	rc = rc < 0 ? rc : husk_sandbox_start(sandbox, &err);
	rc = rc < 0 ? rc : call(sandbox, "counter", &one, 1, 1001, &err);
	for (unsigned i = 0; i < 2; i++)
		rc = rc < 0 ? rc : husk_sandbox_snapshot(sandbox, &snapshots[i], &err);
	void *all[] = {sandbox, snapshots[0], snapshots[1], snapshots[1]};
	if (CHECK(rc == 0, "a sandbox and its snapshots"))
		inject_all("restore", restore_again, all, INJECT_FAIL, 0, 1);
	CHECK(rc == 0 && call(sandbox, "counter", &one, 1, 1002, &err) == 0, "it can still be called");
	for (unsigned i = 0; i < 2; i++)
		husk_sandbox_snapshot_free(snapshots[i]);
	husk_sandbox_free(sandbox);
}

static void test_with_kvm(const char *directory)
{
	struct programs programs = {.directory = directory, .basic = rig_load(directory, "basic")};

	inject_all("a life", live, &programs, INJECT_FAIL, 0, AT_ONCE);
	inject_all("a life", live, &programs, INJECT_INTERRUPT, 0, AT_ONCE);
	inject_all("snapshots", remember, &programs, INJECT_FAIL, 0, AT_ONCE);
	inject_all("snapshots", remember, &programs, INJECT_INTERRUPT, 0, AT_ONCE);
	test_restores(&programs);
	husk_sandbox_image_free(programs.basic);
}

int main(int argc, char **argv)
{
	inject_begin(argv);
	if (argc > 1) {
		rig_need(argc);
		test_with_kvm(argv[1]);
	} else {
		test_without_kvm();
	}
	return tap_done();
}
