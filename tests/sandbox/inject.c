/* SPDX-License-Identifier: Apache-2.0 */
/* inject.c - every call of the system's that a scenario makes fails once (theory of operation: inject.h) */
#include "tests/sandbox/inject.h"

#include "tests/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- which call fails ---- */

static struct {
	bool on;
	enum inject_how how;
	uint64_t calls; /* so far */
	uint64_t which; /* fails, counted from 1; 0: none */
	const char *failed; /* what did */
} plan;

static void begin(enum inject_how how, uint64_t which)
{
	plan.how = how;
	plan.calls = 0;
	plan.which = which;
	plan.failed = NULL;
	plan.on = true;
}

static void end(void)
{
	plan.on = false;
}

/** Is this call, of @name, the one? Then errno is set. */
static bool hit(const char *name, int code, bool interruptible)
{
	if (!plan.on || (plan.how == INJECT_INTERRUPT && !interruptible) || ++plan.calls != plan.which)
		return false;
	plan.failed = name;
	errno = plan.how == INJECT_INTERRUPT ? EINTR : code;
	return true;
}

/* ---- the calls ----
 * Each is declared by hand, under the name that the linker gives it: with large files, those that end in 64. What gives
 * something back (close, munmap, timer_delete) is left alone: had it failed, something would be left by right. */

#define WRAP(type, name, failure, code, interruptible, parameters, ...)                                                \
	type __real_##name parameters;                                                                                 \
	type __wrap_##name parameters;                                                                                 \
	type __wrap_##name parameters                                                                                  \
	{                                                                                                              \
		return hit(#name, code, interruptible) ? (failure) : __real_##name(__VA_ARGS__);                       \
	}

WRAP(void *, malloc, NULL, ENOMEM, false, (size_t n), n)
WRAP(void *, calloc, NULL, ENOMEM, false, (size_t n, size_t size), n, size)
WRAP(void *, realloc, NULL, ENOMEM, false, (void *block, size_t size), block, size)
WRAP(void *, reallocarray, NULL, ENOMEM, false, (void *block, size_t n, size_t size), block, n, size)
WRAP(char *, strdup, NULL, ENOMEM, false, (const char *s), s)
WRAP(int, madvise, -1, EINVAL, false, (void *at, size_t n, int advice), at, n, advice)
WRAP(int, memfd_create, -1, EMFILE, false, (const char *name, unsigned flags), name, flags)
WRAP(int, open64, -1, EMFILE, false, (const char *path, int flags, mode_t mode), path, flags, mode)
WRAP(int, mkostemp64, -1, EACCES, false, (char *path, int flags), path, flags)
WRAP(int, fcntl64, -1, EPERM, false, (int fd, int what, long argument), fd, what, argument)
WRAP(int, ftruncate64, -1, ENOSPC, false, (int fd, off_t size), fd, size)
WRAP(int, fallocate64, -1, ENOSPC, false, (int fd, int mode, off_t offset, off_t n), fd, mode, offset, n)
WRAP(int, fstat64, -1, EIO, false, (int fd, struct stat *st), fd, st)
WRAP(off_t, lseek64, -1, EINVAL, false, (int fd, off_t offset, int from), fd, offset, from)
WRAP(ssize_t, read, -1, EIO, true, (int fd, void *buf, size_t n), fd, buf, n)
WRAP(ssize_t, write, -1, ENOSPC, true, (int fd, const void *buf, size_t n), fd, buf, n)
WRAP(ssize_t, pread64, -1, EIO, true, (int fd, void *buf, size_t n, off_t offset), fd, buf, n, offset)
WRAP(ssize_t, pwrite64, -1, ENOSPC, true, (int fd, const void *buf, size_t n, off_t offset), fd, buf, n, offset)
WRAP(ssize_t, sendfile64, -1, EIO, false, (int to, int from, off_t *offset, size_t n), to, from, offset, n)
WRAP(ssize_t, copy_file_range, -1, EIO, false, (int from, off_t *a, int to, off_t *b, size_t n, unsigned flags), from,
	a, to, b, n, flags)
WRAP(int, fsync, -1, EIO, false, (int fd), fd)
WRAP(int, link, -1, EPERM, false, (const char *from, const char *to), from, to)
WRAP(int, renameat2, -1, EIO, false, (int a, const char *from, int b, const char *to, unsigned flags), a, from, b, to,
	flags)
WRAP(ssize_t, getrandom, -1, ENOSYS, true, (void *buf, size_t n, unsigned flags), buf, n, flags)
WRAP(int, timer_create, -1, EAGAIN, false, (clockid_t clock, struct sigevent *event, timer_t *timer), clock, event,
	timer)
WRAP(int, timer_settime, -1, EINVAL, false,
	(timer_t timer, int flags, const struct itimerspec *to, struct itimerspec *was), timer, flags, to, was)

/** What descriptors were mapped as, shared: of a vCPU's its struct kvm_run. */
static void *mapped[1024];

void *__real_mmap64(void *at, size_t n, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t n, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
	bool fails = hit("mmap", ENOMEM, false);

	/* Linux, where it runs out of something half-way: what was there is gone, and nothing is in its place. */
	if (fails && flags & MAP_FIXED) {
		munmap(at, n);
		errno = ENOMEM;
	}
	void *to = fails ? MAP_FAILED : __real_mmap64(at, n, prot, flags, fd, offset);

	if (flags & MAP_SHARED && fd >= 0 && fd < (int)ARRAY_SIZE(mapped))
		mapped[fd] = to;
	return to;
}

int __real_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
	static const struct {
		unsigned long request;
		const char *name;
		int code;
	} known[] = {
		{KVM_RUN, "KVM_RUN", EFAULT},
		{KVM_CREATE_VM, "KVM_CREATE_VM", EMFILE},
		{KVM_CREATE_VCPU, "KVM_CREATE_VCPU", EMFILE},
		{KVM_CHECK_EXTENSION, "KVM_CHECK_EXTENSION", EINVAL},
		{KVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION", ENOMEM},
		{KVM_GET_DIRTY_LOG, "KVM_GET_DIRTY_LOG", EIO},
		{KVM_SET_SIGNAL_MASK, "KVM_SET_SIGNAL_MASK", ENOMEM},
	};
	const char *name = "ioctl";
	int code = EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i].request == request) {
			name = known[i].name;
			code = known[i].code;
		}
	if (!hit(name, code, request == KVM_RUN))
		return __real_ioctl(fd, request, argument);
	if (plan.how == INJECT_INTERRUPT) { /* as KVM does it: what was begun is completed, and then it returns */
		struct kvm_run *run = mapped[fd];
		uint8_t before = run->immediate_exit;
		run->immediate_exit = 1;
		__real_ioctl(fd, request, argument);
		run->immediate_exit = before;
		errno = EINTR;
	}
	return -1;
}

