/* SPDX-License-Identifier: Apache-2.0 */
/* frame.c - frames of the program's, in the output buffer: a header, slots, and the bytes that slots refer to */
#include "runtime.h"

static bool has_bytes(uint8_t type)
{
	return type == SANDBOX_STRING || type == SANDBOX_BYTES;
}

int runtime_write(uint32_t which, uint32_t n, const uint8_t *types, const struct husk_value *values)
{
	struct sandbox_frame *frame = husk_runtime.output;
	uint64_t at = sizeof(*frame) + n * sizeof(frame->slots[0]);

	for (uint32_t i = 0; i < n; i++) {
		struct sandbox_slot slot = {.type = types[i], .value = values[i].bits};
		if (has_bytes(types[i])) {
			if (slot.value == HUSK_SIZE_OF_STRING)
				slot.value = strlen((const char *)values[i].data);
			/* Behind this the offset fits: buffers have at most 1 GiB. */
			if (at > husk_runtime.output_size || slot.value > husk_runtime.output_size - at)
				return -1;
			slot.offset = (uint32_t)at;
			memcpy((char *)frame + at, values[i].data, slot.value);
			at += slot.value;
		}
		frame->slots[i] = slot;
	}
	frame->which = which;
	frame->n = n;
	frame->size = at;
	return 0;
}

void runtime_write_error(int32_t code, const char *message)
{
	static const uint8_t types[] = {SANDBOX_I32, SANDBOX_STRING};
	const struct husk_value values[] = {husk_value_number((uint32_t)code), husk_value_string(message)};

	runtime_write(0, 2, types, values); /* a page of output has the room */
}

void runtime_abort(int32_t code)
{
	runtime_write_error(code, husk_runtime.fail_message);
	for (;;)
		runtime_signal(SANDBOX_ABORT); /* the host does not come back */
}
