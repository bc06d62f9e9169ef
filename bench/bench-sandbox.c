/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-sandbox.c - what function sandboxes cost, against bare KVM in the same run
 *
 * usage: bench-sandbox [--raw] PROGRAM [ROUNDS]
 *
 * PROGRAM is tests/sandbox/guests/basic.c. Bare KVM is a VM with one page of memory whose guest does `out` for ever: its
 * set-up (create, memslot, vCPU, registers, first exit) and the round trip of one exit. Against it: a sandbox from a loaded
 * image until it is ready; the call of an empty function; restore after the guest wrote ten pages, and of that the part that
 * is the kernel's own, measured as the same ioctls without the copying. Then counts: exits and guest instructions of an empty
 * call (single steps), and the private memory of a thousand sandboxes. Prints a table, or with --raw lines of `name p50 p99
 * n`, times in microseconds.
 */
#include "base/cleanup.h"
#include "sandbox/run.h"
#include "sandbox/snapshot.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define ROUNDS_MAX 20000
#define THOUSAND 1000
#define TOUCHED 10

static double samples[ROUNDS_MAX];
static bool raw;

static void must(int rc, const char *what, const struct husk_error *err)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "bench-sandbox: %s: %s\n", what, err->message);
	exit(1);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

/** Sort @n samples and print them; the median. */
static double tell(const char *name, unsigned n, double bare)
{
	qsort(samples, n, sizeof(samples[0]), compare);
	double p50 = samples[n / 2], p99 = samples[(n * 99) / 100];
	if (raw)
		printf("%s %.3f %.3f %u\n", name, p50, p99, n);
	else if (bare > 0)
		printf("%-34s %10.2f us %10.2f us %8u %8.2f x\n", name, p50, p99, n, p50 / bare);
	else
		printf("%-34s %10.2f us %10.2f us %8u\n", name, p50, p99, n);
	return p50;
}

static void count(const char *name, double value)
{
	printf(raw ? "%s %.1f %.1f 1\n" : "%-34s %10.1f\n", name, value, value);
}

static double microseconds(uint64_t since)
{
	return (double)(kick_now() - since) / 1000;
}

/* ---- bare KVM ---- */

struct bare {
	struct kvm_vm vm;
	struct kvm_vcpu vcpu;
	uint8_t *page;
};