/* ---- runs ---- */

/** Mappings, two that touch and are alike counting as one: after a fork the kernel does not merge what grows with what was
 *  there. */
static unsigned count_mappings(void)
{
#ifdef __SANITIZE_ADDRESS__
	return 0; /* the sanitizer makes its own */
#endif
	static char text[1 << 18];
	size_t n = 0;
	ssize_t got;
	unsigned count = 0;
	unsigned long start, end, last = 0;
	char rights[5], before[5] = "";
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	while (n < sizeof(text) - 1 && (got = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = 0;
	close(fd);
	for (char *line = text; line && sscanf(line, "%lx-%lx %4s", &start, &end, rights) == 3;) {
		count += start != last || strcmp(rights, before) != 0;
		last = end;
		memcpy(before, rights, sizeof(before));
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return count;
}

/** What the process holds. */
struct held {
	unsigned descriptors, mappings;
	size_t heap; /* bytes of blocks; 0 under a sanitizer, which finds leaks by itself */
};

static struct held count_held(void)
{
	return (struct held){.descriptors = (unsigned)count_descriptors(),
		.mappings = count_mappings(),
		.heap = mallinfo2().uordblks};
}

static int run(inject_scenario *scenario, void *data, enum inject_how how, uint64_t which, struct husk_error *err)
{
	memset(err, 0, sizeof(*err));
	begin(how, which);
	int rc = scenario(data, err);
	end();
	return rc;
}

/** Call number @which fails. */
static void run_failing(
	inject_scenario *scenario, void *data, enum inject_how how, uint64_t which, struct inject_verdict *v)
{
	const struct held before = count_held();
	struct husk_error err, later;
	int rc = run(scenario, data, how, which, &err);
	const char *failed = plan.failed ? plan.failed : "nothing";
	const struct held after = count_held();
	bool untold = rc < 0 && (err.code != rc || !err.message[0]);
	bool leaked = before.descriptors != after.descriptors || before.mappings != after.mappings ||
		      before.heap != after.heap;

	v->runs++;
	v->errors += rc < 0;
	v->successes += rc == 0;
	v->untold += untold;
	v->leaked += leaked;
	v->missed += !plan.failed;
	if (untold || leaked || !plan.failed || (how == INJECT_INTERRUPT && rc < 0))
		printf("# call %ju, %s, failed: %d (%d, %s); descriptors %+d, mappings %+d, heap %+jd\n",
			(uintmax_t)which, failed, rc, err.code, err.message,
			(int)(after.descriptors - before.descriptors), (int)(after.mappings - before.mappings),
			(intmax_t)(after.heap - before.heap));
	if (run(scenario, data, how, 0, &later) < 0) {
		v->hurt++;
		printf("# after call %ju, %s, had failed: %s\n", (uintmax_t)which, failed, later.message);
	}
}

void inject_begin(char **argv)
{
	static const char tunables[] = "GLIBC_TUNABLES", value[] = "glibc.malloc.tcache_count=0";

	if (getenv(tunables))
		return;
	setenv(tunables, value, 1);
	execv("/proc/self/exe", argv);
	printf("Bail out! cannot run again: %s\n", strerror(errno));
	exit(1);
}

/** Every @step-th call from @first on fails, in this process. */
static void run_some(inject_scenario *scenario, void *data, enum inject_how how, uint64_t first, uint64_t step,
	struct inject_verdict *v)
{
	for (uint64_t which = first, calls = v->calls; which <= calls; which += step)
		run_failing(scenario, data, how, which, v);
}

static void add(struct inject_verdict *all, const struct inject_verdict *some)
{
	all->runs += some->runs;
	all->errors += some->errors;
	all->successes += some->successes;
	all->untold += some->untold;
	all->leaked += some->leaked;
	all->hurt += some->hurt;
	all->missed += some->missed;
}

/** The same in @n processes, each with its share; one that does not come to its end has hurt something. */
static void run_at_once(inject_scenario *scenario, void *data, enum inject_how how, uint64_t step, unsigned n,
	struct inject_verdict *all)
{
	struct inject_verdict *shares =
		mmap(NULL, n * sizeof(*shares), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t children[n];

	fflush(stdout);
	for (unsigned i = 0; i < n; i++) {
		children[i] = fork();
		if (children[i] != 0)
			continue;
		shares[i].calls = all->calls;
		run_some(scenario, data, how, 1 + i * step, n * step, &shares[i]);
		fflush(stdout);
		_exit(0);
	}
	for (unsigned i = 0; i < n; i++) {
		int status = -1;
		if (children[i] < 0 || waitpid(children[i], &status, 0) < 0 || status != 0) {
			printf("# process %u of %u ended with status %#x\n", i, n, (unsigned)status);
			all->hurt++;
		}
		add(all, &shares[i]);
	}
	munmap(shares, n * sizeof(*shares));
}

struct inject_verdict inject_run(
	inject_scenario *scenario, void *data, enum inject_how how, unsigned most, unsigned at_once)
{
	struct inject_verdict v = {0};
	struct husk_error err;

	/* What is made once and stays: libc's texts and buffers, a lazily made table. */
	for (int code = 1; code < 134; code++)
		strerror(code);
	int rc = run(scenario, data, how, 0, &err);
	rc = rc < 0 ? rc : run(scenario, data, how, 0, &err);
	if (rc < 0)
		printf("# when nothing fails: %s\n", err.message);
	v.clean = rc == 0;
	v.calls = plan.calls;
	const uint64_t step = most && v.calls > most ? (v.calls + most - 1) / most : 1;
	if (v.clean && at_once > 1)
		run_at_once(scenario, data, how, step, at_once, &v);
	else if (v.clean)
		run_some(scenario, data, how, 1, step, &v);
	return v;
}
