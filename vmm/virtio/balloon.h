/* SPDX-License-Identifier: Apache-2.0 */
/*
 * balloon.h - virtio-balloon (virtio 1.2 §5.5): memory that the guest gives back
 *
 * Theory of operation: the host says how much it wants (balloon_set_target()), the guest puts pages into the balloon and names
 * them on the inflate queue, and the host's memory behind them is given back (memory_discard()). Deflating costs the host
 * nothing, a page comes back when it is touched, so the guest may take pages out without asking (MUST_TELL_HOST is not
 * offered) and does when it runs out of memory (DEFLATE_ON_OOM). Besides, the guest reports free ranges by itself
 * (REPORTING), whose memory is given back at once.
 *
 * What a guest names is its own: memory_discard() refuses everything else, and such pages are passed over and counted. A
 * guest that gives away its rings or its kernel finds zeroes there and breaks itself.
 *
 * The guest's statistics (§5.5.6.3) come when they are asked for: the guest's one buffer waits in the queue until then.
 */
#ifndef VMM_VIRTIO_BALLOON_H
#define VMM_VIRTIO_BALLOON_H

#include "vmm/virtio/device.h"

#include <linux/virtio_balloon.h>

struct balloon;

/** What the guest said last; value[VIRTIO_BALLOON_S_*], those in `known` only. Sizes are in bytes, the rest are counts. All of
 *  it is what the guest says. */
struct balloon_stats {
	uint64_t taken_ns; /* CLOCK_MONOTONIC; 0: never */
	uint32_t known; /* 1 << VIRTIO_BALLOON_S_* */
	uint64_t value[VIRTIO_BALLOON_S_NR];
};

/** How much memory went back to the host, ever. */
struct balloon_counts {
	uint64_t inflated, reported; /* bytes */
	uint64_t refused; /* pages or ranges that are no guest memory, or could not be given back */
};

/** Make the device over @memory, which must outlive it. */
int balloon_create(struct memory *memory, struct balloon **out, struct husk_error *err);
void balloon_destroy(struct balloon *balloon);
/** The device's face to a transport. */
struct virtio_device *balloon_device(struct balloon *balloon);

/** Ask the guest for @bytes of its memory, in all; at most what it has is asked for, in pages of 4 KiB. */
void balloon_set_target(struct balloon *balloon, uint64_t bytes);
uint64_t balloon_target(const struct balloon *balloon);
/** Bytes in the balloon, as the guest says; at most its memory. */
uint64_t balloon_actual(const struct balloon *balloon);
/** Ask for new statistics: 0, -EAGAIN while the guest has not answered the last time, -ENOTSUP without a driver that knows. */
int balloon_ask_stats(struct balloon *balloon);
const struct balloon_stats *balloon_stats(const struct balloon *balloon);
struct balloon_counts balloon_counts(const struct balloon *balloon);

#endif
