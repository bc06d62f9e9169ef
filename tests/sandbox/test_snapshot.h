/* SPDX-License-Identifier: Apache-2.0 */
/* test_snapshot.h - a sandbox's snapshot that no sandbox was needed for: everything that one can have, with values of its
 * own */
#ifndef TESTS_SANDBOX_TEST_SNAPSHOT_H
#define TESTS_SANDBOX_TEST_SNAPSHOT_H

#include "sandbox/snapshot.h"

#include <stdbool.h>

#define TEST_REGION 0x10000u /* of 3 pages, at a place that was chosen */
#define TEST_CELL_PAGE 0x20000u /* of the host's, at a place that was chosen, too */

/** Its areas, in this order. */
enum test_areas {
	TEST_CORE,
	TEST_INFO,
	TEST_TABLES,
	TEST_CELLS_HOST,
	TEST_CELLS_GUEST,
	TEST_CHOSEN,
	TEST_LIBRARY,
	TEST_CELLS_CHOSEN,
	TEST_AREAS
};
#define TEST_CELLS 4 /* host's, guest's, host's at a chosen place, guest's */

/** Make it of the program of test_program.h; NULL: failed. */
struct husk_sandbox_snapshot *test_snapshot_make(void);
/** Are they the same in all but the descriptor, and in every byte of memory? Says what differs. */
bool test_snapshot_equal(const struct husk_sandbox_snapshot *a, const struct husk_sandbox_snapshot *b);

#endif
