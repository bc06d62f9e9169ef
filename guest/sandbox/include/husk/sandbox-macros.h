/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox-macros.h - the preprocessor's part of HUSK_EXPORT and HUSK_IMPORT; include husk/sandbox.h instead
 *
 * Theory of operation: a list of types is walked by HUSK_EACH, which gives its macro each type and how many types are
 * left, itself counted: so argument number i of n, counted from 0, is the one that has n - i left. Everything that
 * depends on a type is a macro whose name ends in the type's. bool is a macro in C17, so its own are there for _Bool,
 * too.
 */
#ifndef HUSK_SANDBOX_MACROS_H
#define HUSK_SANDBOX_MACROS_H

#define HUSK_PASTE_(a, b) a##b
#define HUSK_PASTE(a, b) HUSK_PASTE_(a, b)
#define HUSK_COMMA() ,
#define HUSK_NOTHING()

/* How many arguments, 0 to 32. */
#define HUSK_COUNT_(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20,     \
	a21, a22, a23, a24, a25, a26, a27, a28, a29, a30, a31, a32, n, ...)                                            \
	n
#define HUSK_COUNT(...)                                                                                                \
	HUSK_COUNT_(0, ##__VA_ARGS__, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13,  \
		12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)

/* m(how many are left, type), with sep() between. */
#define HUSK_EACH_0(m, sep)
#define HUSK_EACH_1(m, sep, t) m(1, t)
#define HUSK_EACH_2(m, sep, t, ...) m(2, t) sep() HUSK_EACH_1(m, sep, __VA_ARGS__)
#define HUSK_EACH_3(m, sep, t, ...) m(3, t) sep() HUSK_EACH_2(m, sep, __VA_ARGS__)
#define HUSK_EACH_4(m, sep, t, ...) m(4, t) sep() HUSK_EACH_3(m, sep, __VA_ARGS__)
#define HUSK_EACH_5(m, sep, t, ...) m(5, t) sep() HUSK_EACH_4(m, sep, __VA_ARGS__)
#define HUSK_EACH_6(m, sep, t, ...) m(6, t) sep() HUSK_EACH_5(m, sep, __VA_ARGS__)
#define HUSK_EACH_7(m, sep, t, ...) m(7, t) sep() HUSK_EACH_6(m, sep, __VA_ARGS__)
#define HUSK_EACH_8(m, sep, t, ...) m(8, t) sep() HUSK_EACH_7(m, sep, __VA_ARGS__)
#define HUSK_EACH_9(m, sep, t, ...) m(9, t) sep() HUSK_EACH_8(m, sep, __VA_ARGS__)
#define HUSK_EACH_10(m, sep, t, ...) m(10, t) sep() HUSK_EACH_9(m, sep, __VA_ARGS__)
#define HUSK_EACH_11(m, sep, t, ...) m(11, t) sep() HUSK_EACH_10(m, sep, __VA_ARGS__)
#define HUSK_EACH_12(m, sep, t, ...) m(12, t) sep() HUSK_EACH_11(m, sep, __VA_ARGS__)
#define HUSK_EACH_13(m, sep, t, ...) m(13, t) sep() HUSK_EACH_12(m, sep, __VA_ARGS__)
#define HUSK_EACH_14(m, sep, t, ...) m(14, t) sep() HUSK_EACH_13(m, sep, __VA_ARGS__)
#define HUSK_EACH_15(m, sep, t, ...) m(15, t) sep() HUSK_EACH_14(m, sep, __VA_ARGS__)
#define HUSK_EACH_16(m, sep, t, ...) m(16, t) sep() HUSK_EACH_15(m, sep, __VA_ARGS__)
#define HUSK_EACH_17(m, sep, t, ...) m(17, t) sep() HUSK_EACH_16(m, sep, __VA_ARGS__)
#define HUSK_EACH_18(m, sep, t, ...) m(18, t) sep() HUSK_EACH_17(m, sep, __VA_ARGS__)
#define HUSK_EACH_19(m, sep, t, ...) m(19, t) sep() HUSK_EACH_18(m, sep, __VA_ARGS__)
#define HUSK_EACH_20(m, sep, t, ...) m(20, t) sep() HUSK_EACH_19(m, sep, __VA_ARGS__)
#define HUSK_EACH_21(m, sep, t, ...) m(21, t) sep() HUSK_EACH_20(m, sep, __VA_ARGS__)
#define HUSK_EACH_22(m, sep, t, ...) m(22, t) sep() HUSK_EACH_21(m, sep, __VA_ARGS__)
#define HUSK_EACH_23(m, sep, t, ...) m(23, t) sep() HUSK_EACH_22(m, sep, __VA_ARGS__)
#define HUSK_EACH_24(m, sep, t, ...) m(24, t) sep() HUSK_EACH_23(m, sep, __VA_ARGS__)
#define HUSK_EACH_25(m, sep, t, ...) m(25, t) sep() HUSK_EACH_24(m, sep, __VA_ARGS__)
#define HUSK_EACH_26(m, sep, t, ...) m(26, t) sep() HUSK_EACH_25(m, sep, __VA_ARGS__)
#define HUSK_EACH_27(m, sep, t, ...) m(27, t) sep() HUSK_EACH_26(m, sep, __VA_ARGS__)
#define HUSK_EACH_28(m, sep, t, ...) m(28, t) sep() HUSK_EACH_27(m, sep, __VA_ARGS__)
#define HUSK_EACH_29(m, sep, t, ...) m(29, t) sep() HUSK_EACH_28(m, sep, __VA_ARGS__)
#define HUSK_EACH_30(m, sep, t, ...) m(30, t) sep() HUSK_EACH_29(m, sep, __VA_ARGS__)
#define HUSK_EACH_31(m, sep, t, ...) m(31, t) sep() HUSK_EACH_30(m, sep, __VA_ARGS__)
#define HUSK_EACH_32(m, sep, t, ...) m(32, t) sep() HUSK_EACH_31(m, sep, __VA_ARGS__)
#define HUSK_EACH(m, sep, ...) HUSK_PASTE(HUSK_EACH_, HUSK_COUNT(__VA_ARGS__))(m, sep, ##__VA_ARGS__)

