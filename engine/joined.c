/* SPDX-License-Identifier: Apache-2.0 */
/* joined.c - a program that is run in a VM beside its main workload (theory of operation: joined.h) */
#include "engine/joined.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/loop.h"
#include "engine/reach.h"
#include "engine/streams.h"
#include "vmm/agent_client.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>

enum phase {
	JOINED_STARTING, /* until the agent has said STARTED */
	JOINED_RUNNING,
	JOINED_DELIVERING, /* it has ended; a relay still has output of its */
	JOINED_OVER,
};

/** What a stream's output is collected in. */
struct collected {
	struct buffer bytes;
	bool over; /* more came than may be kept */
};

struct husk_exec {
	const struct husk *husk;
	char id[16];
	/* the thread's own, from its start to its end */
	struct loop loop;
	struct loop_watch wake_watch, delivered_watch;
	struct agent_client *client;
	struct stdio io;
	enum phase phase;
	uint64_t deadline_ns; /* CLOCK_MONOTONIC; 0: none */
	uint64_t start_timeout_ms, timeout_ms;
	bool detach, left; /* left: LEAVE is said, and all output is swallowed */
	husk_output_fn *output;
	void *output_data;
	size_t limit; /* of what is collected of a stream; 0: not collected */
	/* the mailbox */
	pthread_t thread;
	int wake; /* eventfd: look into it */
	int done; /* eventfd: readable from the end on */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t signals; /* bit number - 1 */
	uint32_t size; /* rows << 16 | columns; 0: none */
	bool closing, leaving;
	bool started, over; /* told to who waits */
	/* written before `over` */
	struct husk_error error; /* code 0: there is an outcome */
	struct husk_exec_outcome outcome;
	struct collected collected[2];
};

/* ---- the thread: what the agent says ---- */

/** The end, by an error. The first one counts, and an outcome before it does. */
__attribute__((format(printf, 3, 4))) static void fail(struct husk_exec *e, int code, const char *format, ...)
{
	char text[HUSK_ERROR_MESSAGE_MAX];
	va_list args;
	if (e->phase >= JOINED_DELIVERING)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	error_set(&e->error, code, "%s", text);
	e->phase = JOINED_OVER;
}

static void tell_started(struct husk_exec *e)
{
	pthread_mutex_lock(&e->lock);
	e->started = true;
	pthread_cond_broadcast(&e->changed);
	pthread_mutex_unlock(&e->lock);
}

static void on_started(void *data)
{
	struct husk_exec *e = data;
	e->phase = e->detach ? JOINED_OVER : JOINED_RUNNING;
	e->deadline_ns = 0;
	if (e->timeout_ms && e->timeout_ms < UINT64_MAX / 2000000)
		e->deadline_ns = clock_monotonic_ns() + (e->timeout_ms + JOINED_GRACE_MS) * 1000000;
	tell_started(e);
}

static void on_output(void *data, int stream, const void *bytes, size_t n)
{
	struct husk_exec *e = data;
	struct collected *c = &e->collected[stream - 1];
	if (e->left) {
		return;
	} else if (e->output && e->phase == JOINED_RUNNING) {
		e->output(e->output_data, stream == 1 ? HUSK_STDOUT : HUSK_STDERR, bytes, n);
	} else if (e->limit && !c->over) {
		c->over = n > e->limit - c->bytes.size;
		if (c->over || buffer_append(&c->bytes, bytes, n) < 0)
			fail(e, c->over ? -EMSGSIZE : -ENOMEM,
				c->over ? "the program has more output than the %zu bytes that may be collected of it"
					: "collect the program's output: no memory within %zu bytes",
				e->limit);
	}
}

static void on_draining(void *data)
{
	(void)data;
}

/** A program that could not be started: an outcome where the program is to blame, else an error. */
static void take_refusal(struct husk_exec *e, const struct vm_message *m)
{
	uint32_t code = agent_client_error(e->client);
	bool outcome = code == AGENT_ERROR_NOT_EXECUTABLE || code == AGENT_ERROR_NOT_FOUND ||
		       code == AGENT_ERROR_USER || code == AGENT_ERROR_DIRECTORY || code == AGENT_ERROR_SYSTEM ||
		       code > AGENT_ERROR_ERRNO;
	if (outcome)
		snprintf(e->outcome.reason, sizeof(e->outcome.reason), "%s", m->text);
	else
		reach_refused(e->id, code, m->text, &e->error);
}