static void bare_make(const struct kvm *kvm, struct bare *bare)
{
	static const uint8_t code[] = {0xe6, 0x10, 0xeb, 0xfc}; /* 1: out %al, $0x10; jmp 1b, in real mode */
	struct husk_error err;
	struct kvm_sregs sregs;
	struct kvm_regs regs = {.rflags = 2};

	bare->page = mmap(NULL, SANDBOX_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(bare->page, code, sizeof(code));
	must(kvm_vm_create(kvm, &bare->vm, &err), "bare", &err);
	must(kvm_vm_memslot(&bare->vm, 0, 0, SANDBOX_PAGE, bare->page, 0, &err), "bare", &err);
	must(kvm_vcpu_create(kvm, &bare->vm, 0, &bare->vcpu, &err), "bare", &err);
	must((int)kvm_ioctl(bare->vcpu.fd, KVM_GET_SREGS, &sregs, "registers", &err), "bare", &err);
	sregs.cs.base = sregs.cs.selector = 0;
	must((int)kvm_ioctl(bare->vcpu.fd, KVM_SET_SREGS, &sregs, "registers", &err), "bare", &err);
	must((int)kvm_ioctl(bare->vcpu.fd, KVM_SET_REGS, &regs, "registers", &err), "bare", &err);
	if (kvm_vcpu_run(&bare->vcpu) < 0 || bare->vcpu.run->exit_reason != KVM_EXIT_IO)
		exit(fprintf(stderr, "bench-sandbox: the bare guest does not run\n"));
}

static void bare_end(struct bare *bare)
{
	kvm_vcpu_close(&bare->vcpu);
	kvm_vm_close(&bare->vm);
	munmap(bare->page, SANDBOX_PAGE);
}

/* ---- sandboxes ---- */

static int answer_nothing(void *data, const struct husk_sandbox_value *args, size_t n,
	struct husk_sandbox_value *result, struct husk_error *err)
{
	return 0;
}

static struct husk_sandbox *begin(struct husk_sandbox_image *image)
{
	struct husk_error err;
	struct husk_sandbox *sandbox;

	must(husk_sandbox_create(image, NULL, &sandbox, &err), "create", &err);
	for (size_t i = 0;; i++) {
		struct husk_sandbox_signature import = {.size = sizeof(import)};
		if (husk_sandbox_image_import(image, i, &import, &err) < 0)
			break;
		int rc = husk_sandbox_add_function(sandbox, &import, answer_nothing, NULL, &err);
		if (rc != -EEXIST)
			must(rc, "function", &err);
	}
	must(husk_sandbox_start(sandbox, &err), "start", &err);
	return sandbox;
}

static void call(struct husk_sandbox *sandbox, const char *name, const struct husk_sandbox_value *args, size_t n)
{
	struct husk_error err;
	must(husk_sandbox_call(sandbox, name, args, n, NULL, NULL, &err), name, &err);
}

/** Guest instructions of an empty call: every single step is an exit of its own. */
static uint64_t instructions(struct husk_sandbox *sandbox)
{
	struct kvm_guest_debug step = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP}, off = {0};
	struct husk_error err;

	call(sandbox, "nothing", NULL, 0);
	must((int)kvm_ioctl(sandbox->vcpu.fd, KVM_SET_GUEST_DEBUG, &step, "step", &err), "step", &err);
	uint64_t before = sandbox->stats.exits;
	call(sandbox, "nothing", NULL, 0);
	uint64_t n = sandbox->stats.exits - before;
	must((int)kvm_ioctl(sandbox->vcpu.fd, KVM_SET_GUEST_DEBUG, &off, "step", &err), "step", &err);
	return n;
}

/** What of a restore is the kernel's: the dirty logs, and the registers. */
static double kernel_part(struct husk_sandbox *sandbox, struct husk_sandbox_snapshot *snapshot)
{
	struct husk_error err;
	uint64_t begun = kick_now();

	must(run_settle(sandbox, &err), "settle", &err);
	must(areas_collect(&sandbox->areas, &sandbox->vm, &err), "dirty log", &err);
	must(cpu_load(sandbox->kvm, &sandbox->vcpu, &snapshot->cpu, &err), "registers", &err);
	return microseconds(begun);
}

static void restores(struct husk_sandbox *sandbox, unsigned rounds, double exit_us)
{
	const struct husk_sandbox_value pages[] = {
		{.type = HUSK_SANDBOX_U32, .u32 = TOUCHED}, {.type = HUSK_SANDBOX_U32, .u32 = 1}};
	struct husk_sandbox_snapshot *snapshot;
	struct husk_error err;

	must(husk_sandbox_snapshot(sandbox, &snapshot, &err), "snapshot", &err);
	for (unsigned i = 0; i < rounds; i++) {
		call(sandbox, "touch", pages, 2);
		uint64_t begun = kick_now();
		must(husk_sandbox_restore(sandbox, snapshot, &err), "restore", &err);
		samples[i] = microseconds(begun);
	}
	tell("restore-10-pages", rounds, exit_us);
	for (unsigned i = 0; i < rounds; i++) {
		call(sandbox, "touch", pages, 2);
		samples[i] = kernel_part(sandbox, snapshot);
		must(husk_sandbox_restore(sandbox, snapshot, &err), "restore", &err);
	}
	tell("restore-kernel-part", rounds, exit_us);
	count("restore-pages", (double)sandbox->stats.pages_restored / sandbox->stats.restores);
	husk_sandbox_snapshot_free(snapshot);
}

/** Kilobytes of a line of a file of /proc. */
static double proc_kb(const char *path, const char *key)
{
	char line[256];
	double kb = 0;
	CLEANUP_FILE FILE *file = fopen(path, "re");

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, key, strlen(key)) == 0)
			sscanf(line + strlen(key), ": %lf", &kb);
	return kb;
}

