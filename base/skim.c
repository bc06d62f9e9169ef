/* SPDX-License-Identifier: Apache-2.0 */
/* skim.c - a few members of a JSON object, without taking in the rest (theory of operation: skim.h) */
#include "base/skim.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct text {
	const char *at, *end;
};

static void pass_space(struct text *t)
{
	while (t->at < t->end && (*t->at == ' ' || *t->at == '\n' || *t->at == '\t' || *t->at == '\r'))
		t->at++;
}

static bool take(struct text *t, char c)
{
	pass_space(t);
	bool there = t->at < t->end && *t->at == c;
	t->at += there;
	return there;
}

/** Behind the string that begins here. */
static bool pass_string(struct text *t)
{
	if (!take(t, '"'))
		return false;
	for (; t->at < t->end; t->at++) {
		if (*t->at == '"') {
			t->at++;
			return true;
		}
		if (*t->at == '\\')
			t->at++;
	}
	return false;
}

/** Behind the brackets that open here, with all that is in them. */
static bool pass_brackets(struct text *t)
{
	for (size_t depth = 0; t->at < t->end;) {
		char c = *t->at;
		if (c == '"') {
			if (!pass_string(t))
				return false;
			continue;
		}
		t->at++;
		depth += c == '{' || c == '[';
		if ((c == '}' || c == ']') && --depth == 0)
			return true;
	}
	return false;
}

static bool pass_value(struct text *t)
{
	pass_space(t);
	if (t->at == t->end)
		return false;
	if (*t->at == '"')
		return pass_string(t);
	if (*t->at == '{' || *t->at == '[')
		return pass_brackets(t);
	const char *begin = t->at;
	while (t->at < t->end && !strchr(",]} \n\t\r", *t->at))
		t->at++;
	return t->at > begin;
}

/** The member that has the key @text, n bytes with its quotes; NULL: none is asked for. */
static struct skim *wanted(const char *text, size_t n, struct skim *members, size_t n_members)
{
	for (size_t i = 0; i < n_members; i++)
		if (strlen(members[i].key) == n - 2 && memcmp(members[i].key, text + 1, n - 2) == 0)
			return &members[i];
	return NULL;
}

static bool skim_member(struct text *t, struct skim *members, size_t n_members)
{
	pass_space(t);
	const char *key = t->at;
	if (!pass_string(t))
		return false;
	struct skim *member = wanted(key, (size_t)(t->at - key), members, n_members);
	if (!take(t, ':'))
		return false;
	pass_space(t);
	const char *value = t->at;
	if (!pass_value(t))
		return false;
	if (member) {
		member->text = value;
		member->n = (size_t)(t->at - value);
	}
	return true;
}

bool skim_object(const char *text, size_t n, struct skim *members, size_t n_members)
{
	struct text t = {text, text + n};

	for (size_t i = 0; i < n_members; i++) {
		members[i].text = NULL;
		members[i].n = 0;
	}
	if (!take(&t, '{'))
		return false;
	if (!take(&t, '}')) {
		do {
			if (!skim_member(&t, members, n_members))
				return false;
		} while (take(&t, ','));
		if (!take(&t, '}'))
			return false;
	}
	pass_space(&t);
	return t.at == t.end;
}

bool skim_element(const char **at, const char *end, struct skim *out)
{
	struct text t = {*at, end};

	if (!take(&t, '[') && !take(&t, ','))
		return false;
	pass_space(&t);
	out->text = t.at;
	if (t.at == end || *t.at == ']' || !pass_value(&t))
		return false;
	out->n = (size_t)(t.at - out->text);
	*at = t.at;
	return true;
}

bool skim_is_plain(const struct skim *value)
{
	if (!value->text || value->n < 2 || value->text[0] != '"')
		return false;
	for (size_t i = 1; i < value->n - 1; i++)
		if ((unsigned char)value->text[i] < 0x20 || (unsigned char)value->text[i] >= 0x7f ||
			value->text[i] == '\\')
			return false;
	return true;
}

bool skim_is(const struct skim *value, const char *want)
{
	size_t n = strlen(want);

	return value->text && value->n == n + 2 && value->text[0] == '"' && memcmp(value->text + 1, want, n) == 0;
}

/** @c as UTF-8; how many bytes. */
static size_t encode(uint32_t c, char *to)
{
	if (c < 0x80)
		return to[0] = (char)c, 1;
	size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
	for (size_t i = n; i-- > 1; c >>= 6)
		to[i] = (char)(0x80 | (c & 63));
	to[0] = (char)(first[n] | c);
	return n;
}

/** Four hexadecimal digits. */
static bool read_unit(struct text *t, uint32_t *out)
{
	*out = 0;
	if (t->end - t->at < 4)
		return false;
	for (int i = 0; i < 4; i++, t->at++) {
		const char *digits = "0123456789abcdef", *digit = *t->at ? strchr(digits, *t->at | 0x20) : NULL;
		if (!digit)
			return false;
		*out = *out << 4 | (uint32_t)(digit - digits);
	}
	return true;
}

/** What stands behind a backslash, RFC 8259 §7, as UTF-8: bytes, 0 when it is damaged. */
static size_t read_escape(struct text *t, char *to)
{
	static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
	uint32_t c, low;

	if (t->at == t->end)
		return 0;
	const char *letter = *t->at ? strchr(letters, *t->at) : NULL;
	t->at++;
	if (letter)
		return *to = meant[letter - letters], 1;
	if (t->at[-1] != 'u' || !read_unit(t, &c))
		return 0;
	if (c >= 0xd800 && c < 0xdc00 && t->end - t->at > 2 && t->at[0] == '\\' && t->at[1] == 'u') {
		t->at += 2;
		if (!read_unit(t, &low) || low < 0xdc00 || low > 0xdfff)
			return 0;
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	}
	return c && (c < 0xd800 || c > 0xdfff) ? encode(c, to) : 0;
}

char *skim_string(const struct skim *value)
{
	bool is_string = value->text && value->n >= 2 && value->text[0] == '"';
	struct text t = {0};
	char *out = malloc(is_string ? value->n : 1), *to = out;

	if (is_string)
		t = (struct text){value->text + 1, value->text + value->n - 1};
	while (out && t.at < t.end) {
		if (*t.at != '\\') {
			*to++ = *t.at++;
			continue;
		}
		t.at++;
		size_t n = read_escape(&t, to);
		if (!n)
			break;
		to += n;
	}
	if (out)
		*to = 0;
	return out;
}
