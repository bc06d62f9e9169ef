/* SPDX-License-Identifier: Apache-2.0 */
/* make.h - a sandbox of the test program, configured; without KVM */
#ifndef TESTS_SANDBOX_MAKE_H
#define TESTS_SANDBOX_MAKE_H

#include "sandbox/sandbox.h"
#include "tests/sandbox/test_program.h"

#include <stdio.h>
#include <stdlib.h>

/** A sandbox as small as one can be. */
static inline struct husk_sandbox *make_small_sandbox(void)
{
	static struct test_program program;
	struct husk_sandbox_image *image = NULL;
	struct husk_sandbox *sandbox = NULL;
	struct husk_sandbox_config config;
	struct husk_error err = {0};
	husk_sandbox_config_init(&config);
	config.heap = 0;
	config.stack = config.input = config.output = 4096;
	test_program_make(&program);
	if (husk_sandbox_image_load_bytes(&program, sizeof(program), &image, &err) < 0 ||
		husk_sandbox_create(image, &config, &sandbox, &err) < 0) {
		printf("Bail out! %s\n", err.message);
		exit(1);
	}
	husk_sandbox_image_free(image);
	return sandbox;
}

#endif
