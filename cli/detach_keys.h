/* SPDX-License-Identifier: Apache-2.0 */
/*
 * detach_keys.h - the keys by which a user leaves a terminal session, found in what is typed
 *
 * Theory of operation: keys are written as Docker writes them, "ctrl-p,ctrl-q": single characters, or ctrl- and one of
 * a-z @ [ \ ] ^ _, with commas between them. What is typed goes through detach_keys_filter(). Bytes that may begin
 * the sequence are held back until it is clear; then they are either the sequence, and vanish, or go on ahead of what follows.
 */
#ifndef CLI_DETACH_KEYS_H
#define CLI_DETACH_KEYS_H

#include <husk.h>

#define DETACH_KEYS_MAX 16
#define DETACH_KEYS_DEFAULT "ctrl-p,ctrl-q"

/** keys[0, n): the sequence, of which keys[0, held) have been typed and not been handed on. Zero-initialised: no sequence, so
 *  that all goes through. */
struct detach_keys {
	unsigned char keys[DETACH_KEYS_MAX];
	size_t n, held;
};

/** Read the sequence that @text writes; NULL: DETACH_KEYS_DEFAULT. -EINVAL names the word that is no key. */
int detach_keys_parse(const char *text, struct detach_keys *keys, struct husk_error *err);

/** Hand on what was typed: from the @n bytes @in into @out, which has room for @n + DETACH_KEYS_MAX bytes. Returns how many
 *  bytes came out. *@detached becomes true when the sequence is complete; what was typed behind it is dropped. */
size_t detach_keys_filter(struct detach_keys *keys, const void *in, size_t n, void *out, bool *detached);

/** The input has ended: what was held back, into @out of DETACH_KEYS_MAX bytes; how many there are. */
size_t detach_keys_end(struct detach_keys *keys, void *out);

#endif
