/* SPDX-License-Identifier: Apache-2.0 */
/* reference-test.c - image references normalise as Docker's do, and what is none is refused */
#include "image/reference.h"

#include "base/cleanup.h"
#include "tests/tap.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX

static void check_normal(const char *text, const char *canonical, const char *familiar)
{
	CLEANUP(reference_free) struct reference ref = {0};
	struct husk_error err = {0};
	if (reference_parse(text, &ref, &err) < 0) {
		CHECK_STRING(err.message, "parsed", text);
		return;
	}
	CLEANUP_FREE char *full = reference_format(&ref);
	CLEANUP_FREE char *brief = reference_familiar(&ref);
	CHECK_STRING(full, canonical, text);
	CHECK_STRING(brief, familiar, text);
	CLEANUP(reference_free) struct reference again = {0};
	CHECK(reference_parse(brief, &again, &err) == 0 && strcmp(again.registry, ref.registry) == 0 &&
			strcmp(again.repository, ref.repository) == 0,
		"the familiar form reads back as the same image");
}

static void check_refused(const char *text, const char *why)
{
	struct reference ref = {0};
	struct husk_error err = {0};
	CHECK(reference_parse(text, &ref, &err) == -EINVAL && strstr(err.message, why) && !ref.registry, text);
	if (!strstr(err.message, why))
		printf("# message: %s\n", err.message);
}

static void test_normal(void)
{
	static const struct {
		const char *text, *canonical, *familiar;
	} cases[] = {
		{"debian", "docker.io/library/debian:latest", "debian:latest"},
		{"debian:12", "docker.io/library/debian:12", "debian:12"},
		{"docker.io/debian", "docker.io/library/debian:latest", "debian:latest"},
		{"index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"},
		{"docker.io/library/debian:12", "docker.io/library/debian:12", "debian:12"},
		{"user/app:v1.2-rc_3", "docker.io/user/app:v1.2-rc_3", "user/app:v1.2-rc_3"},
		{"localhost/app", "localhost/app:latest", "localhost/app:latest"},
		{"localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"},
		{"localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"},
		{"127.0.0.1:5000/a/b/c:t", "127.0.0.1:5000/a/b/c:t", "127.0.0.1:5000/a/b/c:t"},
		{"[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"},
		{"Quay.IO/a/b", "quay.io/a/b:latest", "quay.io/a/b:latest"},
		{"ghcr.io/a.b/c__d/e---f_g", "ghcr.io/a.b/c__d/e---f_g:latest", "ghcr.io/a.b/c__d/e---f_g:latest"},
		{"debian@" DIGEST, "docker.io/library/debian@" DIGEST, "debian@" DIGEST},
		{"debian:12@" DIGEST, "docker.io/library/debian:12@" DIGEST, "debian:12@" DIGEST},
		{"docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"},
		{"docker.io/localhost/c", "docker.io/localhost/c:latest", "docker.io/localhost/c:latest"},
		{"docker.io/" HEX, "docker.io/library/" HEX ":latest", "library/" HEX ":latest"},
		{"library/debian", "docker.io/library/debian:latest", "debian:latest"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_normal(cases[i].text, cases[i].canonical, cases[i].familiar);
}

static void test_refused(void)
{
	static const char *const cases[][2] = {
		{"", "empty"},
		{"Debian", "lower case"},
		{"docker.io/Debian", "lower case"},
		{"debian:", "not a tag"},
		{"debian:.x", "not a tag"},
		{"debian:-x", "not a tag"},
		{"debian:a/b", "not a registry"},
		{"a:99999/b", "not a registry"},
		{"a:0x1/b", "not a registry"},
		{"-a.b/c", "not a registry"},
		{"a..b/c", "not a registry"},
		{"[::1/c", "not a registry"},
		{"a//b", "not a repository"},
		{"/a", "not a repository"},
		{"a/", "not a repository"},
		{"../a", "not a registry"},
		{"a/../b", "not a repository"},
		{"a___b", "not a repository"},
		{"a_.b", "not a repository"},
		{"-a", "not a repository"},
		{"a b", "no name may hold"},
		{"a\n", "no name may hold"},
		{"d\xc3\xa9", "no name may hold"},
		{HEX, "image id"},
		{"debian@", "sha256"},
		{"debian@sha256:abc", "64 lower-case"},
		{"debian@" DIGEST "0", "64 lower-case"},
		{"debian@sha512:" HEX HEX, "only sha256"},
		{"debian@" DIGEST "@" DIGEST, "64 lower-case"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_refused(cases[i][0], cases[i][1]);
}

static void test_lengths(void)
{
	char text[4096];
	struct husk_error err = {0};
	CLEANUP(reference_free) struct reference ref = {0};
	size_t tag = strlen("debian:") + 128;
	snprintf(text, sizeof(text), "debian:");
	memset(text + strlen(text), 't', 128);
	text[tag] = 0;
	CHECK(reference_parse(text, &ref, &err) == 0, "a tag of 128 characters is taken");
	snprintf(text + tag, sizeof(text) - tag, "t");
	CHECK(reference_parse(text, &(struct reference){0}, &err) == -EINVAL, "a tag of 129 characters is refused");
	memset(text, 'a', 256);
	text[256] = 0;
	CHECK(reference_parse(text, &(struct reference){0}, &err) == -EINVAL, "a repository beyond 255 is refused");
	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	CHECK(reference_parse(text, &(struct reference){0}, &err) == -EINVAL, "an endless name is refused");
}

static void test_digest(void)
{
	struct husk_error err = {0};
	CHECK(digest_check(DIGEST, &err) == 0, "a sha256 digest is taken");
	CHECK(digest_check("sha256:"
			   "A123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		      &err) == -EINVAL,
		"upper-case hex is refused");
	CHECK(digest_check("", &err) == -EINVAL && digest_check("sha256:", &err) == -EINVAL, "no hex is refused");
}

int main(void)
{
	test_normal();
	test_refused();
	test_lengths();
	test_digest();
	return tap_done();
}
