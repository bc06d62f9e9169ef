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
	loop_timer_set(&timer.watch, 0);
	loop_round(loop, 0, &err);
	CHECK(timer.events == 1, "a disarmed timer is silent");
	loop_timer_close(loop, &timer.watch);
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
	loop_destroy(&loop);
	return tap_done();
}
