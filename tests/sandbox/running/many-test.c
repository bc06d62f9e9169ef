/* SPDX-License-Identifier: Apache-2.0 */
/*
 * many-test.c - many sandboxes: made and destroyed without a leak, alive at once, from several threads
 *
 * usage: many-test DIRECTORY; HUSK_TEST_SANDBOXES: how many are made and destroyed (1000)
 */
#include "sandbox/sandbox.h"
#include "tests/descriptors.h"
#include "tests/sandbox/running/rig.h"

#include <pthread.h>
#include <sys/resource.h>

#define MAKERS 10 /* threads that make sandboxes */
#define PATIENCE_NS 60000000000 /* for a start among so many, on CPUs that are emulated */
#define ALIVE 300
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

/** A part of the sandboxes that all threads make. KVM lets whoever makes and closes a VM wait, with the CPUs idle. */
struct share {
	pthread_t thread;
	struct husk_sandbox_image *image;
	struct husk_sandbox **keep; /* those that are made; NULL: none is kept */
	unsigned n;
	bool fine;
};

/** What can be known of a sandbox that failed. */
static void tell(struct husk_sandbox *s, unsigned i, const struct husk_error *err)
{
	struct kvm_regs regs = {0};

	printf("# number %u: %s\n", i, err->message[0] ? err->message : "another number came back");
	if (!s || s->vcpu.fd < 0)
		return;
	(void)kvm_ioctl(s->vcpu.fd, KVM_GET_REGS, &regs, "read registers", NULL);
	printf("# at %#llx after %ju exits, %ju kicks, %.1f ms in KVM_RUN, the last exit for reason %u\n", regs.rip,
		(uintmax_t)s->stats.exits, (uintmax_t)s->stats.kicks, (double)s->stats.run_ns / 1e6,
		s->vcpu.run->exit_reason);
}

static void *make_share(void *data)
{
	struct share *share = data;
	struct husk_sandbox_value r = {0};
	struct husk_sandbox_config config;
	struct husk_error err;

	husk_sandbox_config_init(&config);
	config.start_timeout_ns = PATIENCE_NS;
	for (unsigned i = 0; share->fine && i < share->n; i++) {
		struct husk_sandbox *s = NULL;
		const struct husk_sandbox_value number = U64(i);
		err.message[0] = 0;
		share->fine = husk_sandbox_create(share->image, &config, &s, &err) == 0 &&
			      husk_sandbox_start(s, &err) == 0 &&
			      husk_sandbox_call(s, "counter", &number, 1, &r, NULL, &err) == 0 && r.u64 == 1000 + i;
		if (!share->fine)
			tell(s, i, &err);
		if (share->keep)
			share->keep[i] = s;
		else
			husk_sandbox_free(s);
	}
	return NULL;
}

static void *free_share(void *data)
{
	struct share *share = data;

	for (unsigned i = 0; i < share->n; i++)
		husk_sandbox_free(share->keep[i]);
	return NULL;
}

static void in_threads(struct share *shares, void *(*work)(void *))
{
	for (unsigned i = 0; i < MAKERS; i++)
		pthread_create(&shares[i].thread, NULL, work, &shares[i]);
	for (unsigned i = 0; i < MAKERS; i++)
		pthread_join(shares[i].thread, NULL);
}

/** Make @n sandboxes and keep none, or @all. */
static bool make(struct husk_sandbox_image *image, unsigned n, struct husk_sandbox **all, struct share *shares)
{
	bool fine = true;

	for (unsigned i = 0; i < MAKERS; i++)
		shares[i] = (struct share){
			.image = image, .n = n / MAKERS, .keep = all ? all + i * (n / MAKERS) : NULL, .fine = true};
	in_threads(shares, make_share);
	for (unsigned i = 0; i < MAKERS; i++)
		fine &= shares[i].fine;
	return fine;
}

static void test_made_and_destroyed(struct husk_sandbox_image *image, unsigned n)
{
	struct share shares[MAKERS];
	bool fine = make(image, n / 10, NULL, shares); /* what is made once has been made then */
	unsigned descriptors = count_descriptors();
	double kib = own_kib();

	fine &= make(image, n, NULL, shares);
	CHECK(fine, "sandboxes are made and destroyed, again and again");
	CHECK(count_descriptors() == descriptors, "no descriptor is left");
#ifndef __SANITIZE_ADDRESS__ /* which keeps what was freed, and tells of leaks by itself */
	if (!CHECK(own_kib() - kib < 512, "and no memory"))
		printf("# %.0f KiB more\n", own_kib() - kib);
#else
	(void)kib;
#endif
}

static void test_at_once(struct husk_sandbox_image *image)
{
	static struct husk_sandbox *all[ALIVE];
	const struct rlimit files = {.rlim_cur = 4 * ALIVE, .rlim_max = 4 * ALIVE};
	struct share shares[MAKERS];

	setrlimit(RLIMIT_NOFILE, &files);
	double before = own_kib();
	bool fine = make(image, ALIVE, all, shares);
	double each = (own_kib() - before) / ALIVE;
	CHECK(fine, "three hundred sandboxes live at once");
	if (!CHECK(each < PRIVATE_MAX_KIB, "with less than a mebibyte of private memory each"))
		printf("# %.0f KiB\n", each);
	for (unsigned i = 0; fine && i < ALIVE; i += 97)
		fine &= RIG_U64_IS(all[i], 1000 + i % (ALIVE / MAKERS), "counter", U64(0));
	CHECK(fine, "and none sees another's data");
	in_threads(shares, free_share);
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
	test_made_and_destroyed(image, given ? (unsigned)strtoul(given, NULL, 10) : 1000);
	test_no_descriptors(image);
	test_threads(image);
	test_at_once(image);
	husk_sandbox_image_free(image);
	return tap_done();
}
