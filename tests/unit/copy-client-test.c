/* SPDX-License-Identifier: Apache-2.0 */
/* copy-client-test.c - trees between host and guest: what goes round, and a guest that wants to write elsewhere */
#include "tests/unit/scripted_agent.h"

#include "base/loop.h"
#include "base/tlv.h"
#include "engine/copy.h"
#include "tests/tap.h"

#include <poll.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/stat.h>

static struct scripted_agent agent;
static char outside[160], target[160]; /* a directory that is not to be touched, and where copies go */

static struct husk_copy_options options = {.size = sizeof(options), .timeout_ms = 10000, .cancel_fd = -1};

static void shell(const char *format, ...)
{
	char command[1024];
	va_list args;
	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	if (system(command) != 0)
		abort();
}

/** What the agent says behind HELLO to a request, and then waits for the library's end. */
static void script_bytes(int fd, void *data)
{
	struct buffer in = {0}, copy = {0};
	const struct buffer *said = data;
	struct agent_frame frame;
	if (scripted_hear(fd, &in, &frame) && scripted_hear(fd, &in, &frame)) {
		agent_hello_put(&copy);
		buffer_append(&copy, buffer_bytes(said), said->size);
		scripted_say(fd, &copy);
		shutdown(fd, SHUT_WR);
		scripted_drain(fd);
	}
	buffer_free(&in);
}

static void entry(struct buffer *b, enum agent_entry_type type, const char *name, const char *link, uint64_t size)
{
	struct agent_entry *e = calloc(1, sizeof(*e));
	e->type = type;
	e->mode = type == AGENT_DIRECTORY ? 0755 : 06755;
	e->size = size;
	e->mtime_ns = 1234567890123456789;
	snprintf(e->name, sizeof(e->name), "%s", name);
	snprintf(e->link, sizeof(e->link), "%s", link ? link : "");
	if (agent_entry_put(b, e) < 0)
		abort();
	free(e);
}

static void end(struct buffer *b)
{
	agent_frame_put(b, AGENT_END, 0, NULL, 0);
}

/** Begin with an empty target, and a tree with its root. */
static void fresh(struct buffer *b)
{
	shell("rm -rf %s && mkdir %s", target, target);
	buffer_free(b);
	entry(b, AGENT_DIRECTORY, "", NULL, 0);
}

static int take(struct buffer *b, struct husk_error *err)
{
	scripted_begin(&agent, script_bytes, b);
	return copy_out(&agent.husk, SCRIPTED_ID, "/tree", target, &options, err);
}

static bool is_there(const char *name, struct stat *st)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/%s", target, name);
	return lstat(path, st) == 0;
}

static void test_good(void)
{
	struct buffer b = {0};
	struct husk_error err;
	struct stat st, other;
	fresh(&b);
	entry(&b, AGENT_DIRECTORY, "d", NULL, 0);
	entry(&b, AGENT_FILE, "d/f\nx", NULL, 1 << 20);
	agent_data_put(&b, 0, "begin", 5);
	agent_data_put(&b, (1 << 20) - 3, "end", 3);
	entry(&b, AGENT_HARDLINK, "h", "d/f\nx", 0);
	entry(&b, AGENT_SYMLINK, "s", "/etc/passwd", 0);
	entry(&b, AGENT_FIFO, "p", NULL, 0);
	end(&b);
	CHECK(take(&b, &err) == 0, "a tree is written");
	CHECK(is_there("tree/d/f\nx", &st) && st.st_size == 1 << 20 && st.st_mtim.tv_sec == 1234567890 &&
			st.st_mtim.tv_nsec == 123456789,
		"a file has its size and time, whatever its name");
	CHECK(st.st_blocks * 512 < 1 << 19, "a hole stays one");
	CHECK((st.st_mode & 07777) == 0755, "set-id bits are not taken over");
	CHECK(is_there("tree/h", &other) && other.st_ino == st.st_ino, "a hard link is one");
	CHECK(is_there("tree/s", &st) && S_ISLNK(st.st_mode), "a symbolic link is one");
	CHECK(is_there("tree/d", &st) && st.st_mtim.tv_sec == 1234567890,
		"a directory has its time though it was filled");
	CHECK(is_there("tree/p", &st) && S_ISFIFO(st.st_mode), "so is a fifo");
	buffer_free(&b);
}

