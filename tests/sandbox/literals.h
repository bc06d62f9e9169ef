/* SPDX-License-Identifier: Apache-2.0 */
/* literals.h - a sandbox's values in one word each, as tests write them down */
#ifndef TESTS_SANDBOX_LITERALS_H
#define TESTS_SANDBOX_LITERALS_H

#include <husk.h>
#include <string.h>

#define I32(v) ((struct husk_sandbox_value){.type = HUSK_SANDBOX_I32, .i32 = (v)})
#define U32(v) ((struct husk_sandbox_value){.type = HUSK_SANDBOX_U32, .u32 = (v)})
#define I64(v) ((struct husk_sandbox_value){.type = HUSK_SANDBOX_I64, .i64 = (v)})
#define U64(v) ((struct husk_sandbox_value){.type = HUSK_SANDBOX_U64, .u64 = (v)})
#define F32(v) ((struct husk_sandbox_value){.type = HUSK_SANDBOX_F32, .f32 = (v)})
#define F64(v) ((struct husk_sandbox_value){.type = HUSK_SANDBOX_F64, .f64 = (v)})
#define BOOL(v) ((struct husk_sandbox_value){.type = HUSK_SANDBOX_BOOL, .boolean = (v)})
#define BYTES(p, n) ((struct husk_sandbox_value){.type = HUSK_SANDBOX_BYTES, .bytes = {.data = (p), .size = (n)}})
#define STRING(s) ((struct husk_sandbox_value){.type = HUSK_SANDBOX_STRING, .bytes = {.data = (s), .size = strlen(s)}})

#endif
