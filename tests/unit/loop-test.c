/* SPDX-License-Identifier: Apache-2.0 */
/* loop-test.c - the event loop delivers, and survives handlers that remove each other */
#include "base/cleanup.h"
#include "base/loop.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <sys/eventfd.h>

struct counter {
	struct loop_watch watch;
	struct loop *loop;
	struct counter *victim; /* removed and poisoned on the first event */
	int events;
};

static void count(struct loop_watch *watch, uint32_t events)
{
	struct counter *c = CONTAINER_OF(watch, struct counter, watch);
	c->events++;
	if (c->victim) {
		loop_remove(c->loop, &c->victim->watch);
		c->victim->watch.fn = NULL; /* a late delivery would crash */
		c->victim = NULL;
	}
}

static void test_removal(struct loop *loop)
{
	struct husk_error err;
	struct counter a = {.loop = loop}, b = {.loop = loop};
	CLEANUP_FD int fd_a = eventfd(1, EFD_CLOEXEC);
	CLEANUP_FD int fd_b = eventfd(1, EFD_CLOEXEC);
	loop_add(loop, &a.watch, fd_a, EPOLLIN, count, &err);
	loop_add(loop, &b.watch, fd_b, EPOLLIN, count, &err);
	a.victim = &b;
	b.victim = &a;
	loop_round(loop, 1000, &err);
	CHECK(a.events + b.events == 1, "a watch that another handler removed in the same round is not called");
	loop_remove(loop, &a.watch);
	loop_remove(loop, &b.watch);
	loop_remove(loop, &b.watch);
	CHECK(loop_round(loop, 0, &err) == 0, "an empty loop has nothing to deliver");
}

static void test_regular_file(struct loop *loop)
{
	struct husk_error err;
	struct counter file = {.loop = loop};
	CLEANUP_FD int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	CHECK(loop_add(loop, &file.watch, fd, EPOLLIN, count, &err) == 0, "a regular file can be watched");
	loop_round(loop, 60000, &err);
	loop_round(loop, 60000, &err);
	CHECK(file.events == 2, "it is ready in every round");
	loop_modify(loop, &file.watch, 0);
	loop_round(loop, 0, &err);
	CHECK(file.events == 2, "but not when nothing is asked of it");
	loop_remove(loop, &file.watch);
}

static void test_timer(struct loop *loop)
{
	struct husk_error err;
	struct counter timer = {.loop = loop};
	loop_timer_open(loop, &timer.watch, count, &err);
	loop_timer_set(&timer.watch, 5);
	uint64_t start = clock_monotonic_ns();
	loop_round(loop, 10000, &err);
	CHECK(timer.events == 1 && clock_monotonic_ns() - start >= 5000000, "a timer fires, and not early");
	CHECK(loop_timer_left(&timer.watch) == 0, "it has nothing left then");
	loop_timer_set(&timer.watch, 60000);
	uint64_t left = loop_timer_left(&timer.watch);
	CHECK(left > 50000000000 && left <= 60000000000, "one that is set says what it has left");
	loop_timer_set(&timer.watch, 0);
	CHECK(loop_timer_left(&timer.watch) == 0, "a disarmed one has nothing");
	loop_round(loop, 0, &err);
	CHECK(timer.events == 1, "a disarmed timer is silent");
	loop_timer_close(loop, &timer.watch);
}

/** A watch that another thread takes away and puts back, and what the loop saw of it. */
struct contested {
	struct loop_watch watch;
	struct loop *loop;
	int fd;
	bool wanted; /* under the loop's lock */
	unsigned late, seen;
};

static void on_contested(struct loop_watch *watch, uint32_t events)
{
	struct contested *c = CONTAINER_OF(watch, struct contested, watch);
	(void)events;
	c->seen++;
	c->late += !c->wanted;
}

#define CONTESTS 20000

static void *contest(void *data)
{
	struct contested *c = data;
	for (int i = 0; i < CONTESTS; i++) {
		pthread_mutex_lock(c->loop->lock);
		if (c->wanted)
			loop_remove(c->loop, &c->watch);
		else
			loop_add(c->loop, &c->watch, c->fd, EPOLLIN, on_contested, NULL);
		c->wanted = !c->wanted;
		if (i == CONTESTS - 1)
			loop_stop(c->loop);
		pthread_mutex_unlock(c->loop->lock);
	}
	return NULL;
}

/** A loop with a lock: no event reaches a watch that another thread has removed. */
static void test_lock(void)
{
	struct loop loop;
	struct husk_error err;
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_t thread;
	int pair[2];
	if (!CHECK(loop_init(&loop, &err) == 0 && pipe(pair) == 0 && write(pair[1], "x", 1) == 1, "a pipe is made"))
		return;
	loop.lock = &lock;
	struct contested c = {.loop = &loop, .fd = pair[0]};
	struct counter wake = {.loop = &loop}; /* so that a round ends when nothing else does it */
	loop_timer_open(&loop, &wake.watch, count, &err);
	loop_timer_set(&wake.watch, 1);
	pthread_create(&thread, NULL, contest, &c);
	CHECK(loop_run(&loop, &err) == 0, "the loop runs beside a thread that shares its watches");
	pthread_join(thread, NULL);
	CHECK(c.late == 0, "no event is delivered to a watch that was removed while the loop waited");
	CHECK(c.seen > 0, "events are delivered between");
	loop_remove(&loop, &c.watch);
	loop_timer_close(&loop, &wake.watch);
	loop_destroy(&loop);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	struct husk_error err;
	struct loop loop;
	if (!CHECK(loop_init(&loop, &err) == 0, "a loop is made"))
		return tap_done();
	test_removal(&loop);
	test_regular_file(&loop);
	test_timer(&loop);
	test_lock();
	loop_destroy(&loop);
	return tap_done();
}