/** Trees that want out, or to make what must not be. Each is refused, and what is outside stays as it is. */
static void test_escapes(void)
{
	static const struct {
		const char *what;
		int rc;
		struct {
			enum agent_entry_type type;
			const char *name, *link;
		} entries[4];
	} escapes[] = {
		{"nothing is written through a link that came before", -ELOOP,
			{{AGENT_SYMLINK, "l", "OUTSIDE"}, {AGENT_FILE, "l/x", NULL}}},
		{"a directory is not made through one", -ELOOP,
			{{AGENT_SYMLINK, "l", "OUTSIDE"}, {AGENT_DIRECTORY, "l/x", NULL}}},
		{"a link is not taken for the directory of its name", -ENOTDIR,
			{{AGENT_SYMLINK, "l", "OUTSIDE"}, {AGENT_DIRECTORY, "l", NULL}, {AGENT_FILE, "l/x", NULL}}},
		{"a relative link out leads nowhere", -ELOOP,
			{{AGENT_DIRECTORY, "d", NULL}, {AGENT_SYMLINK, "d/l", "../../../outside"},
				{AGENT_FILE, "d/l/x", NULL}}},
		{"no hard link goes through a link", -ELOOP,
			{{AGENT_SYMLINK, "l", "OUTSIDE"}, {AGENT_HARDLINK, "h", "l/kept"}}},
		{"no hard link goes to a link", -EPERM,
			{{AGENT_SYMLINK, "l", "OUTSIDE/kept"}, {AGENT_HARDLINK, "h", "l"}}},
		{"no hard link goes to what is not there", -ENOENT, {{AGENT_HARDLINK, "h", "kept"}}},
		{"a directory gives way to nothing", -EISDIR, {{AGENT_DIRECTORY, "d", NULL}, {AGENT_FILE, "d", NULL}}},
		{"a directory that was not sent is not made up", -ENOENT, {{AGENT_FILE, "d/x", NULL}}},
		{"a second root is refused", -EPROTO, {{AGENT_DIRECTORY, "", NULL}}},
	};
	for (size_t i = 0; i < sizeof(escapes) / sizeof(escapes[0]); i++) {
		struct buffer b = {0};
		struct husk_error err;
		struct stat st;
		char kept[200], link[300];
		fresh(&b);
		for (size_t j = 0; j < 4 && escapes[i].entries[j].name; j++) {
			const char *to = escapes[i].entries[j].link;
			bool out = to && strncmp(to, "OUTSIDE", 7) == 0;
			snprintf(link, sizeof(link), "%s%s", out ? outside : to ? to : "", out ? to + 7 : "");
			entry(&b, escapes[i].entries[j].type, escapes[i].entries[j].name, link, 0);
		}
		end(&b);
		int rc = take(&b, &err);
		snprintf(kept, sizeof(kept), "%s/x", outside);
		if (!CHECK(rc == escapes[i].rc && lstat(kept, &st) < 0, escapes[i].what))
			printf("# %d %s\n", rc, rc ? err.message : "");
		snprintf(kept, sizeof(kept), "%s/kept", outside);
		CHECK(lstat(kept, &st) == 0 && st.st_nlink == 1, "and what is outside has no further name");
		buffer_free(&b);
	}
}

/** Raw names that no codec of ours would put. */
static void raw_entry(struct buffer *b, uint32_t type, const char *name, size_t n)
{
	struct buffer payload = {0};
	tlv_put(&payload, AGENT_ENTRY_NAME, name, n);
	tlv_put_u32(&payload, AGENT_ENTRY_TYPE, type);
	agent_frame_put(b, AGENT_ENTRY, 0, buffer_bytes(&payload), payload.size);
	buffer_free(&payload);
}

static void test_names(void)
{
	static const char *const names[] = {"..", "../x", "a/../../x", "/x", "a//b", "./x", "a/", "."};
	struct buffer b = {0};
	struct husk_error err;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		fresh(&b);
		raw_entry(&b, AGENT_DIRECTORY, names[i], strlen(names[i]));
		end(&b);
		CHECK(take(&b, &err) == -EPROTO, names[i]);
	}
	fresh(&b);
	raw_entry(&b, AGENT_DIRECTORY, "a\0b", 3);
	CHECK(take(&b, &err) == -EPROTO, "a name with a NUL is refused");
	buffer_free(&b);
}

