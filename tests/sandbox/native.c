/* SPDX-License-Identifier: Apache-2.0 */
/* native.c - a sandbox program run without KVM (theory of operation: native.h) */
#include "native.h"

#include "base/cleanup.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define RED_FLAGS 0x202 /* interrupts on, which a process cannot change, and the bit that is always 1 */

/** Map @size bytes at @at, or end the child. */
static void map_at(uint64_t at, uint64_t size, int prot, int flags, int fd, uint64_t offset)
{
	if (size && mmap((void *)at, size, prot, flags | MAP_FIXED, fd, (off_t)offset) != (void *)at)
		_exit(100);
}

static void map_anonymous(struct sandbox_range range, int prot)
{
	map_at(range.at, range.size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/** A buffer that both processes map. */
static uint8_t *share(uint64_t size, int *fd)
{
	*fd = memfd_create("buffer", MFD_CLOEXEC);
	if (*fd < 0 || ftruncate(*fd, (off_t)size) < 0)
		return NULL;
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	return at == MAP_FAILED ? NULL : at;
}

/** What the child maps as its info pages; written here, because a sanitizer does not know the child's addresses. */
static bool write_info(const struct native *native, const struct sandbox_named *names, unsigned n_names, int *fd)
{
	const struct sandbox_places *places = &native->places;
	struct sandbox_info *info = (struct sandbox_info *)share(places->info.size, fd);

	if (!info)
		return false;
	*info = (struct sandbox_info){
		.magic = SANDBOX_INFO_MAGIC,
		.protocol = SANDBOX_PROTOCOL,
		.size = sizeof(*info),
		.program = {.at = SANDBOX_PROGRAM, .size = native->image->ro_size - SANDBOX_SUPPORT_SIZE},
		.data = places->data,
		.heap = places->heap,
		.stack = places->stack,
		.input = places->input,
		.output = places->output,
		.n_names = n_names,
	};
	if (n_names)
		memcpy(info->names, names, n_names * sizeof(*names));
	munmap(info, places->info.size);
	return true;
}

/** In the child: everything where a sandbox has it. Does not return. */
static void become(const struct native *native, const int fds[4])
{
	const struct husk_sandbox_image *image = native->image;

	for (unsigned i = 0; i < image->n_segments; i++) {
		const struct image_segment *segment = &image->segments[i];
		map_at(segment->at, segment->size,
			PROT_READ | (segment->write ? PROT_WRITE : 0) | (segment->execute ? PROT_EXEC : 0), MAP_PRIVATE,
			image->fd, segment->at - SANDBOX_SUPPORT);
	}
	map_anonymous(native->places.heap, PROT_READ | PROT_WRITE);
	map_anonymous(native->places.stack, PROT_READ | PROT_WRITE);
	map_at(native->places.input.at, native->places.input.size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	map_at(native->places.output.at, native->places.output.size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
	map_at(SANDBOX_REGIONS, SANDBOX_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fds[2], 0);
	map_at(native->places.info.at, native->places.info.size, PROT_READ, MAP_SHARED, fds[3], 0);
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(101);
	raise(SIGSTOP);
	_exit(102);
}

static bool stand_at_entry(struct native *native)
{
	int status;
	struct user_regs_struct regs;

	if (waitpid(native->pid, &status, 0) < 0 || !WIFSTOPPED(status) ||
		ptrace(PTRACE_GETREGS, native->pid, NULL, &regs) < 0)
		return false;
	ptrace(PTRACE_SETOPTIONS, native->pid, NULL, PTRACE_O_EXITKILL);
	regs = (struct user_regs_struct){
		.rip = native->image->entry,
		.rsp = native->places.stack.at + native->places.stack.size,
		.rdi = native->places.info.at,
		.eflags = RED_FLAGS,
		.orig_rax = (unsigned long long)-1,
		.cs = regs.cs,
		.ss = regs.ss,
		.ds = regs.ds,
		.es = regs.es,
		.fs = regs.fs,
		.gs = regs.gs,
	};
	return ptrace(PTRACE_SETREGS, native->pid, NULL, &regs) == 0;
}

bool native_load(struct native *native, const char *path, const struct sandbox_named *names, unsigned n_names)
{
	int fds[4] = {-1, -1, -1, -1};

	if (!native->config.size) {
		husk_sandbox_config_init(&native->config);
		native->config.size = sizeof(native->config);
	}
	native->pid = -1;
	if (husk_sandbox_image_load(path, &native->image, &native->err) < 0)
		return false;
	places_make(&native->places, native->image, &native->config);
	native->input = share(native->config.input, &fds[0]);
	native->output = share(native->config.output, &fds[1]);
	native->shared = share(SANDBOX_PAGE, &fds[2]);
	fflush(stdout);
	if (native->input && native->output && native->shared && write_info(native, names, n_names, &fds[3]))
		native->pid = fork();
	if (native->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		become(native, fds);
	}
	for (unsigned i = 0; i < 4; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (native->pid > 0 && stand_at_entry(native))
		return true;
	return error_set(&native->err, -EPERM, "run %s under ptrace", path) == 0;
}

struct native_exit native_run(struct native *native)
{
	struct native_exit exit = {0};
	struct user_regs_struct regs;
	int status;

	do {
		exit.steps++;
		ptrace(native->count ? PTRACE_SINGLESTEP : PTRACE_CONT, native->pid, NULL, NULL);
		if (waitpid(native->pid, &status, 0) < 0 || !WIFSTOPPED(status)) {
			exit.fault = SIGKILL;
			native->pid = -1;
			return exit;
		}
	} while (native->count && WSTOPSIG(status) == SIGTRAP);
	ptrace(PTRACE_GETREGS, native->pid, NULL, &regs);
	exit.rip = regs.rip;
	long code = ptrace(PTRACE_PEEKTEXT, native->pid, (void *)regs.rip, NULL);
	if (WSTOPSIG(status) == SIGSEGV && (code & 0xff) == 0xef && (uint16_t)regs.rdx == SANDBOX_PORT) {
		exit.signal = (uint32_t)regs.rax;
		regs.rip++; /* out %eax, %dx is one byte */
		ptrace(PTRACE_SETREGS, native->pid, NULL, &regs);
	} else {
		exit.fault = WSTOPSIG(status);
	}
	return exit;
}

/** Answer the host call in the output buffer. */
static bool answer(struct native *native)
{
	const struct husk_sandbox_image *image = native->image;
	struct codec_values args = {0};
	struct husk_sandbox_value result = {0};
	char message[64] = "";
	uint32_t which;
	uint64_t size;
	int32_t code = 0;

	if (codec_read_which(native->output, native->config.output, &which, &native->err) < 0 ||
		which >= image->n_imports ||
		codec_read_call(native->output, native->config.output, which, &image->imports[which], &args, &size,
			&native->err) < 0)
		return false;
	if (strcmp(image->imports[which].name, "print") == 0) {
		size_t n = args.values[0].bytes.size, room = sizeof(native->printed) - 1 - native->n_printed;
		n = n < room ? n : room;
		memcpy(native->printed + native->n_printed, args.values[0].bytes.data, n);
		native->n_printed += n;
	} else {
		code = native->host(native, &image->imports[which], &args, &result, message);
	}
	int rc = codec_write_reply(native->input + native->call_size, native->config.input - native->call_size,
		&image->imports[which], &result, code, message, &size, &native->err);
	codec_values_clear(&args);
	return rc == 0;
}

struct native_exit native_finish(struct native *native)
{
	struct native_exit exit;

	do {
		exit = native_run(native);
	} while (exit.signal == SANDBOX_HOST_CALL && answer(native));
	native->message[0] = 0;
	native->code = 0;
	if ((exit.signal == SANDBOX_FAIL || exit.signal == SANDBOX_ABORT) &&
		codec_read_error(native->output, native->config.output, &native->code, native->message, &native->err) <
			0)
		exit.signal = 0;
	return exit;
}

struct native_exit native_call(struct native *native, const char *name, const struct husk_sandbox_value *args, size_t n,
	struct codec_values *result)
{
	const struct native_exit none = {0};
	int which = image_find_export(native->image, name);
	uint64_t size;

	if (which < 0 || codec_write_call(native->input, native->config.input, (uint32_t)which,
				 &native->image->exports[which], args, n, &size, &native->err) < 0)
		return none;
	native->call_size = (size + 15) & ~15ull;
	struct native_exit exit = native_finish(native);
	native->call_size = 0;
	struct codec_values values = {0};
	if (exit.signal == SANDBOX_RETURN && codec_read_result(native->output, native->config.output,
						     &native->image->exports[which], &values, NULL, &native->err) < 0)
		return none;
	if (result)
		*result = values;
	else
		codec_values_clear(&values);
	return exit;
}

void native_end(struct native *native)
{
	if (native->pid > 0) {
		kill(native->pid, SIGKILL);
		waitpid(native->pid, NULL, 0);
	}
	if (native->input)
		munmap(native->input, native->config.input);
	if (native->output)
		munmap(native->output, native->config.output);
	if (native->shared)
		munmap(native->shared, SANDBOX_PAGE);
	husk_sandbox_image_free(native->image);
	*native = (struct native){0};
}
