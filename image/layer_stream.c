/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_stream.c - the bytes of one layer: read, digested, inflated, digested again
 *
 * Theory of operation: a thread reads the source in pieces, adds them to the first digest, inflates them into a ring of
 * buffers and adds those to the second digest (the diff ID). The consumer takes the buffers in order; a full ring makes
 * the thread wait, so memory is the ring and nothing else. Digests run over everything: what follows the tar's end mark
 * is part of both, so layer_stream_finish() drains the source to its end before it compares.
 *
 * The thread owns all members but the ring's counters, `stop` and `bytes`, which the lock guards, and writes result
 * members (error, digests, sizes) before it sets `ended`. A source that stands still is waited for in poll() together
 * with an eventfd, so that closing never hangs.
 */
#include "image/layer_stream.h"

#include "base/cleanup.h"
#include "image/layer_inflate.h"

#include <openssl/evp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#define PIECE (256 << 10) /* of input, and of output */
#define RING 6

struct layer_stream {
	const struct layer_source *source;
	const struct layer_options *options;
	int wake; /* eventfd: stop waiting for input */
	bool started;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;

	uint8_t *input;
	uint8_t *ring[RING];
	size_t fill[RING];
	unsigned produced, consumed; /* counters of buffers; equal: empty */
	bool held; /* the consumer reads from buffer `consumed` */
	bool ended, stop;
	uint64_t bytes; /* as read */
	uint64_t reported;

	struct layer_inflate *inflate;
	EVP_MD_CTX *digest, *diff_id;
	struct husk_error error;
};

/* Called by the thread: the buffer to fill, or NULL when the consumer has gone. */
static uint8_t *ring_next(struct layer_stream *s)
{
	pthread_mutex_lock(&s->lock);
	while (!s->stop && s->produced - s->consumed == RING)
		pthread_cond_wait(&s->changed, &s->lock);
	uint8_t *buffer = s->stop ? NULL : s->ring[s->produced % RING];
	pthread_mutex_unlock(&s->lock);
	return buffer;
}

static void ring_publish(struct layer_stream *s, size_t n)
{
	EVP_DigestUpdate(s->diff_id, s->ring[s->produced % RING], n);
	pthread_mutex_lock(&s->lock);
	s->fill[s->produced % RING] = n;
	s->produced++;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

/* Bytes, 0 at the end or when told to stop, -errno. */
static ssize_t read_some(struct layer_stream *s, uint8_t *buffer, size_t size)
{
	struct pollfd fds[2] = {{.fd = s->source->fd, .events = POLLIN}, {.fd = s->wake, .events = POLLIN}};
	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return -errno;
		if (fds[1].revents)
			return 0;
		ssize_t n = read(s->source->fd, buffer, size);
		if (n >= 0)
			return n;
		if (errno != EINTR && errno != EAGAIN)
			return -errno;
	}
}

/* Read until @least bytes of input or its end are there. Bytes, or -errno with the error set. */
static ssize_t read_input(struct layer_stream *s, size_t least)
{
	size_t have = 0;
	while (have < least) {
		ssize_t n = read_some(s, s->input + have, PIECE - have);
		if (n < 0)
			return error_set(&s->error, (int)n, "read: %s", strerror((int)-n));
		if (n == 0)
			break;
		have += (size_t)n;
	}
	EVP_DigestUpdate(s->digest, s->input, have);
	pthread_mutex_lock(&s->lock);
	s->bytes += have;
	uint64_t bytes = s->bytes;
	pthread_mutex_unlock(&s->lock);
	if (s->source->size && bytes > s->source->size)
		return error_set(&s->error, -EINVAL, "is longer than the %llu bytes it should have",
			(unsigned long long)s->source->size);
	return (ssize_t)have;
}

/* Everything from the source into the ring. 0 also when told to stop; -errno with the error set. */
static int pump(struct layer_stream *s)
{
	ssize_t n = read_input(s, LAYER_SNIFF);
	if (n < 0)
		return (int)n;
	int r = layer_inflate_open(s->input, (size_t)n, &s->inflate, &s->error);
	if (r < 0)
		return r;
	struct layer_span span = {.in = s->input, .in_size = (size_t)n};
	span.out = ring_next(s);
	span.out_size = PIECE;
	while (span.out) {
		size_t before = span.out_size;
		r = layer_inflate_step(s->inflate, &span, &s->error);
		if (r < 0)
			return r;
		bool moved = span.out_size != before;
		if (span.out_size == 0) {
			ring_publish(s, PIECE);
			span.out = ring_next(s);
			span.out_size = PIECE;
			continue;
		}
		if (span.in_size > 0 || moved)
			continue;
		n = read_input(s, 1);
		if (n < 0)
			return (int)n;
		if (n == 0)
			break;
		span.in = s->input;
		span.in_size = (size_t)n;
	}
	if (!span.out)
		return 0;
	if (span.out_size < PIECE)
		ring_publish(s, PIECE - span.out_size);
	return layer_inflate_end(s->inflate, &s->error);
}

