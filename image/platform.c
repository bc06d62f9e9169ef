/* SPDX-License-Identifier: Apache-2.0 */
/*
 * platform.c - "os/architecture[/variant]", normalised and matched as containerd does
 *
 * Theory of operation: names are first brought to one form (containerd's platforms package: x86_64 is amd64, aarch64 is
 * arm64, arm64's v8 and amd64's v1 are the default and go away, arm without variant is v7). A machine runs what was made
 * for an earlier variant of its architecture, and 32-bit programs of its family; a rank orders these, nearest first.
 */
#include "image/platform.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

static const struct {
	const char *name, *architecture, *variant;
} aliases[] = {
	{"x86_64", "amd64", ""},
	{"x86-64", "amd64", ""},
	{"aarch64", "arm64", ""},
	{"i386", "386", ""},
	{"i686", "386", ""},
	{"armhf", "arm", "v7"},
	{"armel", "arm", "v6"},
	{"armv7l", "arm", "v7"},
	{"armv6l", "arm", "v6"},
};

static void set_field(char out[PLATFORM_FIELD], const char *text)
{
	size_t n = text ? strlen(text) : 0;
	if (n >= PLATFORM_FIELD) {
		text = "unknown";
		n = strlen(text);
	}
	for (size_t i = 0; i < n; i++)
		out[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] - 'A' + 'a') : text[i];
	memset(out + n, 0, PLATFORM_FIELD - n);
}

static void normalise(struct platform *p)
{
	for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++)
		if (strcmp(p->architecture, aliases[i].name) == 0) {
			set_field(p->architecture, aliases[i].architecture);
			if (!p->variant[0])
				set_field(p->variant, aliases[i].variant);
			break;
		}
	if (p->variant[0] >= '0' && p->variant[0] <= '9' && !p->variant[1]) {
		p->variant[1] = p->variant[0];
		p->variant[0] = 'v';
	}
	if (strcmp(p->architecture, "arm64") == 0 && strcmp(p->variant, "v8") == 0)
		set_field(p->variant, "");
	if (strcmp(p->architecture, "amd64") == 0 && strcmp(p->variant, "v1") == 0)
		set_field(p->variant, "");
	if (strcmp(p->architecture, "arm") == 0 && !p->variant[0])
		set_field(p->variant, "v7");
}

void platform_set(struct platform *out, const char *os, const char *architecture, const char *variant)
{
	set_field(out->os, os);
	set_field(out->architecture, architecture);
	set_field(out->variant, variant);
	normalise(out);
}

static bool field_valid(const char *text, size_t n)
{
	if (!n || n >= PLATFORM_FIELD)
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = text[i];
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
			    c == '-' || c == '.'))
			return false;
	}
	return true;
}

int platform_parse(const char *text, struct platform *out, struct husk_error *err)
{
	if (!text) {
		struct utsname machine;
		platform_set(out, "linux", uname(&machine) == 0 ? machine.machine : "amd64", NULL);
		return 0;
	}
	char fields[3][PLATFORM_FIELD] = {{0}};
	size_t n = 0;
	for (const char *at = text;; n++) {
		size_t length = strcspn(at, "/");
		if (n == 3 || !field_valid(at, length))
			return error_set(
				err, -EINVAL, "platform '%.80s': not of the form os/architecture[/variant]", text);
		memcpy(fields[n], at, length);
		at += length;
		if (!*at)
			break;
		at++;
	}
	if (n == 0)
		platform_set(out, "linux", fields[0], NULL);
	else
		platform_set(out, fields[0], fields[1], fields[2]);
	return 0;
}

/** The number of "vN", or @none when there is no variant, or -1. */
static int variant_number(const char *variant, int none)
{
	if (!variant[0])
		return none;
	if (variant[0] == 'v' && variant[1] >= '1' && variant[1] <= '9' && !variant[2])
		return variant[1] - '0';
	return -1;
}

int platform_rank(const struct platform *want, const struct platform *have)
{
	if (strcmp(want->os, have->os) != 0)
		return -1;
	bool amd64 = strcmp(want->architecture, "amd64") == 0, arm64 = strcmp(want->architecture, "arm64") == 0;
	bool arm = strcmp(want->architecture, "arm") == 0;
	if (strcmp(want->architecture, have->architecture) == 0) {
		int none = amd64 ? 1 : arm64 ? 8 : 7;
		int wanted = variant_number(want->variant, none), had = variant_number(have->variant, none);
		if (strcmp(want->variant, have->variant) == 0)
			return 0;
		if (!(amd64 || arm || arm64) || wanted < 0 || had < 0 || had > wanted || (arm && had < 5))
			return -1;
		return wanted - had;
	}
	if (amd64 && strcmp(have->architecture, "386") == 0)
		return 20;
	if (arm64 && strcmp(have->architecture, "arm") == 0) {
		int had = variant_number(have->variant, 7);
		return had >= 5 && had <= 8 ? 20 + 8 - had : -1;
	}
	return -1;
}

void platform_format(const struct platform *platform, char text[3 * PLATFORM_FIELD])
{
	snprintf(text, 3 * PLATFORM_FIELD, "%s/%s%s%s", platform->os, platform->architecture,
		platform->variant[0] ? "/" : "", platform->variant);
}
