/* SPDX-License-Identifier: Apache-2.0 */
/* rig.h - what tests of running sandboxes share: programs by path, calls in one line */
#ifndef TESTS_SANDBOX_RIG_H
#define TESTS_SANDBOX_RIG_H

#include "tests/sandbox/literals.h"
#include "tests/tap.h"

#include <errno.h>
#include <husk.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** The error of the last call that failed, of any sandbox of this program. */
static struct husk_error rig_error;

/** Without a /dev/kvm, or without a directory of programs (tests/sandbox/guests), there is nothing to test. */
static inline void rig_need(int argc)
{
	if (access("/dev/kvm", R_OK | W_OK) == 0 && argc == 2)
		return;
	if (argc != 2)
		printf("Bail out! usage: TEST DIRECTORY, of the programs\n");
	else
		printf("1..0 # skip no /dev/kvm here; the KVM lab runs this\n");
	exit(argc != 2);
}

/** Program @name of @directory, or the end of the test. */
static inline struct husk_sandbox_image *rig_load(const char *directory, const char *name)
{
	struct husk_sandbox_image *image;
	char path[512];

	snprintf(path, sizeof(path), "%s/%s.elf", directory, name);
	if (husk_sandbox_image_load(path, &image, &rig_error) == 0)
		return image;
	printf("Bail out! %s\n", rig_error.message);
	exit(1);
}

/** A started sandbox, or NULL and a line that says why. */
static inline struct husk_sandbox *rig_start(struct husk_sandbox *sandbox)
{
	if (husk_sandbox_start(sandbox, &rig_error) == 0)
		return sandbox;
	printf("# start: %s\n", rig_error.message);
	husk_sandbox_free(sandbox);
	return NULL;
}

static inline struct husk_sandbox *rig_begin(struct husk_sandbox_image *image, const struct husk_sandbox_config *config)
{
	struct husk_sandbox *sandbox;

	if (husk_sandbox_create(image, config, &sandbox, &rig_error) == 0)
		return rig_start(sandbox);
	printf("# create: %s\n", rig_error.message);
	return NULL;
}

/** Call @name with the values that follow it; the result into @result, which may be NULL. */
#define RIG_CALL(sandbox, result, name, ...)                                                                           \
	({                                                                                                             \
		const struct husk_sandbox_value rig_args_[] = {{0}, ##__VA_ARGS__};                                    \
		husk_sandbox_call((sandbox), (name), rig_args_ + 1, sizeof(rig_args_) / sizeof(rig_args_[0]) - 1,      \
			(result), NULL, &rig_error);                                                                   \
	})

/** A call that succeeds and whose result, a u64, is @want. */
#define RIG_U64_IS(sandbox, want, name, ...)                                                                           \
	({                                                                                                             \
		struct husk_sandbox_value rig_result_ = {0};                                                           \
		int rig_rc_ = RIG_CALL((sandbox), &rig_result_, name, ##__VA_ARGS__);                                  \
		if (rig_rc_ < 0)                                                                                       \
			printf("# %s: %s\n", name, rig_error.message);                                                 \
		rig_rc_ == 0 && rig_result_.type == HUSK_SANDBOX_U64 &&rig_result_.u64 == (want);                      \
	})

/** The report of the last call. */
static inline struct husk_sandbox_report rig_report(struct husk_sandbox *sandbox)
{
	struct husk_sandbox_report report = {.size = sizeof(report)};

	husk_sandbox_report(sandbox, &report, NULL);
	return report;
}

static inline struct husk_sandbox_stats rig_stats(struct husk_sandbox *sandbox)
{
	struct husk_sandbox_stats stats = {.size = sizeof(stats)};

	husk_sandbox_stats(sandbox, &stats, NULL);
	return stats;
}

/** Does this host's KVM interpret guest code? Such a one has no int3; @basic: the
 *  program. */
static inline bool rig_is_interpreted(struct husk_sandbox_image *basic)
{
	struct husk_sandbox *sandbox = rig_begin(basic, NULL);
	bool interpreted = sandbox && RIG_CALL(sandbox, NULL, "breakpoint") == -ENOTSUP &&
			   rig_report(sandbox).reason == HUSK_SANDBOX_INSTRUCTION;

	husk_sandbox_free(sandbox);
	return interpreted;
}

#endif