static void *stream_thread(void *data)
{
	struct layer_stream *s = data;
	int r = pump(s);
	pthread_mutex_lock(&s->lock);
	s->error.code = r;
	s->ended = true;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static bool stream_allocate(struct layer_stream *s)
{
	s->input = malloc(PIECE);
	bool ok = s->input != NULL;
	for (size_t i = 0; i < RING; i++) {
		s->ring[i] = malloc(PIECE);
		ok = ok && s->ring[i];
	}
	s->digest = EVP_MD_CTX_new();
	s->diff_id = EVP_MD_CTX_new();
	return ok && s->digest && s->diff_id && EVP_DigestInit_ex(s->digest, EVP_sha256(), NULL) &&
	       EVP_DigestInit_ex(s->diff_id, EVP_sha256(), NULL);
}

int layer_stream_open(const struct layer_source *source, const struct layer_options *options, struct layer_stream **out,
	struct husk_error *err)
{
	struct layer_stream *s = calloc(1, sizeof(*s));
	if (!s)
		return error_set(err, -ENOMEM, "layer %s: out of memory", source->name);
	s->source = source;
	s->options = options;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	s->wake = eventfd(0, EFD_CLOEXEC);
	int r = 0;
	if (s->wake < 0)
		r = error_errno(err, "layer %s: eventfd", source->name);
	else if (!stream_allocate(s))
		r = error_set(err, -ENOMEM, "layer %s: out of memory", source->name);
	else if ((errno = pthread_create(&s->thread, NULL, stream_thread, s)))
		r = error_errno(err, "layer %s: start a thread", source->name);
	if (r < 0) {
		layer_stream_close(s);
		return r;
	}
	s->started = true;
	*out = s;
	return 0;
}

static void report_progress(struct layer_stream *s, uint64_t bytes)
{
	if (s->options && s->options->progress && bytes != s->reported)
		s->options->progress(s->options->progress_data, bytes);
	s->reported = bytes;
}

int layer_stream_read(struct layer_stream *s, const void **bytes, size_t *size, struct husk_error *err)
{
	pthread_mutex_lock(&s->lock);
	if (s->held) {
		s->held = false;
		s->consumed++;
		pthread_cond_signal(&s->changed);
	}
	while (!s->ended && s->produced == s->consumed)
		pthread_cond_wait(&s->changed, &s->lock);
	bool some = s->produced != s->consumed;
	if (some)
		s->held = true;
	uint64_t at = s->bytes;
	pthread_mutex_unlock(&s->lock);
	report_progress(s, at);
	*bytes = some ? s->ring[s->consumed % RING] : NULL;
	*size = some ? s->fill[s->consumed % RING] : 0;
	if (!some && s->error.code < 0)
		return error_set(err, s->error.code, "layer %s: %s", s->source->name, s->error.message);
	return 0;
}

static void digest_text(EVP_MD_CTX *ctx, char text[DIGEST_MAX])
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	EVP_DigestFinal_ex(ctx, hash, &n);
	char *at = text + sprintf(text, "sha256:");
	for (unsigned i = 0; i < 32; i++)
		at += sprintf(at, "%02x", hash[i]);
}

int layer_stream_finish(struct layer_stream *s, struct layer_result *result, struct husk_error *err)
{
	const struct layer_source *source = s->source;
	const void *bytes;
	size_t size;
	do {
		int r = layer_stream_read(s, &bytes, &size, err);
		if (r < 0)
			return r;
	} while (size > 0);
	if (source->size && s->bytes != source->size)
		return error_set(err, -EINVAL, "layer %s: %llu bytes came where %llu were expected", source->name,
			(unsigned long long)s->bytes, (unsigned long long)source->size);
	digest_text(s->digest, result->digest);
	digest_text(s->diff_id, result->diff_id);
	if (source->digest && strcmp(source->digest, result->digest) != 0)
		return error_set(err, -EBADMSG, "layer %s: wrong digest: expected %s, got %s", source->name,
			source->digest, result->digest);
	if (source->diff_id && strcmp(source->diff_id, result->diff_id) != 0)
		return error_set(err, -EBADMSG, "layer %s: wrong diff ID: expected %s, got %s", source->name,
			source->diff_id, result->diff_id);
	return 0;
}

void layer_stream_close(struct layer_stream *s)
{
	if (!s)
		return;
	if (s->started) {
		pthread_mutex_lock(&s->lock);
		s->stop = true;
		pthread_cond_broadcast(&s->changed);
		pthread_mutex_unlock(&s->lock);
		eventfd_write(s->wake, 1);
		pthread_join(s->thread, NULL);
	}
	if (s->wake >= 0)
		close(s->wake);
	layer_inflate_close(s->inflate);
	EVP_MD_CTX_free(s->digest);
	EVP_MD_CTX_free(s->diff_id);
	free(s->input);
	for (size_t i = 0; i < RING; i++)
		free(s->ring[i]);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	free(s);
}
