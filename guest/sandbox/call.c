/* SPDX-License-Identifier: Apache-2.0 */
/*
 * call.c - start, and the loop that serves calls
 *
 * Theory of operation: each turn of the loop takes the call frame at the start of the input buffer, checks it against
 * the export's own signature (host and program were built apart), runs the export's thunk, and tells the host.
 * Between the host's entry and the next `out` an empty function takes 80 instructions
 * (tests/sandbox/guest-test.c counts them): nothing is copied, nothing is cleared that was not used.
 */
#include "runtime.h"

struct runtime husk_runtime;

/** The export that the frame is for; a frame that does not fit ends the program. */
static const struct sandbox_export *find_export(const struct sandbox_frame *frame)
{
	uint64_t n = (uint64_t)(husk_exports_end - husk_exports);

	if (frame->which >= n)
		husk_abort(-1, "call of function number %u, and there are %llu", frame->which, (unsigned long long)n);
	const struct sandbox_export *export = &husk_exports[frame->which];
	if (frame->n != export->n_args)
		husk_abort(-1, "call of %s() with %u arguments, which takes %u", (const char *)export->name, frame->n,
			export->n_args);
	for (uint32_t i = 0; i < frame->n; i++)
		if (frame->slots[i].type != export->args[i])
			husk_abort(-1, "call of %s(): argument %u is of type %u, not %u", (const char *)export->name,
				i + 1, frame->slots[i].type, export->args[i]);
	return export;
}

/** Write what function @export gave; what to tell the host. */
static enum sandbox_signal give_result(const struct sandbox_export *export, const struct husk_value *value)
{
	struct runtime *rt = &husk_runtime;
	const uint8_t type = (uint8_t) export->result;

	if (!rt->failed && runtime_write(0, type != SANDBOX_VOID, &type, value) == 0)
		return SANDBOX_RETURN;
	if (!rt->failed)
		husk_fail(HUSK_ERROR_SIZE, "the result of %s() is larger than the output buffer",
			(const char *)export->name);
	runtime_write_error(rt->fail_code, rt->fail_message);
	rt->failed = false;
	return SANDBOX_FAIL;
}

static enum sandbox_signal serve(void)
{
	struct runtime *rt = &husk_runtime;
	const struct sandbox_frame *frame = rt->input;
	const struct sandbox_export *export = find_export(frame);

	rt->reply = (const struct sandbox_frame *)((const char *)frame + ((frame->size + 15) & ~15ull));
	struct husk_value value = ((husk_thunk *)export->thunk)(frame);
	return give_result(export, &value);
}

void runtime_start(const struct sandbox_info *info)
{
	struct runtime *rt = &husk_runtime;

	rt->info = info;
	rt->input = rt->reply = (const struct sandbox_frame *)info->input.at;
	rt->output = (struct sandbox_frame *)info->output.at;
	rt->output_size = info->output.size;
	if (info->magic != SANDBOX_INFO_MAGIC || info->protocol != SANDBOX_PROTOCOL)
		__builtin_trap();
	for (constructor *const *c = husk_constructors; c < husk_constructors_end; c++)
		(*c)();
	husk_init();
	if (rt->failed)
		runtime_abort(rt->fail_code);
	for (enum sandbox_signal signal = SANDBOX_READY;; signal = serve())
		runtime_signal(signal);
}
