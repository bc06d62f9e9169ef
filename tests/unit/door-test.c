/* SPDX-License-Identifier: Apache-2.0 */
/* door-test.c - binding the host's side of doors: what appears, what is refused, what is left behind, who wins a race */
#include "engine/door.h"

#include "base/cleanup.h"
#include "base/door.h"
#include "base/path.h"
#include "engine/check.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define RACERS 8
#define RACES 60

static struct husk_error err;
static char folder[64];

static char *in_folder(const char *name)
{
	return path_join(folder, name);
}

static size_t entries(void)
{
	CLEANUP_DIR DIR *dir = opendir(folder);
	size_t n = 0;
	while (dir && readdir(dir))
		n++;
	return n - 2;
}

static int open_unix(const char *path, struct open_door *out)
{
	struct husk_door wanted = {.size = sizeof(wanted)};
	wanted.kind = HUSK_DOOR_UNIX;
	wanted.path = path;
	wanted.guest_port = 80;
	const struct door_nest nest = {0};
	return door_open(NULL, -1, &wanted, &nest, out, &err);
}

/** A socket at @path on which nobody listens. */
static void make_stale(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	CHECK(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "leave a stale socket");
}

static void test_path(void)
{
	struct open_door door = OPEN_DOOR_INIT, second = OPEN_DOOR_INIT;
	CLEANUP_FREE char *path = in_folder("a.sock");
	struct stat st;
	CHECK(open_unix(path, &door) == 0, "a unix door opens");
	CHECK(stat(path, &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0600, "its socket has mode 0600");
	CHECK(door.door.device == st.st_dev && door.door.inode == st.st_ino, "and its identity is noted");
	CHECK_STRING(door.door.endpoint, path, "with its absolute path");
	CHECK(entries() == 1, "nothing else was left beside it");
	CHECK(door_path_probe(path) == 0, "it accepts connections");
	CHECK(open_unix(path, &second) == -EADDRINUSE && strstr(err.message, path) && strstr(err.message, "unix"),
		"a live socket is not taken over, and named");
	CHECK(door_path_probe(path) == 0 && entries() == 1, "it lives on");
	door_take_down(&door);
	CHECK(entries() == 0, "taken down, its path is gone");

	make_stale(path);
	CHECK(open_unix(path, &door) == 0 && entries() == 1, "a stale socket is replaced");
	CHECK(door_path_probe(path) == 0, "by one that lives");
	unlink(path);
	CHECK(open_unix(path, &second) == 0, "a path that was taken away is free");
	door_take_down(&door);
	CHECK(door_path_probe(path) == 0, "who had it before does not remove the new one");
	door_take_down(&second);
	CHECK(entries() == 0, "its owner does");
}

static void test_relative(void)
{
	struct open_door door = OPEN_DOOR_INIT;
	CLEANUP_FREE char *path = in_folder("relative.sock");
	int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(here >= 0 && chdir(folder) == 0 && open_unix("./relative.sock", &door) == 0, "a relative path");
	CHECK_STRING(door.door.endpoint, path, "becomes absolute");
	CHECK(fchdir(here) == 0, "from anywhere");
	door_take_down(&door);
	close(here);
	CHECK(entries() == 0, "it is taken down");
}

static void test_refused(void)
{
	struct open_door door = OPEN_DOOR_INIT;
	CLEANUP_FREE char *file = in_folder("file");
	CLEANUP_FREE char *nowhere = in_folder("no/where");
	char longest[108] = "", beyond[109] = "";
	close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	CHECK(open_unix(file, &door) == -EEXIST && strstr(err.message, "not a socket"), "a file is not replaced");
	unlink(file);
	CHECK(symlink("/etc/passwd", file) == 0 && open_unix(file, &door) == -EEXIST, "nor a link");
	unlink(file);
	CHECK(open_unix(nowhere, &door) == -ENOENT, "a directory that is not there");
	CHECK(open_unix(folder, &door) == -EEXIST, "a directory");
	CHECK(open_unix("/tmp/", &door) < 0 && open_unix("..", &door) < 0, "no name at all");
	memset(longest, 'x', sizeof(longest) - 1);
	memset(beyond, 'x', sizeof(beyond) - 1);
	memcpy(longest, folder, strlen(folder));
	memcpy(beyond, folder, strlen(folder));
	longest[strlen(folder)] = beyond[strlen(folder)] = '/';
	CHECK(open_unix(longest, &door) == 0 && door_path_probe(longest) == 0, "a path of 107 bytes");
	door_take_down(&door);
	CHECK(open_unix(beyond, &door) == -ENAMETOOLONG && strstr(err.message, "107"),
		"one of 108 is refused with the limit");
	CHECK(entries() == 0, "no refusal leaves anything");
}

/** In a process of its own: 0 won, 1 lost, 2 failed otherwise. A winner keeps its socket until @hold ends. */
static int race(const char *path, int go, int report, int hold)
{
	struct open_door door = OPEN_DOOR_INIT;
	char byte;
	if (read(go, &byte, 1) != 0)
		return 2;
	int rc = open_unix(path, &door);
	char result = rc == 0 ? 'w' : rc == -EADDRINUSE ? 'l' : 'f';
	if (write(report, &result, 1) != 1 || read(hold, &byte, 1) != 0)
		return 2;
	return 0;
}

static void test_race(void)
{
	CLEANUP_FREE char *path = in_folder("race.sock");
	unsigned won = 0, lost = 0, other = 0, alive = 0;
	for (int i = 0; i < RACES; i++) {
		int go[2], report[2], hold[2];
		if (pipe2(go, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0 || pipe2(hold, O_CLOEXEC) < 0)
			break;
		struct sockaddr_un address = {.sun_family = AF_UNIX};
		snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
		int stale = socket(AF_UNIX, SOCK_STREAM, 0);
		unlink(path);
		if (bind(stale, (struct sockaddr *)&address, sizeof(address)) < 0)
			break;
		close(stale);
		for (int k = 0; k < RACERS; k++) {
			if (fork() == 0) {
				close(go[1]);
				close(hold[1]);
				_exit(race(path, go[0], report[1], hold[0]));
			}
		}
		close(go[0]);
		close(report[1]);
		close(hold[0]);
		close(go[1]); /* all of them at once */
		char result;
		while (read(report[0], &result, 1) == 1 && result) {
			won += result == 'w';
			lost += result == 'l';
			other += result != 'w' && result != 'l';
			if ((won + lost + other) % RACERS == 0)
				break;
		}
		alive += door_path_probe(path) == 0;
		close(report[0]);
		close(hold[1]);
		while (wait(NULL) > 0)
			;
	}
	CHECK(won == RACES && other == 0, "of eight processes that find the same stale socket one gets the path");
	CHECK(lost == RACES * (RACERS - 1), "and the others are told that it is in use");
	CHECK(alive == RACES, "the winner's socket is there");
	unlink(path);
	CHECK(entries() == 0, "and nothing else");
}

/** Die at the call that *@data counts down to. */
static int die_when_noted(void *data, const struct vm_door *door)
{
	int *left = data;
	if (--*left == 0)
		_exit(door->inode ? 2 : 1);
	return 0;
}

/** A bind that dies: what it has noted by then is enough to clean up after it. */
static void test_crash(void)
{
	CLEANUP_FREE char *path = in_folder("crash.sock");
	for (int at = 1; at <= 2; at++) {
		struct husk_door wanted = {.size = sizeof(wanted), .kind = HUSK_DOOR_UNIX, .path = path};
		int left = at, status = 0;
		struct door_nest nest = {.id = "0123456789ab", .note = die_when_noted, .data = &left};
		struct open_door door;
		pid_t pid = fork();
		if (pid == 0)
			_exit(door_open(NULL, -1, &wanted, &nest, &door, &err));
		CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == at,
			at == 1 ? "it dies before anything is there" : "it dies with its identity known");
		CHECK(access(path, F_OK) < 0 && entries() == (size_t)at - 1,
			"and nothing has appeared but its directory");
		door_clear_nest(path, nest.id);
		CHECK(entries() == 0, "which is found by the VM's id");
	}
}

static int open_tcp(const char *address, uint16_t port, struct open_door *out)
{
	struct husk_door wanted = {.size = sizeof(wanted)};
	wanted.kind = HUSK_DOOR_TCP;
	wanted.address = address;
	wanted.port = port;
	const struct door_nest nest = {0};
	return door_open(NULL, -1, &wanted, &nest, out, &err);
}

static void test_tcp(void)
{
	struct open_door door = OPEN_DOOR_INIT, second = OPEN_DOOR_INIT;
	unsigned port = 0;
	CHECK(open_tcp(NULL, 0, &door) == 0, "a tcp door whose port the kernel chooses");
	CHECK(sscanf(door.door.endpoint, "127.0.0.1:%u", &port) == 1 && port > 0,
		"is at 127.0.0.1 and knows the real port");
	CHECK(!door.door.inode, "and has no path");
	CHECK(open_tcp("127.0.0.1", (uint16_t)port, &second) == -EADDRINUSE, "the same port once more is refused");
	CHECK(strstr(err.message, "open the tcp door 127.0.0.1:") && strstr(err.message, "Address already in use"),
		"with kind, endpoint and cause");
	door_take_down(&door);
	CHECK(open_tcp("127.0.0.1", (uint16_t)port, &door) == 0, "it is free once taken down");
	door_take_down(&door);
	if (open_tcp("::1", 0, &door) == 0) {
		CHECK(strncmp(door.door.endpoint, "[::1]:", 6) == 0, "an IPv6 address stands in brackets");
		door_take_down(&door);
	}
	CHECK(open_tcp("192.0.2.1", 0, &door) == -EADDRNOTAVAIL, "an address that is not ours");
	CHECK(open_tcp("localhost", 0, &door) == -EINVAL, "a name");
}

static void test_check(void)
{
	static const struct {
		struct husk_door door;
		const char *what;
	} wrong[] = {
		{{.kind = 0}, "no kind"},
		{{.kind = (enum husk_door_kind)4, .path = "/x"}, "a kind that only the worker opens"},
		{{.kind = HUSK_DOOR_UNIX}, "a unix door without a path"},
		{{.kind = HUSK_DOOR_UNIX, .path = ""}, "an empty path"},
		{{.kind = HUSK_DOOR_UNIX, .path = "/a\nb"}, "a path with a newline"},
		{{.kind = HUSK_DOOR_UNIX, .path = "/\xff"}, "a path that is not UTF-8"},
		{{.kind = HUSK_DOOR_UNIX, .path = "/x", .port = 1}, "a unix door with a port"},
		{{.kind = HUSK_DOOR_EXEC, .path = "/x", .guest_port = 1}, "an exec door with a guest port"},
		{{.kind = HUSK_DOOR_TCP, .path = "/x"}, "a tcp door with a path"},
		{{.kind = HUSK_DOOR_TCP, .address = "localhost"}, "a name for an address"},
		{{.kind = HUSK_DOOR_TCP, .alpn = "h2"}, "a tcp door with ALPN"},
		{{.kind = HUSK_DOOR_TLS, .certificate = "/c"}, "a tls door without a key"},
		{{.kind = HUSK_DOOR_TLS, .certificate = "/c", .key = "/k", .alpn = "a,,b"}, "an empty protocol"},
		{{.kind = HUSK_DOOR_TLS, .certificate = "/c", .key = "/k", .alpn = "0123456789012345678901234567890x"},
			"too many protocols"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		CHECK(check_door(&wrong[i].door, &err) == -EINVAL, wrong[i].what);
	struct husk_door doors[CHECK_DOORS_MAX + 1];
	struct husk_vm_config config = {.doors = doors, .n_doors = 2};
	for (size_t i = 0; i < ARRAY_SIZE(doors); i++)
		doors[i] = (struct husk_door){.kind = HUSK_DOOR_TCP, .guest_port = 80};
	CHECK(check_doors(&config, &err) == 0, "two doors whose ports the kernel chooses");
	doors[0].port = doors[1].port = 8080;
	doors[0].address = "127.0.0.1";
	CHECK(check_doors(&config, &err) == -EINVAL, "two doors with one port");
	doors[1].address = "::1";
	CHECK(check_doors(&config, &err) == 0, "at different addresses");
	config.n_doors = ARRAY_SIZE(doors);
	CHECK(check_doors(&config, &err) == -E2BIG, "63 doors");
}

int main(void)
{
	snprintf(folder, sizeof(folder), "/tmp/husk-door-XXXXXX");
	CHECK(mkdtemp(folder) != NULL, "make a folder");
	test_path();
	test_relative();
	test_refused();
	test_race();
	test_crash();
	test_tcp();
	test_check();
	CHECK(rmdir(folder) == 0, "the folder is empty at the end");
	return tap_done();
}
