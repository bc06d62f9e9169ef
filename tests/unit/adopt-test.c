/* SPDX-License-Identifier: Apache-2.0 */
/* adopt-test.c - structs of callers that were built with an older or a newer husk.h */
#include "base/adopt.h"

#include "base/cleanup.h"
#include "tests/tap.h"

#include <stddef.h>

static struct husk_error err;

/** struct husk_door of a later header. */
struct later_door {
	struct husk_door known;
	uint64_t beyond;
};

/** And of an earlier one, which ended before ALPN. */
struct earlier_door {
	_Alignas(8) char bytes[offsetof(struct husk_door, alpn)];
};

static void test_struct(void)
{
	struct husk_door mine = {.size = sizeof(mine), .alpn = "h2"};
	struct earlier_door earlier = {0};
	*(size_t *)earlier.bytes = sizeof(earlier.bytes);
	CHECK(adopt_struct(&mine, sizeof(mine), &earlier, "a door", &err) == 0 && mine.alpn &&
			mine.size == sizeof(mine),
		"members that the caller does not know keep their defaults");
	earlier = (struct earlier_door){0};
	CHECK(adopt_struct(&mine, sizeof(mine), &earlier, "a door", &err) == -EINVAL, "a struct without a size");
}

static void test_doors(void)
{
	struct later_door later[2] = {{.known = {.size = sizeof(struct later_door), .port = 80}},
		{.known = {.size = sizeof(struct later_door), .port = 81}}};
	struct earlier_door earlier[2] = {0};
	struct husk_door *got = NULL;
	CHECK(adopt_list(NULL, 0, sizeof(*got), "struct husk_door", (void **)&got, &err) == 0, "no doors");
	free(steal_pointer(&got));
	CHECK(adopt_list(NULL, 1, sizeof(*got), "struct husk_door", (void **)&got, &err) == -EINVAL, "one, and none is there");
	CHECK(adopt_list(&later[0].known, 2, sizeof(*got), "struct husk_door", (void **)&got, &err) == 0 && got[0].port == 80 && got[1].port == 81 &&
			got[1].size == sizeof(*got),
		"an array of a later header is read by its own size");
	free(steal_pointer(&got));
	later[1].beyond = 1;
	CHECK(adopt_list(&later[0].known, 2, sizeof(*got), "struct husk_door", (void **)&got, &err) == -E2BIG, "unless it uses what we do not know");
	later[1].beyond = 0;
	later[1].known.size = sizeof(struct husk_door);
	CHECK(adopt_list(&later[0].known, 2, sizeof(*got), "struct husk_door", (void **)&got, &err) == -EINVAL, "elements of different sizes are refused");
	for (int i = 0; i < 2; i++) {
		*(size_t *)earlier[i].bytes = sizeof(earlier[i]);
		*(uint16_t *)(earlier[i].bytes + offsetof(struct husk_door, port)) = (uint16_t)(90 + i);
	}
	CHECK(adopt_list((const struct husk_door *)earlier, 2, sizeof(*got), "struct husk_door", (void **)&got, &err) == 0 && got[0].port == 90 &&
			got[1].port == 91 && !got[1].alpn,
		"an array of an earlier one, too");
	free(steal_pointer(&got));
}

int main(void)
{
	test_struct();
	test_doors();
	return tap_done();
}