/* A parameter list; void when there are none. */
#define HUSK_PARAMETER(left, t) HUSK_PASTE(HUSK_C_, t) husk_arg##left
#define HUSK_PARAMETERS_0(...) void
#define HUSK_PARAMETERS_N(...) HUSK_EACH(HUSK_PARAMETER, HUSK_COMMA, ##__VA_ARGS__)
#define HUSK_PARAMETERS_1 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_2 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_3 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_4 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_5 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_6 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_7 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_8 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_9 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_10 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_11 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_12 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_13 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_14 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_15 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_16 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_17 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_18 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_19 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_20 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_21 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_22 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_23 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_24 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_25 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_26 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_27 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_28 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_29 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_30 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_31 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS_32 HUSK_PARAMETERS_N
#define HUSK_PARAMETERS(...) HUSK_PASTE(HUSK_PARAMETERS_, HUSK_COUNT(__VA_ARGS__))(__VA_ARGS__)

/* The type in C. */
#define HUSK_C_void void
#define HUSK_C_i32 int32_t
#define HUSK_C_u32 uint32_t
#define HUSK_C_i64 int64_t
#define HUSK_C_u64 uint64_t
#define HUSK_C_f32 float
#define HUSK_C_f64 double
#define HUSK_C_bool bool
#define HUSK_C__Bool bool
#define HUSK_C_string const char *
#define HUSK_C_bytes struct husk_bytes

/* Its number in the protocol. */
#define HUSK_TYPE_void SANDBOX_VOID
#define HUSK_TYPE_i32 SANDBOX_I32
#define HUSK_TYPE_u32 SANDBOX_U32
#define HUSK_TYPE_i64 SANDBOX_I64
#define HUSK_TYPE_u64 SANDBOX_U64
#define HUSK_TYPE_f32 SANDBOX_F32
#define HUSK_TYPE_f64 SANDBOX_F64
#define HUSK_TYPE_bool SANDBOX_BOOL
#define HUSK_TYPE__Bool SANDBOX_BOOL
#define HUSK_TYPE_string SANDBOX_STRING
#define HUSK_TYPE_bytes SANDBOX_BYTES
#define HUSK_TYPE(left, t) (uint8_t) HUSK_PASTE(HUSK_TYPE_, t)

/* A struct husk_value out of an expression of the type. */
#define HUSK_PUT_i32(e) husk_value_number((uint32_t)(e))
#define HUSK_PUT_u32(e) husk_value_number(e)
#define HUSK_PUT_i64(e) husk_value_number((uint64_t)(e))
#define HUSK_PUT_u64(e) husk_value_number(e)
#define HUSK_PUT_f32(e) husk_value_number(HUSK_BITS(uint32_t, float, e))
#define HUSK_PUT_f64(e) husk_value_number(HUSK_BITS(uint64_t, double, e))
#define HUSK_PUT_bool(e) husk_value_number((e) ? 1u : 0u)
#define HUSK_PUT__Bool(e) HUSK_PUT_bool(e)
#define HUSK_PUT_string(e) husk_value_string(e)
#define HUSK_PUT_bytes(e) husk_value_bytes(e)

