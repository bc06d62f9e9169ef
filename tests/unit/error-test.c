/* SPDX-License-Identifier: Apache-2.0 */
/* error-test.c - a failed call's code arrives whether or not its caller wants a message, and a message is never too long */
#include "base/error.h"
#include "tests/tap.h"

#include <string.h>

#define LONGEST (HUSK_ERROR_MESSAGE_MAX - 1)

/** A text that no message has room for. */
static char long_text[2 * HUSK_ERROR_MESSAGE_MAX];

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);
	return n >= m && strcmp(text + n - m, end) == 0;
}

static void test_set(void)
{
	struct husk_error err = {0};

	CHECK(error_set(&err, -EINVAL, "%d is not %s", 7, "even") == -EINVAL && err.code == -EINVAL,
		"error_set() returns the code and leaves it in the error");
	CHECK_STRING(err.message, "7 is not even", "its message is formatted");
	CHECK(error_set(&err, -ENOENT, "gone") == -ENOENT && err.code == -ENOENT, "a second error replaces the code");
	CHECK_STRING(err.message, "gone", "and the message");
	CHECK(error_set(NULL, -EBUSY, "%s", "nobody reads this") == -EBUSY,
		"without an error the code is returned, too");
	CHECK(error_set(&err, -E2BIG, "%s", long_text) == -E2BIG && strlen(err.message) == LONGEST,
		"a message that is too long is cut and ends in a NUL");
}

static void test_errno(void)
{
	struct husk_error err = {0};
	char want[HUSK_ERROR_MESSAGE_MAX];

	errno = EACCES;
	CHECK(error_errno(&err, "open %s", "/x") == -EACCES && err.code == -EACCES,
		"error_errno() takes errno for the code");
	snprintf(want, sizeof(want), "open /x: %s", strerror(EACCES));
	CHECK_STRING(err.message, want, "and appends its text to the message");
	errno = ENOSPC;
	CHECK(error_errno(NULL, "write") == -ENOSPC, "without an error the code is returned, too");
	errno = 0;
	CHECK(error_errno(&err, "read") == -EIO && err.code == -EIO, "a failure without errno is no success");
	errno = 0;
	CHECK(error_errno(NULL, "read") == -EIO, "nor is it one without an error");
	errno = EACCES;
	CHECK(error_errno(&err, "%s", long_text) == -EACCES && strlen(err.message) == LONGEST,
		"a message that leaves no room for errno's text is cut");
	errno = EACCES;
	error_errno(&err, "%.*s", (int)LONGEST - 4, long_text);
	CHECK(strlen(err.message) == LONGEST && memcmp(err.message + LONGEST - 4, ": ", 2) == 0 &&
			memcmp(err.message + LONGEST - 2, strerror(EACCES), 2) == 0,
		"errno's text is cut where the message is full");
}

static void test_prefix(void)
{
	struct husk_error err = {0};

	int rc = error_set(&err, -EINVAL, "bad byte");
	CHECK(error_prefix(&err, rc, "line %d", 3) == -EINVAL && err.code == -EINVAL, "error_prefix() keeps the code");
	CHECK_STRING(err.message, "line 3: bad byte", "and puts its context in front of the message");
	CHECK(error_prefix(&err, rc, "file %s", "f") == -EINVAL, "which can be done again");
	CHECK_STRING(err.message, "file f: line 3: bad byte", "with the outer context first");
	CHECK(error_prefix(NULL, -EINVAL, "line 3") == -EINVAL && error_prefix(NULL, -ENOMEM, "line 3") == -ENOMEM,
		"without an error the code is that of the failed call, too");
	CHECK(error_prefix(&err, -EBADMSG, "record") == -EBADMSG && err.code == -EBADMSG,
		"a caller that calls the failure another name has both say so");
}

static void test_prefix_truncation(void)
{
	struct husk_error err = {0};

	error_set(&err, -EINVAL, "%.*send", (int)LONGEST - 3, long_text);
	CHECK(strlen(err.message) == LONGEST && ends_with(err.message, "end"),
		"a message can be as long as there is room");
	CHECK(error_prefix(&err, -EINVAL, "line 3") == -EINVAL && strlen(err.message) == LONGEST &&
			strncmp(err.message, "line 3: x", 9) == 0 && ends_with(err.message, "x"),
		"a context pushes the end of a full message out");
	error_set(&err, -EINVAL, "bad byte");
	CHECK(error_prefix(&err, -EINVAL, "%s", long_text) == -EINVAL && strlen(err.message) == LONGEST &&
			!strchr(err.message, ':'),
		"a context that is too long leaves nothing of the message");
	error_set(&err, -EINVAL, "bad byte");
	error_prefix(&err, -EINVAL, "%.*s", (int)LONGEST - 5, long_text);
	CHECK(strlen(err.message) == LONGEST && ends_with(err.message, "x: bad"), "and a shorter one, its beginning");
}

int main(void)
{
	memset(long_text, 'x', sizeof(long_text) - 1);
	test_set();
	test_errno();
	test_prefix();
	test_prefix_truncation();
	return tap_done();
}
