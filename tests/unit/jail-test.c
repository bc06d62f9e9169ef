/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jail-test.c - what a process sees and can do behind the worker's walls, as root and without
 *
 * Theory of operation: a child is born into the namespaces of a jail as the worker is, and is this very program again: it goes
 * in, tries one thing, and says what came of it by its exit status or on its stdout. The whole is done twice when it is run by
 * root: once so, once as an ordinary user. In a build with a sanitizer the filter of system calls is left out (jail.h).
 */
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/spawn.h"
#include "vmm/jail/jail.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define FILTERED false
#else
#define FILTERED true
#endif

#define RUNTIME 3 /* the directory, in the child */
#define PARENT 4 /* a pipe's end */
#define STATUS 5 /* /proc/self/status, opened before */
#define USER 61234 /* an ordinary one */

static char directory[] = "/tmp/husk-jail-test.XXXXXX";

/* ---- in the child ---- */

/** Show /proc/self/status as the kernel tells it now. */
static int show_status(void)
{
	char text[4096];
	ssize_t n = pread(STATUS, text, sizeof(text), 0);

	return n > 0 && fd_write_all(STDOUT_FILENO, text, (size_t)n) == 0 ? 0 : 1;
}

static int show_root(void)
{
	DIR *root = opendir("/");
	struct dirent *entry;

	if (!root)
		return errno == EACCES ? 13 : 1;
	while ((entry = readdir(root)))
		if (entry->d_name[0] != '.')
			printf("%s\n", entry->d_name);
	fflush(stdout);
	return 0;
}

/** 0 when the parent's directory cannot be reached. */
static int climb(void)
{
	struct stat root, up, high;

	if (stat("..", &up) < 0 && errno == EACCES)
		return 0; /* another's root, that it may not even look into */
	if (stat("/", &root) < 0 || stat("..", &up) < 0 || stat("../../../..", &high) < 0)
		return 2;
	return root.st_ino == up.st_ino && root.st_dev == up.st_dev && root.st_ino == high.st_ino ? 0 : 1;
}

/** 0 when there is not even a way to this machine itself. */
static int no_network(void)
{
	struct sockaddr_in here = {
		.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	CLEANUP_FD int fd = socket(AF_INET, SOCK_DGRAM, 0);

	return fd >= 0 && connect(fd, (struct sockaddr *)&here, sizeof(here)) < 0 && errno == ENETUNREACH ? 0 : 1;
}

static int execute(void)
{
	char name[] = "sh";
	char *argv[] = {name, NULL};

	execv("/bin/sh", argv);
	int first = errno;
	syscall(SYS_execveat, RUNTIME, "", argv, NULL, AT_EMPTY_PATH);
	return first == ENOENT || first == EACCES ? 0 : 1;
}

static int first_process(void)
{
	return getpid() == 1 && getppid() == 0 ? 0 : 1;
}

static int make_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0) < 0;
}

static int open_file(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY) < 0;
}

static int map_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
}

static int turn_to_code(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return mprotect(page, 4096, PROT_READ | PROT_EXEC) < 0;
}

static int fork_one(void)
{
	return (int)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) < 0;
}

static int trace(void)
{
	return ptrace(PTRACE_TRACEME, 0, 0, 0) < 0;
}

static int other_ioctl(void)
{
	int n;
	return (int)syscall(SYS_ioctl, STDOUT_FILENO, 0x5421 /* FIONBIO */, &n) < 0;
}

static int be_dumpable(void)
{
	return prctl(PR_SET_DUMPABLE, 1) < 0;
}

static int connect_socket(void)
{
	return (int)syscall(SYS_connect, STDOUT_FILENO, NULL, 0) < 0;
}

/** What the loop does all day. */
static int work(void)
{
	int pair[2];
	char byte = 1;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 || write(pair[0], &byte, 1) != 1 ||
		read(pair[1], &byte, 1) != 1)
		return 1;
	void *page = malloc(1 << 20);
	free(page);
	return page ? 0 : 1;
}

/** Wait for whatever comes. */
static int wait_here(void)
{
	char byte;

	(void)fd_write_all(STDOUT_FILENO, "in\n", 3);
	for (;;)
		if (read(PARENT, &byte, 1) < 0 && errno != EINTR)
			return 1;
}

static const struct attempt {
	const char *name, *what;
	int (*run)(void);
	bool sealed; /* behind the filter of the loop as well, which kills */
	enum { FINE, KILLED, EITHER } fate;
} attempts[] = {
	{"climb", "`..` does not lead out of the root", climb, false, FINE},
	{"execute", "no program can be executed", execute, false, FINE},
	{"first", "it is the first process of its PID namespace", first_process, false, FINE},
	{"network", "there is no network", no_network, false, FINE},
	{"work", "the loop's system calls are let through", work, true, FINE},
	{"socket", "a socket", make_socket, true, KILLED},
	{"connect", "a connect", connect_socket, true, KILLED},
	{"open", "the opening of a file", open_file, true, KILLED},
	{"exec", "an exec", execute, true, KILLED},
	{"code", "memory that can be executed", map_code, true, KILLED},
	{"to-code", "memory that is made executable", turn_to_code, true, KILLED},
	{"fork", "a fork", fork_one, true, KILLED},
	{"trace", "ptrace", trace, true, KILLED},
	{"ioctl", "an ioctl of no list", other_ioctl, true, KILLED},
	{"dumpable", "a change of dumpability", be_dumpable, true, KILLED},
	{"status", NULL, show_status, true, FINE},
	{"root", NULL, show_root, false, FINE},
	{"wait", NULL, wait_here, false, FINE},
};

