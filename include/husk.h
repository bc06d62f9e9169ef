/* SPDX-License-Identifier: Apache-2.0 */
/*
 * husk.h - the public interface of libhusk
 *
 * This is the only public header. Every function that can fail returns 0 on success or a negative errno value, and then
 * fills the caller's struct husk_error, which stays untouched on success. No function prints, exits or aborts.
 */
#ifndef HUSK_H
#define HUSK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HUSK_ERROR_MESSAGE_MAX 1024

/** What went wrong: filled by a failing call, untouched by a successful one.
 *  code:    negative errno value, the same that the call returned
 *  message: one line, NUL-terminated, without a trailing newline: what was tried, on what, why it failed */
struct husk_error {
	int code;
	char message[HUSK_ERROR_MESSAGE_MAX];
};

#ifdef __cplusplus
}
#endif

#endif /* HUSK_H */
