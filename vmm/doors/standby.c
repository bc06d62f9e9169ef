/* SPDX-License-Identifier: Apache-2.0 */
/*
 * standby.c - connections to the guest's agent that stand ready for those who come
 *
 * Theory of operation: a standby is a dial without a host stream that has exchanged HELLO with the agent; a passage that
 * takes it has FORWARD on its way at once, without the packets, the wake-ups and the accept(2) that a connection costs in
 * the guest. New ones are made a moment after a passage was answered, not then: on a guest's only CPU they would compete with
 * the service for which the passage was. Only that makes them, so a guest that ends them, or says anything but HELLO, gets
 * no more than one round per connection that it takes.
 */
#include "vmm/doors/doors_internal.h"

#define HELLO_SIZE (AGENT_HEADER_SIZE + 4)

/** It is somebody else's, or gone. */
static void free_place(struct standby *s)
{
	s->token = NULL;
	s->ready = false;
	buffer_free(&s->heard);
}

/** What the agent says without being asked: HELLO, and then nothing. */
static enum vsock_verdict on_answer(void *data, const void *bytes, size_t n, size_t *used, struct buffer *first)
{
	struct standby *s = data;
	struct agent_frame frame;
	uint32_t version;

	(void)first;
	*used = n;
	if (s->heard.size + n <= HELLO_SIZE && buffer_append(&s->heard, bytes, n) == 0) {
		if (s->heard.size < HELLO_SIZE)
			return VSOCK_MORE;
		s->ready = agent_frame_decode(buffer_bytes(&s->heard), HELLO_SIZE, &frame) == HELLO_SIZE &&
			   frame.type == AGENT_HELLO && agent_u32_get(&frame, &version) && version == AGENT_VERSION;
		if (s->ready)
			return VSOCK_MORE;
	}
	free_place(s);
	return VSOCK_GIVE_BACK;
}

static void on_connected(void *data, int error)
{
	if (error)
		free_place(data);
}

static int make(struct standby *s, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer first = {0};
	struct vsock_dial dial = {
		.port = AGENT_PORT, .first = &first, .connected = on_connected, .answer = on_answer, .data = s};

	if (agent_hello_put(&first) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	return vsock_dial(s->doors->setup.vsock, -1, &dial, &s->token, err);
}

bool standbys_needed(const struct doors *doors)
{
	for (unsigned i = 0; i < VM_DOORS_MAX; i++) {
		const struct door *door = doors->door[i];
		if (door && door->is.kind != VM_DOOR_EXEC && door->is.kind != VM_DOOR_VSOCK)
			return true;
	}
	return false;
}

void standbys_want(struct doors *doors)
{
	if (doors->setup.standbys == 0 || doors->refill_ns)
		return;
	doors->refill_ns = clock_monotonic_ns() + DOORS_REFILL_MS * 1000000ull;
	doors_timer_need(doors, doors->refill_ns);
}

void standbys_refill(struct doors *doors)
{
	struct husk_error err;

	if (!doors->refill_ns)
		return;
	if (doors->refill_ns > clock_monotonic_ns()) {
		doors_timer_need(doors, doors->refill_ns);
		return;
	}
	doors->refill_ns = 0;
	for (unsigned i = 0; i < doors->setup.standbys && standbys_needed(doors); i++) {
		struct standby *s = &doors->standby[i];
		s->doors = doors;
		if (!s->token && make(s, &err) < 0) /* who comes dials, and says what is wrong */
			return;
	}
}

struct vsock_conn *standby_take(struct doors *doors)
{
	for (unsigned i = 0; i < doors->setup.standbys; i++) {
		struct standby *s = &doors->standby[i];
		struct vsock_conn *token = s->token;
		if (token && s->ready) {
			free_place(s);
			return token;
		}
	}
	return NULL;
}

void standbys_end(struct doors *doors)
{
	doors->refill_ns = 0;
	for (unsigned i = 0; i < doors->setup.standbys; i++) {
		struct vsock_conn *token = doors->standby[i].token;
		free_place(&doors->standby[i]);
		if (token)
			vsock_cancel(token);
	}
}
