/* SPDX-License-Identifier: Apache-2.0 */
/* detach_keys.c - the keys by which a user leaves a terminal session (theory of operation: detach_keys.h) */
#include "cli/detach_keys.h"

#include "base/error.h"

#include <string.h>

/** The byte that the @n bytes at @word are the name of, -1: none. */
static int key_byte(const char *word, size_t n)
{
	if (n == 1)
		return (unsigned char)word[0];
	if (n != 6 || strncmp(word, "ctrl-", 5) != 0)
		return -1;
	char c = word[5];
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 1;
	/* @ is NUL; [ \ ] ^ _ are 27 to 31: what a terminal sends for them with Ctrl held. */
	return c == '@' || (c >= '[' && c <= '_') ? c - '@' : -1;
}

int detach_keys_parse(const char *text, struct detach_keys *keys, struct husk_error *err)
{
	struct detach_keys parsed = {0};
	for (const char *word = text ? text : DETACH_KEYS_DEFAULT;; word++) {
		size_t n = strcspn(word, ",");
		int byte = key_byte(word, n);
		if (byte < 0)
			return error_set(err, -EINVAL,
				"detach keys: '%.*s' is no key; write a character, or ctrl- and one of a-z @ [ \\ ] ^ "
				"_",
				(int)n, word);
		if (parsed.n == DETACH_KEYS_MAX)
			return error_set(err, -EINVAL, "detach keys: more than %d", DETACH_KEYS_MAX);
		parsed.keys[parsed.n++] = (unsigned char)byte;
		word += n;
		if (!*word)
			break;
	}
	*keys = parsed;
	return 0;
}

/** How much of the beginning of the sequence the held bytes and @byte behind them end with: never all of the held ones, for
 *  those are known not to go on with @byte. */
static size_t still_held(const struct detach_keys *k, unsigned char byte)
{
	for (size_t n = k->held; n > 0; n--)
		if (k->keys[n - 1] == byte && memcmp(k->keys, k->keys + k->held - (n - 1), n - 1) == 0)
			return n;
	return 0;
}

size_t detach_keys_filter(struct detach_keys *k, const void *in, size_t n, void *out, bool *detached)
{
	const unsigned char *bytes = in;
	unsigned char *to = out;
	size_t written = 0;
	*detached = false;
	for (size_t i = 0; i < n; i++) {
		if (k->n && bytes[i] == k->keys[k->held]) {
			k->held++;
			if (k->held < k->n)
				continue;
			k->held = 0;
			*detached = true;
			return written;
		}
		size_t keep = still_held(k, bytes[i]);
		size_t go = k->held + 1 - keep; /* of the held bytes and this one */
		memcpy(to + written, k->keys, go > k->held ? k->held : go);
		if (go > k->held)
			to[written + k->held] = bytes[i];
		written += go;
		k->held = keep;
	}
	return written;
}

size_t detach_keys_end(struct detach_keys *k, void *out)
{
	size_t n = k->held;
	memcpy(out, k->keys, n);
	k->held = 0;
	return n;
}
