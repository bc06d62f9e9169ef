/* SPDX-License-Identifier: Apache-2.0 */
/* loop.c - the event loop */
#include "base/loop.h"

#include "base/cleanup.h"

#include <sys/timerfd.h>
#include <time.h>

int loop_init(struct loop *loop, struct husk_error *err)
{
	*loop = (struct loop){.epoll = epoll_create1(EPOLL_CLOEXEC)};
	return loop->epoll < 0 ? error_errno(err, "make an epoll descriptor") : 0;
}

void loop_destroy(struct loop *loop)
{
	if (loop->epoll >= 0)
		close(loop->epoll);
	loop->epoll = -1;
}

int loop_add(struct loop *loop, struct loop_watch *watch, int fd, uint32_t events, loop_fn *fn, struct husk_error *err)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};
	*watch = (struct loop_watch){.fd = fd, .events = events, .fn = fn};
	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) == 0) {
		watch->added = true;
		return 0;
	}
	if (errno != EPERM)
		return error_errno(err, "watch descriptor %d", fd);
	watch->always = watch->added = true;
	watch->next_always = loop->always;
	loop->always = watch;
	return 0;
}

void loop_modify(struct loop *loop, struct loop_watch *watch, uint32_t events)
{
	if (watch->events == events)
		return;
	watch->events = events;
	if (!watch->always) {
		struct epoll_event event = {.events = events, .data.ptr = watch};
		epoll_ctl(loop->epoll, EPOLL_CTL_MOD, watch->fd, &event);
	}
}

void loop_remove(struct loop *loop, struct loop_watch *watch)
{
	if (!watch->added)
		return;
	if (watch->always) {
		struct loop_watch **at = &loop->always;
		while (*at != watch)
			at = &(*at)->next_always;
		*at = watch->next_always;
	} else {
		epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
		for (int i = loop->at_event + 1; i < loop->n_events; i++)
			if (loop->events[i].data.ptr == watch)
				loop->events[i].data.ptr = NULL;
	}
	loop->removals++;
	watch->added = watch->always = false;
	watch->events = 0;
}

/** Deliver to the regular files that ask for something; true when there was one. A handler may change the list, so the
 *  walk starts anew after each delivery and goes on behind those that were served, which stand in @served order. */
static bool deliver_always(struct loop *loop)
{
	bool any = false;
	for (struct loop_watch *watch = loop->always, *next; watch; watch = next) {
		next = watch->next_always;
		uint32_t ready = watch->events & (EPOLLIN | EPOLLOUT);
		if (!ready)
			continue;
		any = true;
		watch->fn(watch, ready);
		/* The handler may have removed `next`: it is only followed while it is still in the list. */
		struct loop_watch *at = loop->always;
		while (at && at != next)
			at = at->next_always;
		next = at;
	}
	return any;
}

/** epoll_wait() without the lock. Events that were fetched before another thread removed a watch may be that watch's: they
 *  are dropped, and come again in the next round, since all are level-triggered. */
static int wait_unlocked(struct loop *loop, int timeout_ms)
{
	if (!loop->lock)
		return epoll_wait(loop->epoll, loop->events, LOOP_EVENTS, timeout_ms);
	unsigned removals = loop->removals;
	pthread_mutex_unlock(loop->lock);
	int n = epoll_wait(loop->epoll, loop->events, LOOP_EVENTS, timeout_ms);
	int saved = errno;
	pthread_mutex_lock(loop->lock);
	errno = saved;
	return removals == loop->removals ? n : 0;
}

int loop_round(struct loop *loop, int timeout_ms, struct husk_error *err)
{
	if (loop->always && deliver_always(loop))
		timeout_ms = 0;
	if (loop->stopped)
		return 0;
	int n = wait_unlocked(loop, timeout_ms);
	if (n < 0)
		return errno == EINTR ? 0 : error_errno(err, "wait for events");
	loop->n_events = n;
	for (loop->at_event = 0; loop->at_event < loop->n_events; loop->at_event++) {
		struct epoll_event *event = &loop->events[loop->at_event];
		struct loop_watch *watch = event->data.ptr;
		if (watch)
			watch->fn(watch, event->events);
	}
	loop->n_events = loop->at_event = 0;
	return 0;
}

int loop_run(struct loop *loop, struct husk_error *err)
{
	int rc = 0;

	if (loop->lock)
		pthread_mutex_lock(loop->lock);
	while (!loop->stopped && rc == 0)
		rc = loop_round(loop, -1, err);
	if (loop->lock)
		pthread_mutex_unlock(loop->lock);
	return rc;
}

int loop_timer_open(struct loop *loop, struct loop_watch *watch, loop_fn *fn, struct husk_error *err)
{
	CLEANUP_FD int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (fd < 0)
		return error_errno(err, "make a timer");
	int rc = loop_add(loop, watch, fd, EPOLLIN, fn, err);
	if (rc == 0)
		steal_fd(&fd);
	return rc;
}

void loop_timer_set(struct loop_watch *watch, uint64_t ms)
{
	struct itimerspec when = {.it_value = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000}};
	timerfd_settime(watch->fd, 0, &when, NULL);
}

uint64_t loop_timer_left(const struct loop_watch *watch)
{
	struct itimerspec left;

	if (timerfd_gettime(watch->fd, &left) < 0)
		return 0;
	return (uint64_t)left.it_value.tv_sec * 1000000000 + (uint64_t)left.it_value.tv_nsec;
}

void loop_timer_close(struct loop *loop, struct loop_watch *watch)
{
	if (!watch->added)
		return;
	int fd = watch->fd;
	loop_remove(loop, watch);
	close(fd);
}

uint64_t clock_monotonic_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
