/* SPDX-License-Identifier: Apache-2.0 */
/*
 * variadic.c - the functions with `...`
 *
 * Theory of operation: apart from the rest because this file alone is compiled with floating point: the compiler then
 * saves the vector registers behind a test of al, in which the caller says whether it passed any (System V ABI, AMD64
 * supplement, 3.5.7). So a caller without floating point executes no instruction of SSE here either.
 */
#include "runtime.h"

int husk_printf(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int n = husk_vprintf(format, args);
	va_end(args);
	return n;
}

int husk_snprintf(char *to, size_t size, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int n = husk_vsnprintf(to, size, format, args);
	va_end(args);
	return n;
}

void husk_fail(int32_t code, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	husk_vsnprintf(husk_runtime.fail_message, sizeof(husk_runtime.fail_message), format, args);
	va_end(args);
	husk_runtime.fail_code = code;
	husk_runtime.failed = true;
}

void husk_abort(int32_t code, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	husk_vsnprintf(husk_runtime.fail_message, sizeof(husk_runtime.fail_message), format, args);
	va_end(args);
	runtime_abort(code);
}
