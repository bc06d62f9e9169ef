/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest-test.c - the `kvm` machine with guests that have no OS (guest.S)
 *
 * usage: guest-test GUEST-PVH GUEST-LONG
 * Needs a /dev/kvm that opens, and no more: the guests are a few hundred instructions long, so one that interprets them will
 * do.
 */
#include "base/cleanup.h"
#include "base/loop.h"
#include "memory/memory.h"
#include "tests/descriptors.h"
#include "tests/tap.h"
#include "vmm/machine/machine.h"
#include "vmm/virtio/rng.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>

#define LIMIT_MS 60000

/** One run of one guest, and what came of it. */
struct run {
	struct loop loop;
	struct memory memory;
	struct machine *machine;
	struct rng *rng;
	struct loop_watch deadline;
	struct loop_watch words; /* an eventfd: a vCPU's thread has brought a line */
	char said[256];
	size_t n_said;
	enum machine_event events[8];
	unsigned n_events;
	char end[160];
	const char *broken;
	bool overdue;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void on_event(void *data, enum machine_event event, const char *text)
{
	struct run *r = data;

	if (r->n_events < sizeof(r->events) / sizeof(r->events[0]))
		r->events[r->n_events++] = event;
	if (event != MACHINE_RUNNING && event != MACHINE_PAUSED)
		snprintf(r->end, sizeof(r->end), "%s", text);
	loop_stop(&r->loop);
}

static void on_console(void *data, const void *bytes, size_t n)
{
	struct run *r = data;

	for (size_t i = 0; i < n && r->n_said < sizeof(r->said) - 1; i++)
		r->said[r->n_said++] = ((const char *)bytes)[i];
	uint64_t one = 1;
	if (strchr(r->said, '\n'))
		(void)!write(r->words.fd, &one, sizeof(one));
}

static void on_words(struct loop_watch *watch, uint32_t events)
{
	struct run *r = CONTAINER_OF(watch, struct run, words);
	uint64_t count;
	(void)events;
	(void)!read(watch->fd, &count, sizeof(count));
	loop_stop(&r->loop);
}

static void on_broken(void *data, const char *why)
{
	((struct run *)data)->broken = why;
}

static void on_deadline(struct loop_watch *watch, uint32_t events)
{
	struct run *r = CONTAINER_OF(watch, struct run, deadline);
	(void)events;
	r->overdue = true;
	loop_stop(&r->loop);
}

/** Run the loop until something happens. */
static void turn(struct run *r)
{
	r->loop.stopped = false;
	loop_run(&r->loop, NULL);
}

/** Turn until the machine has said @event or is overdue. */
static bool wait_for(struct run *r, enum machine_event event)
{
	while (!r->overdue && !(r->n_events && r->events[r->n_events - 1] == event))
		turn(r);
	return !r->overdue;
}

static bool wait_for_words(struct run *r)
{
	while (!r->overdue && !strchr(r->said, '\n'))
		turn(r);
	return !r->overdue;
}

/** A machine with @kernel, whose command line is @what, of @cpus vCPUs and @memory bytes, with one device in slot 0. */
static int begin(struct run *r, const char *kernel, const char *what, uint32_t cpus, uint64_t memory)
{
	struct husk_error err = {0};
	int fd = -1;

	*r = (struct run){0};
	struct machine_setup setup = {.loop = &r->loop,
		.memory = &r->memory,
		.event = on_event,
		.data = r,
		.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC),
		.kernel_fd = open(kernel, O_RDONLY | O_CLOEXEC),
		.initrd_fd = -1,
		.cmdline = what,
		.cpus = cpus,
		.console = on_console};
	int rc = loop_init(&r->loop, &err);
	r->loop.lock = &lock;
	rc = rc < 0 ? rc : loop_timer_open(&r->loop, &r->deadline, on_deadline, &err);
	rc = rc < 0 ? rc
		    : loop_add(&r->loop, &r->words, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), EPOLLIN, on_words, &err);
	rc = rc < 0 ? rc : memory_make_fd(memory, &fd, &err);
	rc = rc < 0 ? rc : memory_init(&r->memory, fd, &err);
	rc = rc < 0 ? rc : machine_kvm_ops.map_memory(&r->memory, memory, &err);
	rc = rc < 0 ? rc : machine_kvm_ops.create(&setup, &r->machine, &err);
	rc = rc < 0 ? rc : rng_create(&r->rng, &err);
	if (rc == 0) {
		const struct machine_device device = {.name = "entropy",
			.device = rng_device(r->rng),
			.socket_fd = -1,
			.broken = on_broken,
			.data = r};
		rc = machine_kvm_ops.attach(r->machine, &device, &err);
	}
	if (rc == 0) {
		loop_timer_set(&r->deadline, LIMIT_MS);
		rc = machine_kvm_ops.start(r->machine, &err);
	}
	if (rc < 0)
		printf("# %s\n", err.message);
	return rc;
}

static void finish(struct run *r)
{
	machine_kvm_ops.destroy(r->machine);
	rng_destroy(r->rng);
	loop_timer_close(&r->loop, &r->deadline);
	loop_remove(&r->loop, &r->words);
	close(r->words.fd);
	memory_destroy(&r->memory);
	loop_destroy(&r->loop);
}

