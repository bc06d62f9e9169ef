/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image-fail-test.c - loading a program when the system says no
 *
 * Theory of operation: the linker puts functions of this file in front of what the loader asks the system for (--wrap). The
 * first call of all fails, then the second, and so on, until a load has had no failure: each must give the error and no image,
 * and leave no descriptor.
 */
#include "base/cleanup.h"
#include "sandbox/image.h"
#include "test_program.h"
#include "tests/tap.h"

#include <stdarg.h>
#include <sys/mman.h>

static unsigned countdown; /* the call that fails, counted from now; 0: none */
static bool failed;

static bool fails(int code)
{
	if (countdown == 0 || --countdown > 0)
		return false;
	failed = true;
	errno = code;
	return true;
}

#define WRAP(type, name, fail, code, parameters, arguments)                                                            \
	type __real_##name parameters;                                                                                 \
	type __wrap_##name parameters;                                                                                 \
	type __wrap_##name parameters                                                                                  \
	{                                                                                                              \
		return fails(code) ? (fail) : __real_##name arguments;                                                 \
	}

WRAP(void *, malloc, NULL, ENOMEM, (size_t n), (n))
WRAP(void *, calloc, NULL, ENOMEM, (size_t n, size_t size), (n, size))
WRAP(int, memfd_create, -1, EMFILE, (const char *name, unsigned flags), (name, flags))
WRAP(int, ftruncate64, -1, EINTR, (int fd, off_t size), (fd, size))
WRAP(int, fcntl64, -1, EPERM, (int fd, int what, unsigned long argument), (fd, what, argument))
WRAP(void *, mmap64, MAP_FAILED, ENOMEM, (void *at, size_t n, int prot, int flags, int fd, off_t offset),
	(at, n, prot, flags, fd, offset))

/** The lowest free descriptor: what leaks raises it. */
static int lowest_descriptor(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

int main(void)
{
	struct test_program program;
	unsigned n = 0, wrong = 0;

	test_program_make(&program);
	const int before = lowest_descriptor();
	for (failed = true; failed && n < 1000;) {
		struct husk_sandbox_image *image = NULL;
		struct husk_error err = {0};
		failed = false;
		countdown = ++n;
		int rc = husk_sandbox_image_load_bytes(&program, sizeof(program), &image, &err);
		countdown = 0;
		if (failed ? rc >= 0 || err.code != rc || !err.message[0] || image : rc < 0)
			wrong++;
		husk_sandbox_image_free(image);
	}
	CHECK(n > 10 && n < 1000, "a load asks the system for something more than ten times");
	CHECK(wrong == 0, "when any of it fails, there is an error and no image");
	CHECK(lowest_descriptor() == before, "and no descriptor is left");
	printf("# %u calls\n", n - 1);
	return tap_done();
}