static void take_exit(struct husk_exec *e)
{
	const struct agent_exit *exit = agent_client_exit(e->client);
	e->outcome.timed_out = exit->flags & AGENT_EXIT_TIMED_OUT;
	e->outcome.oom = exit->flags & AGENT_EXIT_OOM;
	e->outcome.step = exit->step;
	e->outcome.duration_ns = exit->duration_ns;
	e->outcome.peak_rss = exit->peak_rss;
	if (!e->outcome.timed_out)
		return;
	e->outcome.end = HUSK_END_TIMEOUT;
	snprintf(e->outcome.reason, sizeof(e->outcome.reason),
		"its %llu ms were over: it was killed with its process group", (unsigned long long)e->timeout_ms);
}

static void on_ended(void *data, const struct vm_message *m)
{
	struct husk_exec *e = data;
	bool begun = e->phase != JOINED_STARTING;
	if (e->phase >= JOINED_DELIVERING)
		return;
	if (e->left && m->end == VM_END_GUEST) {
		e->phase = JOINED_OVER;
		return;
	}
	e->outcome.end = (enum husk_end)m->end;
	e->outcome.value = m->value;
	if (m->end == VM_END_EXITED || m->end == VM_END_SIGNALED)
		take_exit(e);
	else if (m->end == VM_END_NOT_STARTED)
		take_refusal(e, m);
	else if (m->end == VM_END_GUEST && !begun)
		reach_lost(e->husk, e->id, &e->error);
	else if (m->end == VM_END_FAILED && (agent_client_broken(e->client) || !begun))
		error_set(&e->error, -EPROTO, "VM %s: %s", e->id, m->text);
	else
		snprintf(e->outcome.reason, sizeof(e->outcome.reason), "%s", m->text);
	e->outcome.exit_code = vm_end_exit_code((uint32_t)e->outcome.end, e->outcome.value);
	e->phase = JOINED_DELIVERING;
	e->deadline_ns = 0;
}

static const struct agent_client_handler handler = {
	.started = on_started,
	.output = on_output,
	.draining = on_draining,
	.ended = on_ended,
};

/* ---- the thread: its loop ---- */

static void on_wake(struct loop_watch *watch, uint32_t events)
{
	struct husk_exec *e = CONTAINER_OF(watch, struct husk_exec, wake_watch);
	uint64_t count;
	(void)events;
	if (read(e->wake, &count, sizeof(count)) < 0)
		return;
	pthread_mutex_lock(&e->lock);
	uint64_t signals = e->signals;
	uint32_t size = e->size;
	bool closing = e->closing, leaving = e->leaving;
	e->signals = 0;
	e->size = 0;
	pthread_mutex_unlock(&e->lock);
	if (closing) {
		fail(e, -ECANCELED, "the program was given up");
		e->phase = JOINED_OVER; /* also where output was still being delivered */
		return;
	}
	if (leaving && !e->left && e->phase == JOINED_RUNNING) {
		e->left = true;
		e->deadline_ns = clock_monotonic_ns() + JOINED_LEAVE_MS * 1000000ull;
		agent_client_leave(e->client);
	}
	for (unsigned i = 0; i < 64; i++)
		if (signals >> i & 1)
			agent_client_signal(e->client, i + 1);
	if (size)
		agent_client_resize(e->client, size >> 16, size & 0xffff);
}

static void on_delivered(struct loop_watch *watch, uint32_t events)
{
	struct husk_exec *e = CONTAINER_OF(watch, struct husk_exec, delivered_watch);
	(void)events;
	if (stdio_delivered(&e->io))
		loop_remove(&e->loop, watch);
}

/** A time limit is the agent's to keep. Where its word cannot come, since our own reader holds the output up before it, the
 *  program has had its end all the same. */
static void deadline(struct husk_exec *e)
{
	if (e->left &&
		agent_client_held_up(e->client)) { /* what our own reader did not take is dropped, as it was to be */
		e->phase = JOINED_OVER;
		return;
	}
	if (e->left)
		return fail(e, -ETIMEDOUT, "the agent of VM %s did not let go of the program within %d ms", e->id,
			JOINED_LEAVE_MS);
	if (e->phase == JOINED_STARTING)
		return fail(e, -ETIMEDOUT, "the agent of VM %s did not start the program within %llu ms", e->id,
			(unsigned long long)e->start_timeout_ms);
	if (!agent_client_held_up(e->client))
		return fail(e, -ETIMEDOUT, "the agent of VM %s did not end the program, whose %llu ms were over", e->id,
			(unsigned long long)e->timeout_ms);
	e->outcome.end = HUSK_END_TIMEOUT;
	e->outcome.timed_out = true;
	e->outcome.exit_code = vm_end_exit_code(VM_END_TIMEOUT, 0);
	snprintf(e->outcome.reason, sizeof(e->outcome.reason), "its %llu ms were over, and nobody read its output",
		(unsigned long long)e->timeout_ms);
	e->phase = JOINED_OVER;
}