static void test_data(void)
{
	struct buffer b = {0};
	struct husk_error err;
	struct stat st;
	uint8_t bytes[24] = {0};
	buffer_free(&b);
	agent_data_put(&b, 0, "x", 1);
	CHECK(take(&b, &err) == -EPROTO, "DATA before an ENTRY is refused");
	buffer_free(&b);
	end(&b);
	CHECK(take(&b, &err) == -EPROTO, "and so is an END");
	fresh(&b);
	agent_data_put(&b, 0, "x", 1);
	CHECK(take(&b, &err) == -EPROTO, "DATA of a directory is refused");
	fresh(&b);
	entry(&b, AGENT_FILE, "f", NULL, 4);
	agent_data_put(&b, 2, "xyz", 3);
	CHECK(take(&b, &err) == -EPROTO && !is_there("tree/f", &st),
		"DATA beyond the size is refused, and half a file is not left");
	fresh(&b);
	entry(&b, AGENT_FILE, "f", NULL, 4);
	agent_data_put(&b, 2, "x", 1);
	agent_data_put(&b, 1, "x", 1);
	CHECK(take(&b, &err) == -EPROTO, "DATA that goes back is refused");
	fresh(&b);
	entry(&b, AGENT_FILE, "f", NULL, INT64_MAX);
	memset(bytes, 0xff, 8);
	agent_frame_put(&b, AGENT_DATA, 0, bytes, sizeof(bytes));
	CHECK(take(&b, &err) == -EPROTO, "an offset that overflows is refused");
	fresh(&b);
	entry(&b, AGENT_CHARACTER, "c", NULL, 0);
	entry(&b, AGENT_SOCKET, "s", NULL, 0);
	end(&b);
	CHECK(take(&b, &err) == 0 && !is_there("tree/c", &st) && !is_there("tree/s", &st),
		"devices and sockets are not made");
	fresh(&b);
	agent_error_put(&b, AGENT_ERROR_ERRNO + EACCES, "%s", "no\033[2J");
	CHECK(take(&b, &err) == -EACCES && strstr(err.message, "no?[2J"),
		"the agent's reason is an error of ours, printable");
	fresh(&b);
	entry(&b, AGENT_FILE, "f", NULL, 1);
	entry(&b, AGENT_FILE, "f", NULL, 2);
	agent_data_put(&b, 0, "ab", 2);
	end(&b);
	CHECK(take(&b, &err) == 0 && is_there("tree/f", &st) && st.st_size == 2,
		"of two files of a name the later one counts");
	buffer_free(&b);
}

/** A tree that is cut at each byte, and one that never ends. */
static void test_cut(void)
{
	struct buffer whole = {0}, b = {0};
	struct husk_error err;
	bool fine = true;
	fresh(&whole);
	entry(&whole, AGENT_FILE, "f", NULL, 3);
	agent_data_put(&whole, 0, "abc", 3);
	end(&whole);
	for (size_t n = 0; n <= whole.size; n++) {
		shell("rm -rf %s && mkdir %s", target, target);
		buffer_append(&b, buffer_bytes(&whole), n);
		int rc = take(&b, &err);
		fine = fine && (n == whole.size ? rc == 0 : rc == -EPROTO);
		buffer_free(&b);
	}
	CHECK(fine, "a connection that ends at any byte before END is an error");
	buffer_free(&whole);
}

/** Take HELLO and the request. */
static void hear_request(int fd)
{
	struct buffer in = {0};
	struct agent_frame frame;
	if (scripted_hear(fd, &in, &frame))
		scripted_hear(fd, &in, &frame);
	buffer_free(&in);
}

static void script_hang(int fd, void *data)
{
	struct buffer b = {0};
	(void)data;
	hear_request(fd);
	agent_hello_put(&b);
	entry(&b, AGENT_DIRECTORY, "", NULL, 0);
	scripted_say(fd, &b);
	scripted_drain(fd);
}

static void script_endless(int fd, void *data)
{
	struct buffer b = {0};
	char name[32];
	(void)data;
	hear_request(fd);
	agent_hello_put(&b);
	entry(&b, AGENT_DIRECTORY, "", NULL, 0);
	for (unsigned i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "%u", i);
		entry(&b, AGENT_DIRECTORY, name, NULL, 0);
		if (b.size > 65536)
			scripted_say(fd, &b);
	}
	scripted_say(fd, &b);
	scripted_drain(fd);
}

static void script_deaf(int fd, void *data)
{
	(void)data;
	poll(&(struct pollfd){.fd = fd, .events = POLLRDHUP}, 1, -1); /* until the library closes */
}

