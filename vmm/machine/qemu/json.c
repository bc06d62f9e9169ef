/* SPDX-License-Identifier: Apache-2.0 */
/* json.c - a bounded, strict JSON tokenizer for QMP (theory of operation: json.h) */
#include "vmm/machine/qemu/json.h"

#include <errno.h>
#include <string.h>

/** Where the pass stands. */
struct scan {
	const char *text;
	size_t size, at;
	struct json_token *tokens;
	size_t max;
	uint32_t n;
};

static int scan_value(struct scan *s, int depth);

static int peek(const struct scan *s)
{
	return s->at < s->size ? (unsigned char)s->text[s->at] : -1;
}

static void skip_space(struct scan *s)
{
	while (s->at < s->size && memchr(" \t\r\n", s->text[s->at], 4))
		s->at++;
}

static struct json_token *token_open(struct scan *s, enum json_kind kind)
{
	if (s->n == s->max)
		return NULL;
	struct json_token *token = &s->tokens[s->n++];
	*token = (struct json_token){.kind = kind, .start = (uint32_t)s->at};
	return token;
}

static void token_close(struct scan *s, struct json_token *token, size_t end)
{
	token->size = (uint32_t)end - token->start;
	token->next = s->n;
}

static bool is_digit(int c)
{
	return c >= '0' && c <= '9';
}

static bool is_hex(int c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/** Past one escape, whose backslash stands at s->at. */
static bool skip_escape(struct scan *s)
{
	s->at++;
	int c = peek(s);
	if (c < 0 || !memchr("\"\\/bfnrtu", c, 9))
		return false;
	s->at++;
	for (int i = 0; c == 'u' && i < 4; i++, s->at++)
		if (!is_hex(peek(s)))
			return false;
	return true;
}

static int scan_string(struct scan *s)
{
	s->at++;
	struct json_token *token = token_open(s, JSON_STRING);
	if (!token)
		return -E2BIG;
	for (;;) {
		int c = peek(s);
		if (c < 0x20) /* the end, or a control character */
			return -EPROTO;
		if (c == '"')
			break;
		if (c != '\\')
			s->at++;
		else if (!skip_escape(s))
			return -EPROTO;
	}
	token_close(s, token, s->at);
	s->at++;
	return 0;
}

static bool skip_digits(struct scan *s)
{
	size_t begin = s->at;
	while (is_digit(peek(s)))
		s->at++;
	return s->at > begin;
}

static int scan_number(struct scan *s)
{
	struct json_token *token = token_open(s, JSON_NUMBER);
	if (!token)
		return -E2BIG;
	if (peek(s) == '-')
		s->at++;
	if (peek(s) == '0')
		s->at++;
	else if (!skip_digits(s))
		return -EPROTO;
	if (peek(s) == '.') {
		s->at++;
		if (!skip_digits(s))
			return -EPROTO;
	}
	if (peek(s) == 'e' || peek(s) == 'E') {
		s->at++;
		if (peek(s) == '+' || peek(s) == '-')
			s->at++;
		if (!skip_digits(s))
			return -EPROTO;
	}
	token_close(s, token, s->at);
	return 0;
}

static int scan_word(struct scan *s, const char *word, enum json_kind kind)
{
	size_t n = strlen(word);
	struct json_token *token = token_open(s, kind);
	if (!token)
		return -E2BIG;
	if (s->size - s->at < n || memcmp(s->text + s->at, word, n) != 0)
		return -EPROTO;
	s->at += n;
	token_close(s, token, s->at);
	return 0;
}

/** One `"name":` of an object. */
static int scan_name(struct scan *s)
{
	skip_space(s);
	if (peek(s) != '"')
		return -EPROTO;
	int rc = scan_string(s);
	if (rc < 0)
		return rc;
	skip_space(s);
	if (peek(s) != ':')
		return -EPROTO;
	s->at++;
	return 0;
}

static int scan_container(struct scan *s, enum json_kind kind, int depth)
{
	char end = kind == JSON_OBJECT ? '}' : ']';
	struct json_token *token = token_open(s, kind);
	if (!token || depth == JSON_DEPTH_MAX)
		return -E2BIG;
	s->at++;
	skip_space(s);
	bool more = peek(s) != end;
	while (more) {
		int rc = kind == JSON_OBJECT ? scan_name(s) : 0;
		if (rc == 0)
			rc = scan_value(s, depth + 1);
		if (rc < 0)
			return rc;
		skip_space(s);
		more = peek(s) == ',';
		if (!more && peek(s) != end)
			return -EPROTO;
		if (more)
			s->at++;
	}
	s->at++;
	token_close(s, token, s->at);
	return 0;
}

static int scan_value(struct scan *s, int depth)
{
	skip_space(s);
	switch (peek(s)) {
	case '{':
		return scan_container(s, JSON_OBJECT, depth);
	case '[':
		return scan_container(s, JSON_ARRAY, depth);
	case '"':
		return scan_string(s);
	case 't':
		return scan_word(s, "true", JSON_TRUE);
	case 'f':
		return scan_word(s, "false", JSON_FALSE);
	case 'n':
		return scan_word(s, "null", JSON_NULL);
	default:
		return scan_number(s);
	}
}

int json_parse(struct json *json, const char *text, size_t size, struct json_token *tokens, size_t max)
{
	struct scan s = {.text = text, .size = size, .tokens = tokens, .max = max};

	if (size > UINT32_MAX)
		return -E2BIG;
	int rc = scan_value(&s, 0);
	if (rc < 0)
		return rc;
	skip_space(&s);
	if (s.at != size)
		return -EPROTO;
	*json = (struct json){.text = text, .tokens = tokens, .n = s.n};
	return 0;
}

long json_member(const struct json *json, long object, const char *name)
{
	if (object < 0 || json->tokens[object].kind != JSON_OBJECT)
		return -1;
	uint32_t end = json->tokens[object].next;
	for (uint32_t at = (uint32_t)object + 1; at < end; at = json->tokens[at + 1].next)
		if (json_is(json, at, name))
			return at + 1;
	return -1;
}

bool json_is(const struct json *json, long at, const char *text)
{
	if (at < 0 || json->tokens[at].kind != JSON_STRING)
		return false;
	const struct json_token *token = &json->tokens[at];
	return token->size == strlen(text) && memcmp(json->text + token->start, text, token->size) == 0;
}

bool json_number(const struct json *json, long at, uint64_t *out)
{
	uint64_t value = 0;

	if (at < 0 || json->tokens[at].kind != JSON_NUMBER)
		return false;
	const struct json_token *token = &json->tokens[at];
	for (uint32_t i = 0; i < token->size; i++) {
		unsigned digit = (unsigned char)json->text[token->start + i] - '0';
		if (digit > 9 || value > (INT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*out = value;
	return true;
}

void json_copy(const struct json *json, long at, char *out, size_t room)
{
	size_t n = 0;

	if (at >= 0 && json->tokens[at].kind == JSON_STRING)
		for (; n < json->tokens[at].size && n + 1 < room; n++) {
			char c = json->text[json->tokens[at].start + n];
			out[n] = c >= 0x20 && c <= 0x7e ? c : '?';
		}
	out[n] = 0;
}