static const struct attempt *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(attempts); i++)
		if (strcmp(attempts[i].name, name) == 0)
			return &attempts[i];
	return NULL;
}

static int inside(const char *name, uint32_t walls)
{
	const struct attempt *a = find(name);
	const struct jail jail = {
		.walls = walls, .id = jail_id("abcdef012345", false), .runtime_fd = RUNTIME, .parent_fd = PARENT};
	int kept[] = {RUNTIME, PARENT, STATUS};
	struct husk_error err;

	if (open("/proc/self/status", O_RDONLY) != STATUS || open("/", O_RDONLY | O_DIRECTORY) != STATUS + 1)
		return 90;
	int rc = jail_keep(kept, ARRAY_SIZE(kept), RUNTIME, &err);
	if (rc == 0 && fcntl(STATUS + 1, F_GETFD) >= 0)
		return 91; /* the directory outside is open still */
	rc = rc < 0 ? rc : jail_enter(&jail, &err);
	if (rc == 0 && fcntl(RUNTIME, F_GETFD) >= 0)
		return 92;
	if (rc == 0 && a->sealed)
		rc = jail_seal(JAIL_LOOP, &err);
	if (rc == 0)
		return a->run();
	fprintf(stderr, "# %s\n", err.message);
	return 93;
}

/* ---- outside ---- */

struct child {
	pid_t pid;
	int out;
};

/** Start @name behind the walls of an ordinary start, @how changed by @change. */
static bool start(const char *name, struct child *child)
{
	char path[64] = "/proc/self/exe", program[] = "jail-test", verb[64], number[16];
	char *argv[] = {program, verb, number, NULL};
	uint32_t walls = jail_full();
	struct jail_birth birth;
	struct husk_error err;
	int out[2], parent[2];

	snprintf(verb, sizeof(verb), "%s", name);
	snprintf(number, sizeof(number), "%u", walls);
	if (pipe2(out, O_CLOEXEC) < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, parent) < 0)
		return false;
	CLEANUP_FD int runtime = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_FD int writing = out[1], theirs = parent[1];
	const int fds[] = {runtime, theirs};
	struct spawn how = {.path = path,
		.argv = argv,
		.stdio = {-1, writing, STDERR_FILENO},
		.fds = fds,
		.n_fds = 2,
		.die_with_parent = true};
	child->out = out[0];
	jail_birth(&birth, walls, &how);
	if (spawn(&how, &child->pid, NULL, &err) == 0)
		return true; /* parent[0] stays open for as long as we live */
	printf("# %s\n", err.message);
	close(child->out);
	return false;
}

/** Run @name to its end: waitpid's status; what it wrote in @text. */
static int attempt(const char *name, char *text, size_t room)
{
	struct child child;
	int status = -1;
	size_t size = 0;

	if (!start(name, &child))
		return -1;
	for (ssize_t n; size + 1 < room && (n = read(child.out, text + size, room - 1 - size)) > 0;)
		size += (size_t)n;
	text[size] = 0;
	close(child.out);
	while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/** The field @name of a /proc/PID/status. */
static const char *field(const char *status, const char *name)
{
	static char value[128];
	char key[32];

	snprintf(key, sizeof(key), "\n%s:\t", name);
	const char *at = strstr(status, key);
	value[0] = 0;
	if (at)
		sscanf(at + strlen(key), "%127[^\n]", value);
	return value;
}

static void check_status(void)
{
	static const char *const sets[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
	char text[4096], want[64];
	uid_t id = geteuid() == 0 ? jail_id("abcdef012345", false) : geteuid();

	CHECK(attempt("status", text, sizeof(text)) == 0, "a child goes in and tells of itself");
	snprintf(want, sizeof(want), "%u\t%u\t%u\t%u", id, id, id, id);
	CHECK_STRING(field(text, "Uid"), want, "it has one unprivileged user id");
	snprintf(want, sizeof(want), "%u\t%u\t%u\t%u", geteuid() == 0 ? id : getegid(), geteuid() == 0 ? id : getegid(),
		geteuid() == 0 ? id : getegid(), geteuid() == 0 ? id : getegid());
	CHECK_STRING(field(text, "Gid"), want, "and one group id");
	if (geteuid() == 0)
		CHECK(strspn(field(text, "Groups"), " ") == strlen(field(text, "Groups")), "no groups");
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
		CHECK_STRING(field(text, sets[i]), "0000000000000000", sets[i]);
	CHECK_STRING(field(text, "NoNewPrivs"), "1", "no_new_privs");
	CHECK_STRING(field(text, "Seccomp"), FILTERED ? "2" : "0", "a filter of system calls");
}

/** Its namespaces are others than ours, and its memory is closed to other processes of the user. */
static void check_outside(void)
{
	static const char *const kinds[] = {"mnt", "pid", "net", "ipc", "uts"};
	char path[64], ours[64] = "", theirs[64] = "", byte[8];
	struct child child;

	if (!CHECK(start("wait", &child) && read(child.out, byte, 3) == 3, "one waits inside"))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		snprintf(path, sizeof(path), "/proc/self/ns/%s", kinds[i]);
		ssize_t n = readlink(path, ours, sizeof(ours) - 1), m = -1;
		snprintf(path, sizeof(path), "/proc/%d/ns/%s", child.pid, kinds[i]);
		m = readlink(path, theirs, sizeof(theirs) - 1);
		CHECK(n > 0 && m > 0 && strcmp(ours, theirs) != 0, kinds[i]);
	}
	if (geteuid() != 0) {
		snprintf(path, sizeof(path), "/proc/%d/mem", child.pid);
		CHECK(open(path, O_RDONLY) < 0 && errno == EACCES, "its memory cannot be read by its own user");
	}
	CHECK(kill(child.pid, SIGKILL) == 0, "it can be killed");
	waitpid(child.pid, NULL, 0);
	close(child.out);
}

static void check_root(void)
{
	char text[256];

	int status = attempt("root", text, sizeof(text));
	if (geteuid() == 0) /* the directory is 0700, and another's */
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 13, "not even its root can be listed under its id");
	else
		CHECK(status != 0, "nothing can be opened, the root neither: Landlock");
}

