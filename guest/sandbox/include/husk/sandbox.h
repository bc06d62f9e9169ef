/* SPDX-License-Identifier: Apache-2.0 */
/*
 * husk/sandbox.h - for programs that run in husk's function sandboxes (docs/sandbox.md)
 *
 * Such a program has no main and no operating system: it is a set of functions that the host calls, one call at a time, in one
 * thread. It is compiled with `husk sandbox cc`, or with the flags of pkg-config's husk-sandbox.
 *
 *	#include <husk/sandbox.h>
 *
 *	HUSK_IMPORT(i32, lucky_number);                 // int32_t lucky_number(void), which the host answers
 *
 *	static int32_t add(int32_t a, int32_t b)
 *	{
 *		return a + b + lucky_number();
 *	}
 *	HUSK_EXPORT(i32, add, i32, i32);                // the host may call it by this name
 *
 * Statics keep their values from call to call. Before the host is told that the program is ready its constructors run, and
 * `void husk_init(void)` when the program defines one; both may call functions of the host.
 */
#ifndef HUSK_SANDBOX_H
#define HUSK_SANDBOX_H

#pragma GCC system_header /* no pedantic warnings about macros that a caller cannot change */

#include <husk/sandbox-macros.h>
#include <husk/sandbox-protocol.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define HUSK_NOTHROW noexcept(true)
extern "C" {
#else
#define HUSK_NOTHROW
#endif

/* ---- types of arguments and results ----
 *
 * - i32 u32 i64 u64: int32_t uint32_t int64_t uint64_t
 * - f32 f64: float double; not with -mgeneral-regs-only
 * - bool: bool
 * - string: const char *, with a NUL at its end. As an argument it lies in the input buffer until the function returns.
 *   NULL as a result, or as an argument of a function of the host's, is the empty string.
 * - bytes: struct husk_bytes, likewise; an argument's data is aligned to 8
 * - void: a result only */

struct husk_bytes {
	const void *data;
	size_t size;
};

/* ---- errors ---- */

/** Codes that the runtime itself fails with; a program may use any others. */
enum husk_error_code {
	HUSK_ERROR_SIZE = -90, /* more bytes than the output buffer has */
};

/** Let the call under way fail: when the exported function returns, its result is dropped and the host gets @code and
 *  the message, of which 400 bytes count. The sandbox stays usable. The last one counts. */
void husk_fail(int32_t code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** End it here: the host gets @code and the message, and refuses further calls until it has restored a snapshot. */
void husk_abort(int32_t code, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
/** How the last call of a function of the host's ended: 0, or its error. Printing does not count. */
int32_t husk_error_code(void);
/** Its message, "" when there was no error; valid until the next call of a function of the host's. */
const char *husk_error_message(void);

/* ---- text ---- Formats: %d %i %u %x %X %o %c %s %p %%, with hh h l ll z t j, with - + space # 0, width and
 * precision, numbers or *. %f and %F are for programs that have floating point. There is no %n, and a format that is
 * not in this list is printed as it is. */

int husk_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
int husk_vprintf(const char *format, va_list args) __attribute__((format(printf, 1, 0)));
/** As C's: the length that the text has, at most @size - 1 bytes of which, and a NUL, are written. */
int husk_snprintf(char *to, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
int husk_vsnprintf(char *to, size_t size, const char *format, va_list args) __attribute__((format(printf, 3, 0)));
/** Give @size bytes of text to the host, as much of it as the output buffer takes. */
void husk_print(const char *text, size_t size);

/* ---- what the host shares ---- */

/** The region called @name, and its size; NULL: there is none that the program may read. */
volatile void *husk_region(const char *name, size_t *size);
/** The cell called @name; NULL: there is none. Cells of the host's are read-only. */
volatile uint64_t *husk_cell(const char *name);

/** What the other side wrote before this value can be read after it. */
static inline uint64_t husk_cell_load(const volatile uint64_t *cell)
{
	return __atomic_load_n(cell, __ATOMIC_ACQUIRE);
}

/** What was written before it is there for a side that has read this value. */
static inline void husk_cell_store(volatile uint64_t *cell, uint64_t value)
{
	__atomic_store_n(cell, value, __ATOMIC_RELEASE);
}

/** Where everything lies. */
const struct sandbox_info *husk_info(void);

/* ---- C's own ----
 * An overrun of a block's end, a pointer that malloc() did not give and a block that is freed twice are found when the
 * block is freed, and abort. */

void *malloc(size_t size) HUSK_NOTHROW;
void *calloc(size_t n, size_t size) HUSK_NOTHROW;
void *realloc(void *block, size_t size) HUSK_NOTHROW;
void *aligned_alloc(size_t alignment, size_t size) HUSK_NOTHROW;
void free(void *block) HUSK_NOTHROW;

void *memcpy(void *__restrict to, const void *__restrict from, size_t n) HUSK_NOTHROW;
void *memmove(void *to, const void *from, size_t n) HUSK_NOTHROW;
void *memset(void *to, int byte, size_t n) HUSK_NOTHROW;
int memcmp(const void *a, const void *b, size_t n) HUSK_NOTHROW;
size_t strlen(const char *s) HUSK_NOTHROW;
size_t strnlen(const char *s, size_t max) HUSK_NOTHROW;
int strcmp(const char *a, const char *b) HUSK_NOTHROW;
int strncmp(const char *a, const char *b, size_t n) HUSK_NOTHROW;
char *strcpy(char *__restrict to, const char *__restrict from) HUSK_NOTHROW;
char *strncpy(char *__restrict to, const char *__restrict from, size_t n) HUSK_NOTHROW;
char *strcat(char *__restrict to, const char *__restrict from) HUSK_NOTHROW;
char *strdup(const char *s) HUSK_NOTHROW __attribute__((malloc));
#ifndef __cplusplus /* C++ has two of each of these */
void *memchr(const void *s, int byte, size_t n);
char *strchr(const char *s, int c);
char *strrchr(const char *s, int c);
char *strstr(const char *s, const char *part);
#endif

/* ---- what HUSK_EXPORT and HUSK_IMPORT are made of ---- */

/** A value on its way: a number's bits, zero-extended; of strings and bytes where they are, and the size in bits. */
struct husk_value {
	uint64_t bits;
	const void *data;
};

#define HUSK_SIZE_OF_STRING UINT64_MAX /* the runtime measures it */

static inline struct husk_value husk_value_number(uint64_t bits)
{
	struct husk_value value = {bits, NULL};
	return value;
}

static inline struct husk_value husk_value_string(const char *s)
{
	struct husk_value value = {s ? HUSK_SIZE_OF_STRING : 0, s};
	return value;
}

static inline struct husk_value husk_value_bytes(struct husk_bytes bytes)
{
	struct husk_value value = {bytes.size, bytes.data};
	return value;
}

static inline struct husk_bytes husk_bytes_of(struct husk_value value)
{
	struct husk_bytes bytes = {value.data, (size_t)value.bits};
	return bytes;
}

/** Argument number @i of a call. */
static inline struct husk_value husk_argument(const struct sandbox_frame *frame, unsigned i)
{
	const struct sandbox_slot *slot = &frame->slots[i];
	struct husk_value value = {slot->value, (const char *)frame + slot->offset};
	return value;
}

typedef struct husk_value husk_thunk(const struct sandbox_frame *frame);

/** Call a function of the host's. On an error the value is 0, or empty. */
struct husk_value husk_call_host(const struct sandbox_import *import, const struct husk_value *args);

/** Let the host call function @name: HUSK_EXPORT(i32, add, i32, i32) behind the definition of int32_t add(int32_t, int32_t).
 *  Types: above; at most 32. */
#define HUSK_EXPORT(result_type, name, ...)                                                                            \
	HUSK_STATIC_ASSERT(HUSK_SAME_TYPE(name, HUSK_PASTE(HUSK_C_, result_type)(HUSK_PARAMETERS(__VA_ARGS__))),       \
		"HUSK_EXPORT: " #name " is not a function of these types");                                            \
	static struct husk_value husk_thunk_##name(const struct sandbox_frame *husk_frame)                             \
	{                                                                                                              \
		enum { husk_n = HUSK_COUNT(__VA_ARGS__) };                                                             \
		(void)husk_frame;                                                                                      \
		HUSK_PASTE(HUSK_RESULT_, result_type)                                                                  \
		(name(HUSK_EACH(HUSK_ARGUMENT_OF_CALL, HUSK_COMMA, ##__VA_ARGS__)));                                   \
	}                                                                                                              \
	HUSK_TABLE("husk_exports")                                                                                     \
	static const struct sandbox_export husk_export_##name = {(uint64_t) #name, (uint64_t)husk_thunk_##name,        \
		HUSK_PASTE(HUSK_TYPE_, result_type), HUSK_COUNT(__VA_ARGS__),                                          \
		{HUSK_EACH(HUSK_TYPE, HUSK_COMMA, ##__VA_ARGS__)}}

/** Define function @name, which calls the host's function of that name: HUSK_IMPORT(i32, lookup, string) defines
 *  int32_t lookup(const char *). A string or bytes that it returns are valid until the next call of a function of the
 *  host's (printing does not count) or the end of the call. When the host's function fails it returns 0, "" or
 *  nothing, and husk_error_code() is not 0. In one file of a program; others declare the function. One that is never
 *  called is no import: the host need not have it. */
#define HUSK_IMPORT(result_type, name, ...)                                                                            \
	HUSK_LINKAGE HUSK_PASTE(HUSK_C_, result_type) name(HUSK_PARAMETERS(__VA_ARGS__));                              \
	HUSK_TABLE("husk_imports." #name)                                                                              \
	static const struct sandbox_import husk_import_##name = {(uint64_t) #name,                                     \
		HUSK_PASTE(HUSK_TYPE_, result_type), HUSK_COUNT(__VA_ARGS__),                                          \
		{HUSK_EACH(HUSK_TYPE, HUSK_COMMA, ##__VA_ARGS__)}};                                                    \
	HUSK_LINKAGE HUSK_PASTE(HUSK_C_, result_type) name(HUSK_PARAMETERS(__VA_ARGS__))                               \
	{                                                                                                              \
		const struct husk_value husk_args[] = {                                                                \
			HUSK_EACH(HUSK_ARGUMENT_TO_HOST, HUSK_NOTHING, ##__VA_ARGS__){0, NULL}};                       \
		struct husk_value husk_reply = husk_call_host(&husk_import_##name, husk_args);                         \
		HUSK_PASTE(HUSK_ANSWER_, result_type)(husk_reply); \
	}                                                                                                              \
	HUSK_STATIC_ASSERT(1, "a semicolon follows")

#ifdef __cplusplus
#define HUSK_LINKAGE extern "C"
#else
#define HUSK_LINKAGE
#endif

#ifdef __cplusplus
}
#endif

#endif