/** A guest that ends by itself: what it does, and what is told of it. */
static void test_ends(const char *mode, const char *kernel)
{
	static const struct {
		const char *what, *says;
		enum machine_event event;
		const char *end, *fact;
	} guests[] = {
		{"print", "hello from the guest\n", MACHINE_OFF, "the guest powered off", "prints and powers off"},
		{"keyboard", "", MACHINE_ENDED, "the guest reset itself", "resets by the keyboard controller"},
		{"acpi", "", MACHINE_ENDED, "the guest reset itself", "resets by ACPI's register"},
		{"triple", "", MACHINE_ENDED, "the guest's CPU shut down (triple fault)", "faults three times"},
		{"unclaimed", "hello from the guest\n", MACHINE_OFF, "the guest powered off",
			"touches what is nobody's and lives"},
		{"virtio", "hello from the guest\n", MACHINE_OFF, "the guest powered off",
			"finds the device in slot 0, and none in slot 1"},
		{"break", "hello from the guest\n", MACHINE_OFF, "the guest powered off",
			"puts a queue where there is no memory, and resets the device"},
	};
	char what[128];
	struct run r;

	for (size_t i = 0; i < ARRAY_SIZE(guests); i++) {
		snprintf(what, sizeof(what), "%s: a guest that %s", mode, guests[i].fact);
		bool ok = begin(&r, kernel, guests[i].what, 1, 64 << 20) == 0 && wait_for(&r, guests[i].event);
		if (!CHECK(ok && strcmp(r.said, guests[i].says) == 0 && strcmp(r.end, guests[i].end) == 0, what))
			printf("# said \"%s\", ended with \"%s\"%s\n", r.said, r.end, r.overdue ? ", overdue" : "");
		if (guests[i].what[0] == 'b')
			CHECK(r.broken != NULL, "the worker is told of the device that was broken");
		finish(&r);
	}
}

static void test_pause(const char *kernel)
{
	struct husk_error err;
	struct run r;

	if (!CHECK(begin(&r, kernel, "loop", 2, 64 << 20) == 0 && wait_for_words(&r), "a guest that never exits runs"))
		return;
	CHECK(machine_kvm_ops.resume(r.machine, &err) == -EINVAL, "what runs cannot be resumed");
	CHECK(machine_kvm_ops.pause(r.machine, &err) == 0 && wait_for(&r, MACHINE_PAUSED), "it can be paused");
	CHECK(machine_kvm_ops.pause(r.machine, &err) == -EINVAL, "once");
	CHECK(machine_kvm_ops.resume(r.machine, &err) == 0 && wait_for(&r, MACHINE_RUNNING), "and resumed");
	CHECK(machine_kvm_ops.power(r.machine, MACHINE_POWER_KILL, &err) == 0 && wait_for(&r, MACHINE_ENDED),
		"and ended");
	finish(&r);
	if (!CHECK(begin(&r, kernel, "halt", 2, 64 << 20) == 0 && wait_for(&r, MACHINE_RUNNING), "a guest that halts"))
		return;
	CHECK(machine_kvm_ops.pause(r.machine, &err) == 0 && wait_for(&r, MACHINE_PAUSED), "can be paused, too");
	CHECK(machine_kvm_ops.power(r.machine, MACHINE_POWER_RESET, &err) == 0 && wait_for(&r, MACHINE_ENDED),
		"and ended while it rests");
	finish(&r);
}

static void test_refusals(const char *kernel)
{
	struct run r;

	CHECK(begin(&r, kernel, "print", 1, 1 << 20) < 0, "a kernel that does not fit is refused");
	finish(&r);
	CHECK(begin(&r, "/proc/self/exe", "print", 1, 64 << 20) < 0, "a file that is no kernel is refused");
	finish(&r);
	CHECK(begin(&r, kernel, "print", 33, 64 << 20) == -ERANGE, "more vCPUs than the machine takes are refused");
	finish(&r);
	CHECK(begin(&r, kernel, "print", 32, 64 << 20) == 0 && wait_for(&r, MACHINE_OFF), "32 are not");
	finish(&r);
}

/** Fifty machines one after the other leave no descriptor behind. */
static void test_leaks(const char *kernel)
{
	struct run r;
	bool ok = true;
	int before = count_descriptors();

	for (int i = 0; i < 50; i++) {
		ok &= begin(&r, kernel, "print", 2, 64 << 20) == 0 && wait_for(&r, MACHINE_OFF);
		finish(&r);
	}
	CHECK(ok && count_descriptors() == before, "fifty machines leave no descriptor behind");
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: guest-test GUEST-PVH GUEST-LONG\n");
		return 2;
	}
	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		printf("1..0 # skip no /dev/kvm here; the KVM lab runs this\n");
		return 0;
	}
	test_ends("protected mode", argv[1]);
	test_ends("long mode", argv[2]);
	test_pause(argv[2]);
	test_refusals(argv[1]);
	test_leaks(argv[2]);
	return tap_done();
}
