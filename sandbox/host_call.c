/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_call.c - the guest calls a function of the host's
 *
 * Theory of operation: which function is meant is read first, then the arguments as that one's signature has them; both are
 * copies by the time the function runs. An error that the function returns is the guest's to deal with, and so is a host that
 * has no memory for the arguments. The reply lies behind the call's own frame in the input buffer, so that the arguments of
 * the call stay; there is room for an error always (CODEC_ERROR_ROOM), and a result that has none becomes one.
 */
#include "sandbox/codec.h"
#include "sandbox/run.h"

#include <string.h>

static int violation(struct husk_sandbox *s, int code, struct husk_error *why, struct husk_error *err)
{
	return sandbox_blame(s, HUSK_SANDBOX_PROTOCOL, code, err,
		"the guest broke the protocol: a call of the host: %s", why->message);
}

static int reply(struct husk_sandbox *s, const struct host_function *f, const struct husk_sandbox_value *result,
	int32_t code, const char *message, struct husk_error *err)
{
	uint64_t size = 0, room = s->config.input - s->call_size;
	int rc = codec_write_reply(s->input + s->call_size, room, &f->signature, result, code, message, &size, err);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&s->memory_lock);
	areas_touched(&s->areas, s->places.input.at + s->call_size, size);
	pthread_mutex_unlock(&s->memory_lock);
	s->stats.bytes_in += size;
	return 0;
}

static int serve(
	struct husk_sandbox *s, const struct host_function *f, const struct codec_values *args, struct husk_error *err)
{
	struct husk_sandbox_value result = {.type = f->signature.result};
	struct husk_error why;

	why.message[0] = 0;
	s->stats.host_calls++;
	int rc = f->function(f->data, args->values, args->n, &result, &why);
	if (rc == 0) {
		rc = reply(s, f, &result, 0, NULL, &why);
		if (rc == 0)
			return 0;
	}
	/* What the function said, or why its result is none: for the guest to know. */
	rc = reply(s, f, NULL, rc > 0 ? -EINVAL : rc, why.message[0] ? why.message : "no reason was given", &why);
	return rc < 0 ? violation(s, rc, &why, err) : 0;
}

int host_call(struct husk_sandbox *s, struct husk_error *err)
{
	struct husk_error why;
	struct codec_values args;
	uint32_t which = 0;
	uint64_t size = 0;

	int rc = codec_read_which(s->output, s->config.output, &which, &why);
	if (rc == 0 && which >= s->image->n_imports)
		rc = error_set(&why, -EPROTO, "there is no function %u", which);
	if (rc < 0)
		return violation(s, rc, &why, err);
	const struct host_function *f = &s->functions[s->imports[which]];
	rc = codec_read_call(s->output, s->config.output, which, &f->signature, &args, &size, &why);
	if (rc == 0) {
		s->stats.bytes_out += size;
		rc = serve(s, f, &args, err);
		codec_values_clear(&args);
		return rc;
	}
	if (rc == -ENOMEM) /* not the guest's fault, and no reason to stop it */
		rc = reply(s, f, NULL, -ENOMEM, "the host has no memory for the arguments", &why);
	return rc < 0 ? violation(s, rc, &why, err) : 0;
}
