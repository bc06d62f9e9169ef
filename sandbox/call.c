/* SPDX-License-Identifier: Apache-2.0 */
/* call.c - the host calls a function of the guest's */
#include "base/adopt.h"
#include "sandbox/codec.h"
#include "sandbox/run.h"

#include <string.h>

void husk_sandbox_call_options_init(struct husk_sandbox_call_options *options)
{
	*options = (struct husk_sandbox_call_options){.size = sizeof(*options)};
}

/** Write the frame of the call. On failure nothing has been done. */
static int prepare(
	struct husk_sandbox *s, unsigned which, const struct husk_sandbox_value *args, size_t n, struct husk_error *err)
{
	uint64_t size = 0;
	uint64_t room = s->config.input - CODEC_ERROR_ROOM;
	int rc = codec_write_call(s->input, room, which, &s->image->exports[which], args, n, &size, err);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&s->memory_lock);
	areas_touched(&s->areas, s->places.input.at, size);
	pthread_mutex_unlock(&s->memory_lock);
	s->call_size = (size + 15) & ~15ull; /* room is a multiple of 16 */
	s->stats.calls++;
	s->stats.bytes_in += size;
	return 0;
}

/** What the guest has left could not be read. The host's own shortage of memory is not its fault. */
static int unreadable(struct husk_sandbox *s, const struct signature *f, const char *what, int rc, const char *why,
	struct husk_error *err)
{
	if (rc == -ENOMEM)
		return error_set(err, rc, "%s of %s: %s", what, f->name, why);
	return sandbox_blame(
		s, HUSK_SANDBOX_PROTOCOL, rc, err, "the guest broke the protocol: %s of %s: %s", what, f->name, why);
}

/** The guest has returned: its value becomes the caller's. */
static int take_result(
	struct husk_sandbox *s, const struct signature *f, struct husk_sandbox_value *result, struct husk_error *err)
{
	struct codec_values values;
	struct husk_error why;
	uint64_t size = 0;
	int rc = codec_read_result(s->output, s->config.output, f, &values, &size, &why);

	if (rc < 0)
		return unreadable(s, f, "the result", rc, why.message, err);
	s->stats.bytes_out += size;
	if (!result) {
		codec_values_clear(&values);
		return 0;
	}
	*result = values.n ? values.values[0] : (struct husk_sandbox_value){.type = HUSK_SANDBOX_VOID};
	/* The allocation that its bytes lie in begins with them, and is the caller's now. */
	return 0;
}

static int take_error(struct husk_sandbox *s, const struct signature *f, struct husk_error *err)
{
	char message[SANDBOX_MESSAGE_MAX + 1];
	struct husk_error why;
	int rc = codec_read_error(s->output, s->config.output, &s->report.code, message, &why);

	if (rc < 0)
		return unreadable(s, f, "the error", rc, why.message, err);
	s->stats.guest_errors++;
	return sandbox_blame(
		s, HUSK_SANDBOX_GUEST_ERROR, -EREMOTEIO, err, "%s failed: %s (%d)", f->name, message, s->report.code);
}

static int call(struct husk_sandbox *s, const char *name, const struct husk_sandbox_value *args, size_t n,
	struct husk_sandbox_value *result, uint64_t deadline_ns, struct husk_error *err)
{
	int which = image_find_export(s->image, name);
	if (which < 0)
		return error_set(err, -ENOENT, "the program has no function '%.80s'", name);
	const struct signature *f = &s->image->exports[which];
	int rc = prepare(s, (unsigned)which, args, n, err);
	if (rc < 0)
		return rc;
	rc = run_guest(s, deadline_ns, err);
	const bool finished = rc == SANDBOX_RETURN || rc == SANDBOX_FAIL;
	if (rc == SANDBOX_RETURN)
		rc = take_result(s, f, result, err);
	else if (rc == SANDBOX_FAIL)
		rc = take_error(s, f, err);
	else if (rc == SANDBOX_READY)
		rc = sandbox_blame(
			s, HUSK_SANDBOX_PROTOCOL, -EPROTO, err, "the guest broke the protocol: it was ready twice");
	if (husk_sandbox_state(s) == HUSK_SANDBOX_RUNNING) {
		bool fine = rc == 0 || (finished && (rc == -EREMOTEIO || rc == -ENOMEM));
		s->stats.poisonings += !fine;
		sandbox_set_state(s, fine ? HUSK_SANDBOX_READY : HUSK_SANDBOX_POISONED);
	}
	s->call_size = 0;
	return rc;
}

int husk_sandbox_call(struct husk_sandbox *sandbox, const char *name, const struct husk_sandbox_value *args, size_t n,
	struct husk_sandbox_value *result, const struct husk_sandbox_call_options *given, struct husk_error *err)
{
	struct husk_sandbox_call_options options;

	husk_sandbox_call_options_init(&options);
	int rc = given ? adopt_struct(&options, sizeof(options), given, "struct husk_sandbox_call_options", err) : 0;
	if (rc == 0 && !name)
		rc = error_set(err, -EINVAL, "call: no name");
	rc = rc < 0 ? rc : sandbox_enter(sandbox, IN_STATE(HUSK_SANDBOX_READY), "call", err);
	if (rc < 0)
		return rc;
	rc = call(sandbox, name, args, n, result, options.deadline_ns, err);
	sandbox_leave(sandbox);
	return rc;
}