static void thousand(struct husk_sandbox_image *image)
{
	static struct husk_sandbox *all[THOUSAND];
	const struct rlimit files = {.rlim_cur = 4 * THOUSAND, .rlim_max = 4 * THOUSAND};

	setrlimit(RLIMIT_NOFILE, &files);
	double own = proc_kb("/proc/self/smaps_rollup", "Private_Dirty"),
	       free_before = proc_kb("/proc/meminfo", "MemAvailable");
	for (int i = 0; i < THOUSAND; i++) {
		all[i] = begin(image);
		call(all[i], "nothing", NULL, 0);
	}
	count("thousand-private-kib-each", (proc_kb("/proc/self/smaps_rollup", "Private_Dirty") - own) / THOUSAND);
	count("thousand-with-kernel-kib-each", (free_before - proc_kb("/proc/meminfo", "MemAvailable")) / THOUSAND);
	for (int i = 0; i < THOUSAND; i++)
		husk_sandbox_free(all[i]);
}

/** The rounds of the two set-ups and of the two round trips, interleaved. */
static double round_trips(const struct kvm *kvm, struct husk_sandbox *sandbox, unsigned rounds)
{
	static double calls[ROUNDS_MAX];
	struct bare bare;

	bare_make(kvm, &bare);
	for (unsigned i = 0; i < rounds; i++) {
		uint64_t begun = kick_now();
		kvm_vcpu_run(&bare.vcpu);
		samples[i] = microseconds(begun);
		begun = kick_now();
		call(sandbox, "nothing", NULL, 0);
		calls[i] = microseconds(begun);
	}
	bare_end(&bare);
	double exit_us = tell("bare-exit", rounds, 0);
	memcpy(samples, calls, sizeof(samples));
	tell("call-nothing", rounds, exit_us);
	return exit_us;
}

static void set_ups(const struct kvm *kvm, struct husk_sandbox_image *image, unsigned rounds)
{
	static double created[ROUNDS_MAX];

	for (unsigned i = 0; i < rounds; i++) {
		struct bare bare;
		uint64_t begun = kick_now();
		bare_make(kvm, &bare);
		samples[i] = microseconds(begun);
		bare_end(&bare);
		begun = kick_now();
		struct husk_sandbox *sandbox = begin(image);
		created[i] = microseconds(begun);
		husk_sandbox_free(sandbox);
	}
	double bare_us = tell("bare-set-up", rounds, 0);
	memcpy(samples, created, sizeof(samples));
	tell("create-to-ready", rounds, bare_us);
}

int main(int argc, char **argv)
{
	struct husk_error err = {0};
	struct husk_sandbox_image *image;
	const struct kvm *kvm;

	setvbuf(stdout, NULL, _IOLBF, 0);
	raw = argc > 1 && strcmp(argv[1], "--raw") == 0;
	argv += raw;
	unsigned rounds = argc - raw > 2 ? (unsigned)atoi(argv[2]) : 1000;
	if (argc - raw < 2 || !rounds || rounds > ROUNDS_MAX) {
		fprintf(stderr, "usage: bench-sandbox [--raw] PROGRAM [ROUNDS, at most %d]\n", ROUNDS_MAX);
		return 2;
	}
	must(husk_sandbox_image_load(argv[1], &image, &err), "load", &err);
	must(image_kvm(image, &kvm, &err), "kvm", &err);
	if (!raw)
		printf("%-34s %13s %13s %8s %10s\n", "", "p50", "p99", "n", "to bare");
	struct husk_sandbox *sandbox = begin(image);
	uint64_t before = sandbox->stats.exits;
	call(sandbox, "nothing", NULL, 0);
	count("exits-of-an-empty-call", (double)(sandbox->stats.exits - before));
	double exit_us = round_trips(kvm, sandbox, rounds);
	set_ups(kvm, image, rounds < 200 ? rounds : 200);
	restores(sandbox, rounds < 500 ? rounds : 500, exit_us);
	count("instructions-of-an-empty-call", (double)instructions(sandbox));
	husk_sandbox_free(sandbox);
	thousand(image);
	husk_sandbox_image_free(image);
	return 0;
}
