/* SPDX-License-Identifier: Apache-2.0 */
/*
 * feed.c - what is typed, on its way to a guest
 *
 * Theory of operation: bytes are read as long as there is room for them, whether or not the other side takes any, so that the
 * detach keys are found while a guest reads nothing. Full, it waits for the other side. An end of the input is handed on by
 * closing, an end of the other side ends the reading.
 */
#include "cli/feed.h"

#include "base/error.h"
#include "base/fd.h"

#include <fcntl.h>
#include <string.h>

void feed_init(struct feed *feed, int from, int to)
{
	feed->from = from;
	feed->to = to;
	feed->n = 0;
	fcntl(to, F_SETFL, fcntl(to, F_GETFL) | O_NONBLOCK);
}

void feed_close(struct feed *feed)
{
	if (feed->to >= 0)
		close(feed->to);
	feed->to = feed->from = -1;
}

void feed_poll(const struct feed *feed, struct pollfd fds[2])
{
	fds[0] = (struct pollfd){.fd = feed->n < FEED_ROOM ? feed->from : -1, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = feed->to, .events = feed->n ? POLLOUT : 0};
}

static void take_in(struct feed *feed)
{
	unsigned char typed[4096];
	size_t room = FEED_ROOM - feed->n;
	ssize_t n = read(feed->from, typed, room < sizeof(typed) ? room : sizeof(typed));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n > 0) {
		feed->n += detach_keys_filter(&feed->keys, typed, (size_t)n, feed->bytes + feed->n, &feed->detached);
		return;
	}
	feed->n += detach_keys_end(&feed->keys, feed->bytes + feed->n); /* the end, or a terminal that has gone */
	feed->from = -1;
}

static void hand_on(struct feed *feed)
{
	ssize_t n = write(feed->to, feed->bytes, feed->n);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		feed_close(feed); /* nobody reads it any more */
	if (n <= 0)
		return;
	feed->n -= (size_t)n;
	memmove(feed->bytes, feed->bytes + n, feed->n);
}

void feed_move(struct feed *feed, const struct pollfd fds[2])
{
	if (fds[0].fd >= 0 && fds[0].revents)
		take_in(feed);
	if (fds[1].fd >= 0 && (fds[1].revents & (POLLERR | POLLHUP | POLLNVAL)) && !(fds[1].revents & POLLOUT))
		feed_close(feed);
	if (feed->to >= 0 && feed->n)
		hand_on(feed);
	if (feed->from < 0 && feed->to >= 0 && !feed->n)
		feed_close(feed);
}