/* The C value of the type out of a struct husk_value. */
#define HUSK_GET_i32(v) (int32_t)(v).bits
#define HUSK_GET_u32(v) (uint32_t)(v).bits
#define HUSK_GET_i64(v) (int64_t)(v).bits
#define HUSK_GET_u64(v) (v).bits
#define HUSK_GET_f32(v) HUSK_BITS(float, uint32_t, (uint32_t)(v).bits)
#define HUSK_GET_f64(v) HUSK_BITS(double, uint64_t, (v).bits)
#define HUSK_GET_bool(v) ((v).bits != 0)
#define HUSK_GET__Bool(v) HUSK_GET_bool(v)
#define HUSK_GET_string(v) (const char *)(v).data
#define HUSK_GET_bytes(v) husk_bytes_of(v)

/* The bits of one type as another of the same size; no function has a float in its signature, which
 * -mgeneral-regs-only forbids. */
#define HUSK_BITS(to, from, e)                                                                                         \
	__extension__({                                                                                                \
		from husk_from = (e);                                                                                  \
		to husk_to;                                                                                            \
		__builtin_memcpy(&husk_to, &husk_from, sizeof(husk_to));                                               \
		husk_to;                                                                                               \
	})

/* Run an expression, and make its value the result. */
#define HUSK_RESULT_void(e)                                                                                            \
	(e);                                                                                                           \
	return husk_value_number(0)
#define HUSK_RESULT_i32(e) return HUSK_PUT_i32(e)
#define HUSK_RESULT_u32(e) return HUSK_PUT_u32(e)
#define HUSK_RESULT_i64(e) return HUSK_PUT_i64(e)
#define HUSK_RESULT_u64(e) return HUSK_PUT_u64(e)
#define HUSK_RESULT_f32(e) return HUSK_PUT_f32(e)
#define HUSK_RESULT_f64(e) return HUSK_PUT_f64(e)
#define HUSK_RESULT_bool(e) return HUSK_PUT_bool(e)
#define HUSK_RESULT__Bool(e) return HUSK_PUT_bool(e)
#define HUSK_RESULT_string(e) return HUSK_PUT_string(e)
#define HUSK_RESULT_bytes(e) return HUSK_PUT_bytes(e)

/* Return it, from a function of that type. */
#define HUSK_ANSWER_void(v) (void)(v)
#define HUSK_ANSWER_i32(v) return HUSK_GET_i32(v)
#define HUSK_ANSWER_u32(v) return HUSK_GET_u32(v)
#define HUSK_ANSWER_i64(v) return HUSK_GET_i64(v)
#define HUSK_ANSWER_u64(v) return HUSK_GET_u64(v)
#define HUSK_ANSWER_f32(v) return HUSK_GET_f32(v)
#define HUSK_ANSWER_f64(v) return HUSK_GET_f64(v)
#define HUSK_ANSWER_bool(v) return HUSK_GET_bool(v)
#define HUSK_ANSWER__Bool(v) return HUSK_GET__Bool(v)
#define HUSK_ANSWER_string(v) return HUSK_GET_string(v)
#define HUSK_ANSWER_bytes(v) return HUSK_GET_bytes(v)

#define HUSK_ARGUMENT_OF_CALL(left, t) HUSK_PASTE(HUSK_GET_, t)(husk_argument(husk_frame, husk_n - (left)))
#define HUSK_ARGUMENT_TO_HOST(left, t) HUSK_PASTE(HUSK_PUT_, t)(husk_arg##left),

#ifdef __cplusplus
#define HUSK_SAME_TYPE(name, ...) __is_same(__typeof__(name), __VA_ARGS__)
#define HUSK_STATIC_ASSERT static_assert
#else
#define HUSK_SAME_TYPE(name, ...) __builtin_types_compatible_p(__typeof__(name), __VA_ARGS__)
#define HUSK_STATIC_ASSERT _Static_assert
#endif

/* Tables are arrays that the linker makes of one section: nothing may grow their entries apart. */
#define HUSK_TABLE(name) __attribute__((section(name), used, aligned(8)))

#endif