static void check_attempts(void)
{
	char text[64], what[128];

	for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
		const struct attempt *a = &attempts[i];
		if (!a->what || (a->sealed && !FILTERED))
			continue;
		int status = attempt(a->name, text, sizeof(text));
		snprintf(what, sizeof(what), "%s%s", a->what, a->fate == KILLED ? " kills it with SIGSYS" : "");
		if (!CHECK(a->fate == KILLED ? WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS : status == 0, what))
			printf("# status 0x%x\n", (unsigned)status);
	}
}

/** The death of the one who started it ends it, wherever it stands. */
static void check_orphan(void)
{
	int pipe_fds[2];
	pid_t grandchild = 0;

	if (pipe(pipe_fds) < 0)
		return;
	pid_t middle = fork();
	if (middle == 0) {
		struct child child;
		char byte[8];
		if (start("wait", &child) && read(child.out, byte, 3) == 3)
			(void)!write(pipe_fds[1], &child.pid, sizeof(child.pid));
		_exit(0);
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	CHECK(read(pipe_fds[0], &grandchild, sizeof(grandchild)) == sizeof(grandchild), "a child of a child goes in");
	waitpid(middle, NULL, 0);
	int status = 0;
	CHECK(waitpid(grandchild, &status, 0) == grandchild && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		"and is killed when its parent dies");
	prctl(PR_SET_CHILD_SUBREAPER, 0);
}

/** What cannot be made is refused, with the way out. */
static void check_refusal(void)
{
	struct husk_error err = {0};

	error_set(&err, -EPERM, "start husk-vmm: make namespaces: Operation not permitted");
	CHECK(jail_birth_failed(jail_full(), err.code, &err) == -EPERM && strstr(err.message, "--shell=degraded") &&
			strstr(err.message, "husk doctor"),
		"a host that forbids namespaces is named, with what to do");
	error_set(&err, -ENOENT, "start husk-vmm: No such file or directory");
	CHECK(jail_birth_failed(jail_full(), err.code, &err) == -ENOENT && !strstr(err.message, "--shell"),
		"another failure is its own");
	CHECK(jail_id("ffffffffffff", true) == JAIL_ID_LAST && jail_id("000000000000", false) == JAIL_ID_FIRST &&
			jail_id("abcdef012345", false) + 1 == jail_id("abcdef012345", true),
		"ids are in their range, and two for each VM");
}

static int run_all(void)
{
	check_status();
	check_root();
	check_attempts();
	check_outside();
	check_orphan();
	check_refusal();
	return tap_done();
}

int main(int argc, char **argv)
{
	if (argc == 3 && find(argv[1]))
		_exit(inside(argv[1], (uint32_t)strtoul(argv[2], NULL, 10))); /* a leak checker would look into /proc */
	if (!mkdtemp(directory))
		return 1;
	if (geteuid() == 0 && argc == 2 && strcmp(argv[1], "user") == 0 &&
		(chown(directory, USER, USER) < 0 || setgid(USER) < 0 || setuid(USER) < 0))
		return 1;
	prctl(PR_SET_DUMPABLE, 1); /* a change of ids takes that, and /proc/self's files with it */
	int rc = run_all();
	rmdir(directory);
	return rc;
}