static void step(struct husk_exec *e)
{
	struct husk_error err;
	uint64_t now = e->deadline_ns ? clock_monotonic_ns() : 0;
	if (e->deadline_ns && now >= e->deadline_ns)
		return deadline(e);
	uint64_t left = e->deadline_ns ? (e->deadline_ns - now) / 1000000 + 1 : 0;
	int rc = loop_round(&e->loop, !e->deadline_ns ? -1 : left > INT32_MAX ? INT32_MAX : (int)left, &err);
	if (rc < 0)
		fail(e, rc, "%s", err.message);
	if (e->phase == JOINED_DELIVERING && stdio_delivered(&e->io))
		e->phase = JOINED_OVER;
}

static void *run(void *data)
{
	struct husk_exec *e = data;
	uint64_t one = 1;
	while (e->phase != JOINED_OVER)
		step(e);
	agent_client_close(steal_pointer(&e->client)); /* what still runs is killed by its agent */
	stdio_destroy(&e->io);
	pthread_mutex_lock(&e->lock);
	e->over = true;
	ssize_t n = write(e->done, &one, sizeof(one)); /* with the lock: who learns that it is over can wait for it at once */
	(void)n; /* it fails only where the counter overflows */
	pthread_cond_broadcast(&e->changed);
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

/* ---- what callers do ---- */

static void release(struct husk_exec *e)
{
	agent_client_close(e->client);
	stdio_destroy(&e->io);
	if (e->loop.epoll >= 0)
		loop_destroy(&e->loop);
	cleanup_fd(&e->wake);
	cleanup_fd(&e->done);
	for (int i = 0; i < 2; i++)
		buffer_free(&e->collected[i].bytes);
	pthread_mutex_destroy(&e->lock);
	pthread_cond_destroy(&e->changed);
	free(e);
}

static void cleanup_exec(struct husk_exec **e)
{
	if (*e)
		release(*e);
}

static struct husk_exec *make(const struct husk *husk, const char *id, const struct husk_exec_config *config)
{
	struct husk_exec *e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->husk = husk;
	snprintf(e->id, sizeof(e->id), "%s", id);
	e->io = (struct stdio)STDIO_INIT;
	e->loop.epoll = -1;
	e->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	e->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	e->start_timeout_ms = (uint64_t)config->start_timeout_ms;
	e->timeout_ms = config->timeout_ms;
	e->detach = config->detach;
	e->output = config->output;
	e->output_data = config->output_data;
	e->limit = config->collect;
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->changed, NULL);
	return e;
}

/** The client on its connection, with its streams, on the loop. */
static int connect_streams(struct husk_exec *e, int connection, const struct buffer *payload,
	const struct husk_exec_config *config, struct husk_error *err)
{
	const int given[3] = {config->stdin_fd, config->stdout_fd, config->stderr_fd};
	int rc = e->wake < 0 || e->done < 0 ? error_errno(err, "make an event") : loop_init(&e->loop, err);
	rc = rc < 0 ? rc : stdio_prepare(&e->io, given, err);
	rc = rc < 0 ? rc : loop_add(&e->loop, &e->wake_watch, e->wake, EPOLLIN, on_wake, err);
	if (rc < 0) {
		close(connection);
		return rc;
	}
	rc = agent_client_open(
		&e->loop, connection, buffer_bytes(payload), payload->size, e->io.fd, &handler, e, &e->client, err);
	if (rc < 0)
		return rc;
	for (int i = 0; i < 3; i++)
		e->io.fd[i] = -1; /* the client's now */
	if (config->input)
		agent_client_input(e->client, config->input, config->input_size);
	rc = stdio_start(&e->io, err);
	if (rc == 0 && stdio_done_fd(&e->io) >= 0)
		rc = loop_add(&e->loop, &e->delivered_watch, stdio_done_fd(&e->io), EPOLLIN, on_delivered, err);
	return rc;
}

static int start_thread(struct husk_exec *e, struct husk_error *err)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* of this thread, for the new one to inherit */
	int rc = pthread_create(&e->thread, NULL, run, e);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc ? error_set(err, -rc, "start a thread for the program: %s", strerror(rc)) : 0;
}