static void test_deadlines(void)
{
	struct husk_error err;
	char big[200];
	struct rusage before, after;
	uint64_t begun = clock_monotonic_ns();
	options.timeout_ms = 300;
	scripted_begin(&agent, script_hang, NULL);
	int rc = copy_out(&agent.husk, SCRIPTED_ID, "/tree", target, &options, &err);
	if (!CHECK(rc == -ETIMEDOUT && clock_monotonic_ns() - begun < 5000000000ull,
		    "an agent that stops in a tree costs timeout_ms"))
		printf("# %d %s\n", rc, rc ? err.message : "");
	scripted_begin(&agent, script_endless, NULL);
	getrusage(RUSAGE_SELF, &before);
	shell("rm -rf %s && mkdir %s", target, target);
	CHECK(copy_out(&agent.husk, SCRIPTED_ID, "/tree", target, &options, &err) == -ETIMEDOUT,
		"a tree goes on and on");
	getrusage(RUSAGE_SELF, &after);
#ifdef __SANITIZE_ADDRESS__ /* which keeps what was freed */
	(void)before, (void)after;
#else
	CHECK(after.ru_maxrss - before.ru_maxrss < 8 << 10, "and does not become memory");
#endif
	snprintf(big, sizeof(big), "%s/big", outside);
	shell("head -c 8000000 /dev/zero > %s", big);
	scripted_begin(&agent, script_deaf, NULL);
	begun = clock_monotonic_ns();
	CHECK(copy_in(&agent.husk, SCRIPTED_ID, big, "/", &options, &err) == -ETIMEDOUT &&
			clock_monotonic_ns() - begun < 5000000000ull,
		"an agent that reads nothing costs timeout_ms");
	options.timeout_ms = 10000;
}

/** Refuses in the midst of what is sent to it. */
static void script_refuse(int fd, void *data)
{
	struct buffer b = {0};
	char bytes[4096];
	(void)data;
	if (read(fd, bytes, sizeof(bytes)) <= 0)
		return;
	agent_hello_put(&b);
	agent_error_put(&b, AGENT_ERROR_ERRNO + ENOSPC, "/x: no room");
	scripted_say(fd, &b);
	shutdown(fd, SHUT_WR);
	scripted_drain(fd);
}

static void test_in(void)
{
	struct husk_error err;
	char big[200];
	snprintf(big, sizeof(big), "%s/big", outside);
	scripted_begin(&agent, script_refuse, NULL);
	CHECK(copy_in(&agent.husk, SCRIPTED_ID, big, "/", &options, &err) == -ENOSPC && strstr(err.message, "no room"),
		"a full disk in the guest is -ENOSPC, while we send still");
	CHECK(copy_in(&agent.husk, SCRIPTED_ID, "/nonexistent", "/", &options, &err) == -ENOENT,
		"a source that is none");
	CHECK(copy_in(&agent.husk, SCRIPTED_ID, big, "relative", &options, &err) == -EINVAL,
		"a target that is relative");
	unlink(big);
}

static void test_read(void)
{
	struct buffer b = {0};
	struct husk_error err;
	void *data = NULL;
	size_t n = 0;
	scripted_begin(&agent, script_bytes, &b);
	entry(&b, AGENT_FILE, "", NULL, 6);
	agent_data_put(&b, 4, "ef", 2);
	end(&b);
	CHECK(copy_read_file(&agent.husk, SCRIPTED_ID, "/f", 6, &data, &n, &options, &err) == 0 && n == 6 &&
			memcmp(data, "\0\0\0\0ef", 7) == 0,
		"a file is read, its hole as zeros");
	free(data);
	CHECK(copy_read_file(&agent.husk, SCRIPTED_ID, "/f", 5, &data, &n, &options, &err) == -EFBIG,
		"one that is larger than wanted is refused");
	buffer_free(&b);
	entry(&b, AGENT_DIRECTORY, "", NULL, 0);
	end(&b);
	CHECK(copy_read_file(&agent.husk, SCRIPTED_ID, "/f", 5, &data, &n, &options, &err) == -EISDIR,
		"and so is a directory");
	buffer_free(&b);
	entry(&b, AGENT_FILE, "", NULL, INT64_MAX);
	end(&b);
	CHECK(copy_read_file(&agent.husk, SCRIPTED_ID, "/f", 1000, &data, &n, &options, &err) == -EFBIG,
		"a size that is a lie takes no memory");
	buffer_free(&b);
}

static void test_own_names(void)
{
	static const struct {
		const char *path, *name;
	} cases[] = {{"a", "a"}, {"/a/b", "b"}, {"/a/b/", "b"}, {"/a/b//", "b"}, {"a/.", ""}, {".", ""}, {"/", ""},
		{"./x", "x"}};
	char name[256];
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		CHECK(copy_own_name(cases[i].path, name, NULL) == 0 && strcmp(name, cases[i].name) == 0, cases[i].path);
	CHECK(copy_own_name("a/..", name, NULL) == -EINVAL && copy_own_name("", name, NULL) == -EINVAL,
		"a path without a name of its own");
}

int main(void)
{
	scripted_open(&agent);
	snprintf(outside, sizeof(outside), "%s/outside", agent.directory);
	snprintf(target, sizeof(target), "%s/target", agent.directory);
	shell("mkdir %s %s && echo kept > %s/kept", outside, target, outside);
	test_good();
	test_escapes();
	test_names();
	test_data();
	test_cut();
	test_deadlines();
	test_in();
	test_read();
	test_own_names();
	scripted_close(&agent);
	return tap_done();
}
