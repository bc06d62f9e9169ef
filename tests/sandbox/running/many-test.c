/* SPDX-License-Identifier: Apache-2.0 */
/*
 * many-test.c - many sandboxes: made and destroyed without a leak, alive at once, from several threads
 *
 * usage: many-test DIRECTORY; HUSK_TEST_SANDBOXES: how many are made one after the other (1000). bench-sandbox has a thousand alive.
 */
#include "tests/descriptors.h"
#include "tests/sandbox/running/rig.h"

#include <pthread.h>
#include <sys/resource.h>

#define ALIVE 200
#define PRIVATE_MAX_KIB 1024.0
#define THREADS 4

/** Kilobytes of a line of /proc/self/smaps_rollup. */
static double own_kib(void)
{
	char line[256];
	double kib = 0;
	FILE *file = fopen("/proc/self/smaps_rollup", "re");

	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "Private_Dirty: %lf", &kib);
	if (file)
		fclose(file);
	return kib;
}

static void test_one_after_the_other(struct husk_sandbox_image *image, unsigned n)
{
	bool fine = true;
	int descriptors = 0;
	double kib = 0;

	for (unsigned i = 0; fine && i < n; i++) {
		if (i == n / 10) { /* what is made once has been made by then */
			descriptors = (int)count_descriptors();
			kib = own_kib();
		}
		struct husk_sandbox *s = rig_begin(image, NULL);
		fine &= s && (i % 16 || RIG_U64_IS(s, 1001, "counter", U64(1)));
		husk_sandbox_free(s);
	}
	CHECK(fine, "sandboxes are made and destroyed, one after the other");
	CHECK((int)count_descriptors() == descriptors, "no descriptor is left");
	if (!CHECK(own_kib() - kib < 256, "and no memory"))
		printf("# %.0f KiB more\n", own_kib() - kib);
}

static void test_at_once(struct husk_sandbox_image *image)
{
	static struct husk_sandbox *all[ALIVE];
	const struct rlimit files = {.rlim_cur = 4 * ALIVE, .rlim_max = 4 * ALIVE};
	bool fine = true;

	setrlimit(RLIMIT_NOFILE, &files);
	double before = own_kib();
	for (int i = 0; fine && i < ALIVE; i++) {
		all[i] = rig_begin(image, NULL);
		fine &= all[i] && RIG_U64_IS(all[i], 1000 + (uint64_t)i, "counter", U64((uint64_t)i));
	}
	double each = (own_kib() - before) / ALIVE;
	CHECK(fine, "two hundred sandboxes live at once");
	if (!CHECK(each < PRIVATE_MAX_KIB, "with less than a mebibyte of private memory each"))
		printf("# %.0f KiB\n", each);
	for (int i = 0; fine && i < ALIVE; i += 97)
		fine &= RIG_U64_IS(all[i], 1000 + (uint64_t)i, "counter", U64(0));
	CHECK(fine, "and none sees another's data");
	for (int i = 0; i < ALIVE; i++)
		husk_sandbox_free(all[i]);
}

static void *use_one(void *data)
{
	static bool wrong;
	struct husk_sandbox_snapshot *snapshot = data;

	for (int i = 0; i < 10; i++) {
		struct husk_sandbox *s;
		struct husk_error err;
		struct husk_sandbox_value r = {0};
		const struct husk_sandbox_value one = U64(1);
		if (husk_sandbox_create_from(snapshot, NULL, &s, &err) < 0 || husk_sandbox_start(s, &err) < 0)
			return &wrong;
		for (int k = 0; k < 5; k++)
			if (husk_sandbox_call(s, "counter", &one, 1, &r, NULL, &err) < 0 || r.u64 != 1001 ||
				husk_sandbox_restore(s, snapshot, &err) < 0)
				return &wrong;
		husk_sandbox_free(s);
	}
	return NULL;
}

static void test_threads(struct husk_sandbox_image *image)
{
	struct husk_sandbox_snapshot *snapshot;
	struct husk_sandbox *s = rig_begin(image, NULL);
	pthread_t threads[THREADS];
	bool fine = true;
	void *wrong;

	husk_sandbox_snapshot(s, &snapshot, &rig_error);
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, use_one, snapshot);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &wrong);
		fine &= !wrong;
	}
	CHECK(fine, "threads make sandboxes of one snapshot at once");
	husk_sandbox_snapshot_free(snapshot);
	husk_sandbox_free(s);
}

/** Without descriptors a start fails, says how to get more, and leaves nothing. */
static void test_no_descriptors(struct husk_sandbox_image *image)
{
	struct rlimit limit;
	struct husk_sandbox *s;

	int before = (int)count_descriptors();
	getrlimit(RLIMIT_NOFILE, &limit);
	rlim_t most = limit.rlim_cur;
	husk_sandbox_create(image, NULL, &s, &rig_error);
	limit.rlim_cur = 4;
	setrlimit(RLIMIT_NOFILE, &limit);
	int rc = husk_sandbox_start(s, &rig_error);
	limit.rlim_cur = most;
	setrlimit(RLIMIT_NOFILE, &limit);
	CHECK(rc == -EMFILE && strstr(rig_error.message, "ulimit"), "without descriptors a start says what to do");
	husk_sandbox_free(s);
	CHECK((int)count_descriptors() == before, "and leaves none");
}

int main(int argc, char **argv)
{
	const char *given = getenv("HUSK_TEST_SANDBOXES");

	rig_need(argc);
	struct husk_sandbox_image *image = rig_load(argv[1], "basic");
	test_one_after_the_other(image, given ? (unsigned)strtoul(given, NULL, 10) : 1000);
	test_no_descriptors(image);
	test_threads(image);
	test_at_once(image);
	husk_sandbox_image_free(image);
	return tap_done();
}
