/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - the event loop: epoll, one thread, level-triggered
 *
 * A watch is embedded in its owner's struct and never allocated here. A handler may remove any watch, its own included,
 * and free its memory: events of a round that were not yet delivered to it are dropped.
 *
 * A process with further threads that touch what its handlers touch gives the loop a lock (loop->lock): it is held while
 * events are delivered, and not while the loop waits for them. Whoever holds it may add, change and remove watches.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include "base/error.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#define LOOP_EVENTS 64 /* per round */

struct loop_watch;

/** Called with the EPOLL* bits that are true now. */
typedef void loop_fn(struct loop_watch *watch, uint32_t events);

/** One descriptor of interest; the owner keeps the descriptor open while it is added. */
struct loop_watch {
	int fd;
	uint32_t events; /* asked for; 0 while not added */
	loop_fn *fn;
	bool added;
	bool always; /* a regular file: epoll does not take it, it is ready in every round */
	struct loop_watch *next_always;
};

struct loop {
	int epoll;
	bool stopped;
	int n_events, at_event; /* the round under way */
	struct epoll_event events[LOOP_EVENTS];
	struct loop_watch *always;
	pthread_mutex_t *lock;
	unsigned removals; /* while the loop waits unlocked, any makes the events it brings back void */
};

int loop_init(struct loop *loop, struct husk_error *err);
void loop_destroy(struct loop *loop);

/** Watch @fd for @events (may be 0: errors and hang-up only). */
int loop_add(struct loop *loop, struct loop_watch *watch, int fd, uint32_t events, loop_fn *fn, struct husk_error *err);
/** Ask for other events. Cheap when they are the same. The watch must have been added. */
void loop_modify(struct loop *loop, struct loop_watch *watch, uint32_t events);
/** Stop watching; fine when not added. Call it before the descriptor is closed. */
void loop_remove(struct loop *loop, struct loop_watch *watch);

/** Run rounds until loop_stop(). */
int loop_run(struct loop *loop, struct husk_error *err);
/** One round: wait at most @timeout_ms (-1: forever) and deliver. */
int loop_round(struct loop *loop, int timeout_ms, struct husk_error *err);
static inline void loop_stop(struct loop *loop)
{
	loop->stopped = true;
}

/** A monotonic timerfd, watched; the owner removes the watch and closes the descriptor with loop_timer_close(). */
int loop_timer_open(struct loop *loop, struct loop_watch *watch, loop_fn *fn, struct husk_error *err);
/** Fire once in @ms milliseconds; 0 disarms. */
void loop_timer_set(struct loop_watch *watch, uint64_t ms);
/** Nanoseconds until it fires; 0: it is not set. */
uint64_t loop_timer_left(const struct loop_watch *watch);
void loop_timer_close(struct loop *loop, struct loop_watch *watch);

/** CLOCK_MONOTONIC in nanoseconds. */
uint64_t clock_monotonic_ns(void);
/** The same in milliseconds, which deadlines are kept in. */
static inline uint64_t clock_monotonic_ms(void)
{
	return clock_monotonic_ns() / 1000000;
}

/** The struct of type @type that holds @watch as its member @member. */
#define CONTAINER_OF(pointer, type, member) ((type *)((char *)(pointer) - __builtin_offsetof(type, member)))

#endif
