/* SPDX-License-Identifier: Apache-2.0 */
/* tls-walls-test.c - what husk-tls can still do behind its walls, each thing tried in a child */
#include "tests/tap.h"

#include "base/cleanup.h"
#include "base/confine.h"
#include "tls/walls.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

typedef int attempt_fn(void);
typedef int wall_fn(struct husk_error *err);

static char directory[] = "/tmp/husk-walls-test.XXXXXX";

static int enter(int domain)
{
	struct sockaddr_un inner = {.sun_family = AF_UNIX, .sun_path = "inner"};
	int fd = socket(domain, SOCK_STREAM, 0);

	return fd < 0 ? -1 : connect(fd, (struct sockaddr *)&inner, sizeof(inner));
}

static int enter_door(void)
{
	return enter(AF_UNIX);
}

/** The same socket by a path that leads outside. */
static int enter_outside(void)
{
	struct sockaddr_un outside = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(outside.sun_path, sizeof(outside.sun_path), "%s/inner", directory);
	return fd < 0 ? -1 : connect(fd, (struct sockaddr *)&outside, sizeof(outside));
}

/** Can this be done here at all? */
static int change_root(void)
{
	if (chroot(".") < 0 && unshare(CLONE_NEWUSER) < 0)
		return -1;
	return chroot(".");
}

static int no_wall(struct husk_error *err)
{
	return 0;
}

/** All walls, as where nothing is missing. */
static int all_walls(struct husk_error *err)
{
	char missing[WALLS_MISSING_MAX];

	return walls_build(missing, err);
}

static int open_tcp(void)
{
	return enter(AF_INET);
}

static int allocate(void)
{
	return mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}

static int map_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}

static int open_file(void)
{
	return open("/etc/passwd", O_RDONLY);
}

static int open_directory(void)
{
	return open(".", O_RDONLY | O_DIRECTORY);
}

static int make_file(void)
{
	return open("made", O_WRONLY | O_CREAT, 0600);
}

static int run_program(void)
{
	char *argv[] = {(char *)"true", NULL};

	return execv("/bin/true", argv);
}

static int make_child(void)
{
	return fork();
}

static int signal_parent(void)
{
	return kill(getppid(), 0);
}

static int become_dumpable(void)
{
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

/** By the system call, which time(3) is where the kernel maps no clock. */
static int tell_time(void)
{
#ifdef SYS_time
	return syscall(SYS_time, NULL) > 0 ? 0 : -1;
#else
	return 0;
#endif
}

/** Let this process see a kernel without Landlock. */
static int forget_landlock(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_landlock_create_ruleset, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

/** 0 when what is missing is told, in words. */
static int tell_missing(void)
{
	char missing[WALLS_MISSING_MAX];
	struct husk_error err;

	if (forget_landlock() < 0 || walls_build(missing, &err) < 0 || strcmp(missing, "Landlock") != 0) {
		errno = ENOMSG;
		return -1;
	}
	return 0;
}

static int duplicate(void)
{
	return dup(0);
}

/** Try @attempt in a child behind @wall: 0 it works, else its errno; -1 when the child ended otherwise. */
static int behind(wall_fn *wall, attempt_fn *attempt)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct husk_error err;
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || wall(&err) < 0)
			_exit(255);
		_exit(attempt() >= 0 ? 0 : errno);
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static const struct {
	const char *what;
	attempt_fn *attempt;
	int by_files, by_all; /* errno behind Landlock alone, and behind all walls */
} attempts[] = {
	{"enter the door", enter_door, 0, 0},
	{"allocate memory", allocate, 0, 0},
	{"map code", map_code, 0, EPERM},
	{"open a file", open_file, EACCES, EPERM},
	{"open the working directory", open_directory, EACCES, EPERM},
	{"make a file", make_file, EACCES, EPERM},
	{"start a program", run_program, EACCES, EPERM},
	{"make a TCP socket", open_tcp, -1, EPERM},
	{"make a process", make_child, -1, EPERM},
	{"signal a process", signal_parent, -1, EPERM},
	{"become dumpable again", become_dumpable, 0, EPERM},
	{"tell the time", tell_time, 0, 0},
	{"do what it has no need of", duplicate, 0, EPERM},
};

static void check_attempt(wall_fn *wall, const char *name, const char *what, attempt_fn *attempt, int expected)
{
	char line[128];
	int got = behind(wall, attempt);

	snprintf(line, sizeof(line), "behind %s: %s: %s", name, what, expected ? strerror(expected) : "works");
	if (!CHECK(got == expected, line))
		printf("# %s\n", got < 0 ? "the child was killed" : strerror(got));
}

static bool has_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 1;
}

int main(void)
{
	struct sockaddr_un inner = {.sun_family = AF_UNIX, .sun_path = "inner"};

	if (!mkdtemp(directory) || chdir(directory) < 0)
		return 1;
	int door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(bind(door, (struct sockaddr *)&inner, sizeof(inner)) == 0 && listen(door, 8) == 0, "a door is there");
	for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
		if (attempts[i].by_files >= 0 && has_landlock())
			check_attempt(confine_files, "Landlock", attempts[i].what, attempts[i].attempt,
				attempts[i].by_files);
		check_attempt(all_walls, "all walls", attempts[i].what, attempts[i].attempt, attempts[i].by_all);
	}
	if (behind(no_wall, change_root) == 0)
		check_attempt(all_walls, "all walls", "enter a socket that is not the VM's", enter_outside, ENOENT);
	CHECK(behind(no_wall, tell_missing) == 0, "a kernel without Landlock is told of");
	unlink("inner");
	rmdir(directory);
	return tap_done();
}
