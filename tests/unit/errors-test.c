/* SPDX-License-Identifier: Apache-2.0 */
/* errors-test.c - what QEMU says on its stderr reaches the log in lines, printable and bounded */
#include "vmm/supervisor/supervisor.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <sys/mman.h>

static struct supervisor s = {.machine = {.name = "QEMU"}};
static int qemu; /* its end of the pipe */
static struct buffer b;

static void say(const char *text)
{
	CHECK(write(qemu, text, strlen(text)) == (ssize_t)strlen(text), "QEMU says something");
	errors_drain(&s);
}

static const char *logged(void)
{
	buffer_free(&b);
	b = (struct buffer){0};
	if (lseek(s.config.log_fd, 0, SEEK_SET) < 0 || fd_read_to_end(s.config.log_fd, &b, 8 << 20) < 0 ||
		buffer_append(&b, "", 1) < 0)
		return "";
	return (const char *)buffer_bytes(&b);
}

static void test_lines(void)
{
	say("first\nsec");
	const char *text = logged();
	CHECK(strstr(text, "Z QEMU: first\n") == text + 29 && !strstr(text, "sec"),
		"a line is logged with its time when it is whole");
	CHECK_STRING(errors_last(&s), "sec", "what there is of the last one explains an end");
	say("ond\r\n\n\033[2J\xff\n");
	text = logged();
	CHECK(strstr(text, "Z QEMU: second\n") && strstr(text, "Z QEMU: ?[2J?\n"), "what is not printable is not");
	CHECK_STRING(errors_last(&s), "?[2J?", "an empty line explains nothing");
	char large[2 * ERROR_LINE + 20];
	memset(large, 'x', sizeof(large));
	large[sizeof(large) - 2] = '\n';
	large[sizeof(large) - 1] = 0;
	say(large);
	CHECK(strlen(errors_last(&s)) == sizeof(large) - 2 - 2 * ERROR_LINE, "a long line becomes several");
}

static void test_bound(void)
{
	char line[101];
	size_t before = strlen(logged());

	memset(line, 'y', sizeof(line));
	line[99] = '\n';
	line[100] = 0;
	for (int i = 0; i < 11000; i++) {
		if (write(qemu, line, 100) != 100)
			break;
		errors_drain(&s);
	}
	const char *text = logged(), *told = strstr(text, "nothing more of it is kept\n");
	CHECK(told && strlen(told) == 27 && strstr(text, "QEMU has said 1048576 bytes"),
		"after 1 MiB it is said that no more is kept");
	CHECK(strlen(text) - before < (3 << 19), "and so it is");
	size_t whole = strlen(text);
	say("the last words\n");
	CHECK(strlen(logged()) == whole && strcmp(errors_last(&s), "the last words") == 0,
		"what comes then is known all the same");
	close(qemu);
	CHECK(!errors_read(&s), "until its end");
}

int main(void)
{
	int pair[2];

	s.config.log_fd = memfd_create("log", MFD_CLOEXEC);
	CHECK(pipe2(pair, O_CLOEXEC) == 0 && fd_set_nonblocking(pair[0], true) == 0 && s.config.log_fd >= 0,
		"a pipe and a log");
	fcntl(s.config.log_fd, F_SETFL, O_APPEND);
	s.errors.fd = pair[0];
	qemu = pair[1];
	test_lines();
	test_bound();
	buffer_free(&b);
	return tap_done();
}
