/* SPDX-License-Identifier: Apache-2.0 */
/* descriptors.h - how many descriptors this process has, for tests that none is lost */
#ifndef TESTS_DESCRIPTORS_H
#define TESTS_DESCRIPTORS_H

#include "base/cleanup.h"

/** Comparable with another call's answer only: the directory's own entries are counted, too. */
static inline unsigned count_descriptors(void)
{
	unsigned n = 0;
	CLEANUP_DIR DIR *dir = opendir("/proc/self/fd");
	while (dir && readdir(dir))
		n++;
	return n;
}

#endif