int joined_start(const struct husk *husk, const char *id, const struct husk_exec_config *config, struct husk_exec **out,
	struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer payload = {0};
	int rc = joined_payload(config, &payload, err);
	if (rc < 0)
		return rc;
	uint64_t deadline_ns = clock_monotonic_ns() + (uint64_t)config->start_timeout_ms * 1000000;
	int connection = reach_agent(husk, id, (uint64_t)config->start_timeout_ms, err);
	if (connection < 0)
		return connection;
	CLEANUP(cleanup_exec) struct husk_exec *e = make(husk, id, config);
	if (!e) {
		close(connection);
		return error_set(err, -ENOMEM, "exec: out of memory");
	}
	e->deadline_ns = deadline_ns;
	rc = connect_streams(e, connection, &payload, config, err);
	rc = rc < 0 ? rc : start_thread(e, err);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&e->lock);
	while (!e->over && (e->detach || !e->started)) /* what is detached is over when it has started */
		pthread_cond_wait(&e->changed, &e->lock);
	bool failed = !e->started && e->error.code;
	pthread_mutex_unlock(&e->lock);
	if (failed) {
		rc = error_set(err, e->error.code, "%s", e->error.message);
		joined_close(steal_pointer(&e));
		return rc;
	}
	*out = steal_pointer(&e);
	return 0;
}

int joined_fd(const struct husk_exec *e)
{
	return e->done;
}

/** Collected output goes to the caller, once. */
static void hand_over(struct husk_exec *e, struct husk_exec_outcome *outcome)
{
	void **bytes[2] = {&outcome->out, &outcome->err};
	size_t *sizes[2] = {&outcome->out_size, &outcome->err_size};
	for (int i = 0; i < 2 && e->limit; i++) {
		struct buffer *b = &e->collected[i].bytes;
		uint8_t *end = buffer_reserve(b, 1);
		if (!end)
			continue; /* as if it had been handed over before */
		*end = 0;
		if (b->start)
			memmove(b->data, buffer_bytes(b), b->size + 1);
		*bytes[i] = b->data;
		*sizes[i] = b->size;
		*b = (struct buffer){0};
	}
	e->limit = 0;
}

int joined_wait(struct husk_exec *e, int64_t timeout_ms, struct husk_exec_outcome *outcome, struct husk_error *err)
{
	uint64_t begun = clock_monotonic_ns();
	for (;;) {
		struct pollfd one = {.fd = e->done, .events = POLLIN};
		int64_t left = timeout_ms < 0 ? -1 : timeout_ms - (int64_t)((clock_monotonic_ns() - begun) / 1000000);
		int n = poll(&one, 1, left < 0 ? (timeout_ms < 0 ? -1 : 0) : left > INT32_MAX ? INT32_MAX : (int)left);
		if (n > 0)
			break;
		if (n < 0 && errno != EINTR)
			return error_errno(err, "wait for a program");
		if (timeout_ms >= 0 && left <= 0)
			return error_set(err, -ETIMEDOUT, "the program still runs");
	}
	pthread_mutex_lock(&e->lock);
	int rc = e->error.code ? error_set(err, e->error.code, "%s", e->error.message) : 0;
	if (rc == 0 && outcome) {
		*outcome = e->outcome;
		hand_over(e, outcome);
	}
	pthread_mutex_unlock(&e->lock);
	return rc;
}

static void wake(struct husk_exec *e)
{
	uint64_t one = 1;
	if (write(e->wake, &one, sizeof(one)) < 0)
		return; /* cannot be: the counter would have to overflow */
}

void joined_signal(struct husk_exec *e, unsigned number)
{
	pthread_mutex_lock(&e->lock);
	e->signals |= 1ull << (number - 1);
	pthread_mutex_unlock(&e->lock);
	wake(e);
}

void joined_resize(struct husk_exec *e, uint16_t rows, uint16_t columns)
{
	pthread_mutex_lock(&e->lock);
	e->size = (uint32_t)rows << 16 | columns;
	pthread_mutex_unlock(&e->lock);
	wake(e);
}

int joined_leave(struct husk_exec *e, struct husk_error *err)
{
	if (joined_wait(e, 0, NULL, NULL) != -ETIMEDOUT)
		return error_set(err, -ESRCH, "the program has ended");
	pthread_mutex_lock(&e->lock);
	e->leaving = true;
	pthread_mutex_unlock(&e->lock);
	wake(e);
	int rc = joined_wait(e, 2 * JOINED_LEAVE_MS, NULL, err);
	if (rc == 0 && e->outcome.end == HUSK_END_FAILED)
		return error_set(err, -EPROTO, "VM %s: %s", e->id, e->outcome.reason);
	return rc == 0 && e->outcome.end ? error_set(err, -ESRCH, "the program has ended") : rc;
}

void joined_close(struct husk_exec *e)
{
	if (!e)
		return;
	pthread_mutex_lock(&e->lock);
	e->closing = true;
	pthread_mutex_unlock(&e->lock);
	wake(e);
	pthread_join(e->thread, NULL);
	release(e);
}
