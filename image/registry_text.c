/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_text.c - what a registry's answer says, in words that can be shown to a user
 *
 * Theory of operation: the bodies of errors are JSON by the distribution spec ({"errors":[{"code","message"}]}), and
 * something else from token servers, proxies and web servers. Whatever they are, the server chose the bytes: what is
 * shown is one bounded line of printable ASCII, and nothing at all when it repeats the credentials that were sent.
 */
#include "base/cleanup.h"
#include "image/registry_private.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <string.h>
#include <strings.h>

#define TEXT_SIZE 256
#define ERRORS_SHOWN 3

const char *endpoint_host(const char *host)
{
	return strcmp(host, "docker.io") == 0 ? "registry-1.docker.io" : host;
}

bool host_is_loopback(const char *host)
{
	char name[64];
	struct in_addr address;
	size_t n = strcspn(host, ":");
	if (host[0] == '[') {
		n = strcspn(host, "]");
		return strncmp(host, "[::1]", n + 1) == 0;
	}
	if (n >= sizeof(name))
		return false;
	memcpy(name, host, n);
	name[n] = 0;
	if (strcasecmp(name, "localhost") == 0)
		return true;
	return inet_pton(AF_INET, name, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

/** Append @words to @text, as printable ASCII. */
static void text_add(char text[TEXT_SIZE], const char *separator, const char *words)
{
	size_t n = strlen(text);
	if (!words || !*words)
		return;
	for (; n && *separator && n < TEXT_SIZE - 1; separator++)
		text[n++] = *separator;
	for (; *words && n < TEXT_SIZE - 1; words++) {
		bool space = *words == '\n' || *words == '\t' || *words == '\r';
		text[n++] = space ? ' ' : *words < ' ' || *words > '~' ? '?' : *words;
	}
	text[n] = 0;
}

static void text_of_errors(json_t *errors, char text[TEXT_SIZE])
{
	size_t i;
	json_t *item;
	json_array_foreach(errors, i, item)
	{
		const char *code = json_string_value(json_object_get(item, "code"));
		const char *message = json_string_value(json_object_get(item, "message"));
		if (i == ERRORS_SHOWN)
			break;
		text_add(text, ", ", code);
		text_add(text, code && *code ? ": " : ", ", message);
	}
}

/** Whether @text repeats a part of what was sent to prove who the user is. */
static bool repeats_secret(const struct transfer *t, const char *text)
{
	const char *sent[] = {t->authorization ? strchr(t->authorization, ' ') : NULL, t->secret, t->form};
	for (size_t i = 0; i < ARRAY_SIZE(sent); i++) {
		const char *secret = sent[i];
		if (!secret || !*secret)
			continue;
		/* Its beginning gives it away too, as where the text was cut. */
		char start[25];
		snprintf(start, sizeof(start), "%s", *secret == ' ' ? secret + 1 : secret);
		if (*start && strstr(text, start))
			return true;
	}
	return false;
}

void answer_text(const struct transfer *t, char text[TEXT_SIZE])
{
	static const char *const members[] = {"message", "details", "error", "error_description"};
	text[0] = 0;
	if (!t->body.size)
		return;
	json_t *answer = json_loadb((const char *)buffer_bytes(&t->body), t->body.size, 0, NULL);
	text_of_errors(json_object_get(answer, "errors"), text);
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		text_add(text, ", ", json_string_value(json_object_get(answer, members[i])));
	json_decref(answer);
	if (!answer && !answer_is_html(t)) {
		char plain[TEXT_SIZE];
		snprintf(plain, sizeof(plain), "%.*s", (int)t->body.size, (const char *)buffer_bytes(&t->body));
		text_add(text, "", plain);
	}
	for (size_t n = strlen(text); n && text[n - 1] == ' '; n--)
		text[n - 1] = 0;
	if (repeats_secret(t, text))
		text[0] = 0;
}

bool answer_is_html(const struct transfer *t)
{
	static const char *const starts[] = {"<!doctype", "<html", "<head", "<?xml"};
	if (strcmp(t->content_type, "text/html") == 0)
		return true;
	for (size_t i = 0; t->body.size && i < ARRAY_SIZE(starts); i++) {
		size_t n = strlen(starts[i]);
		if (t->body.size >= n && strncasecmp((const char *)buffer_bytes(&t->body), starts[i], n) == 0)
			return true;
	}
	return false;
}

static int status_code(long status)
{
	switch (status) {
	case 401:
	case 403:
		return -EACCES;
	case 404:
		return -ENOENT;
	case 429:
		return -EBUSY;
	default:
		return status >= 500 ? -EREMOTEIO : -EPROTO;
	}
}

int status_error(const struct transfer *t, const char *login_host, bool had_credential, struct husk_error *err)
{
	char said[TEXT_SIZE], advice[TEXT_SIZE] = "";
	answer_text(t, said);
	bool html = answer_is_html(t);
	if (t->status == 401 || (t->status == 403 && !had_credential))
		snprintf(advice, sizeof(advice), "%s, or there is no such image: husk login %s",
			had_credential ? "the stored login is not accepted" : "a login is needed", login_host);
	else if (t->status == 403)
		snprintf(advice, sizeof(advice), "the login that is stored for %s may not do this", login_host);
	else if (html)
		snprintf(
			advice, sizeof(advice), "it answered with a web page: not a registry, or something in between");
	else if (t->status == 404 && t->not_found)
		snprintf(advice, sizeof(advice), "%s", t->not_found);
	else if (t->status == 429)
		snprintf(advice, sizeof(advice), "too many requests: wait, or husk login %s for a higher limit",
			login_host);
	else if (t->status >= 500)
		snprintf(advice, sizeof(advice), "the registry has a fault, also after several tries; try again later");
	return error_set(err, status_code(t->status), "%s: %s answered HTTP %ld%s%s%s%s%s", t->what, t->host, t->status,
		*said ? " (" : "", said, *said ? ")" : "", *advice ? "; " : "", advice);
}
