/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torn.h - does a reader ever see half of a value? For host threads and, freestanding, for guests
 *
 * Theory of operation: all eight bytes of every value that is written are the same, and change with each update, so that a value
 * of which a part is older or newer shows. The reader polls until it sees TORN_END, which is not torn. The writer goes through
 * a function, so that what is tested can be the library's store or one that is known to be wrong, by which the test proves
 * that it can see.
 */
#ifndef TESTS_SANDBOX_TORN_H
#define TESTS_SANDBOX_TORN_H

#include <stdbool.h>
#include <stdint.h>

#define TORN_END UINT64_MAX
#define TORN_UPDATES 1000000u

/** Put @value into the word that @data is about. */
typedef void torn_store(void *data, uint64_t value);

/** What a reader has seen so far; anybody may look while it reads. */
struct torn_seen {
	uint64_t polls, changes, torn;
};

/** Value number @i: never TORN_END. */
static inline uint64_t torn_value(uint64_t i)
{
	return i % 255 * 0x0101010101010101;
}

static inline bool torn_is_torn(uint64_t value)
{
	return value != (value & 0xff) * 0x0101010101010101;
}

/** Write @n values from number @first on. */
static inline void torn_write(torn_store *store, void *data, uint64_t first, uint64_t n)
{
	for (uint64_t i = first; i < first + n; i++)
		store(data, torn_value(i));
}

static inline uint64_t torn_look(const uint64_t *count)
{
	return __atomic_load_n(count, __ATOMIC_RELAXED);
}

static inline void torn_count(uint64_t *count, bool more)
{
	if (more)
		__atomic_store_n(count, torn_look(count) + 1, __ATOMIC_RELAXED);
}

/** Poll @word until its end comes. */
static inline void torn_poll(const uint64_t *word, struct torn_seen *seen)
{
	uint64_t last = 0, value;

	do {
		value = __atomic_load_n(word, __ATOMIC_ACQUIRE);
		torn_count(&seen->torn, torn_is_torn(value));
		torn_count(&seen->changes, value != last);
		torn_count(&seen->polls, true);
		last = value;
	} while (value != TORN_END);
}

/** The store that is known to be wrong: @data is the word, which is written byte by byte. */
static inline void torn_store_bytewise(void *data, uint64_t value)
{
	volatile uint8_t *bytes = data;

	for (unsigned i = 0; i < sizeof(value); i++)
		bytes[i] = (uint8_t)(value >> 8 * i);
}

#endif
