/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch.c - the last steps of a program's process
 *
 * Theory of operation: runs as root inside the image's root. The order matters: the terminal belongs to the workload's own
 * devpts; the streams are given to the image's user while we may (so that /dev/stdout can be opened again); the working
 * directory is entered with root's rights, as runc does; then the user, as whom files are written, then exec. Whatever fails
 * is said on the status socket with the code that tells exit status 125, 126 and 127 apart; the socket closes by itself when
 * exec succeeds. From the second command of a chain on, when the host has been told that it runs, what fails is said on
 * stderr instead, as a shell does.
 */
#include "guest/launch.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "guest/program.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* As shells and container engines have them. */
#define EXIT_FAILED 125
#define EXIT_NOT_EXECUTABLE 126
#define EXIT_NOT_FOUND 127

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

void launch_fail(int status, enum agent_error code, const char *format, ...)
{
	struct program_report report = {.kind = PROGRAM_ERROR, .code = code};
	va_list ap;
	va_start(ap, format);
	vsnprintf(report.text, sizeof(report.text), format, ap);
	va_end(ap);
	if (status >= 0) {
		fd_send(status, &report, sizeof(report), NULL, 0);
		_exit(EXIT_FAILED);
	}
	dprintf(STDERR_FILENO, "husk: %s\n", report.text);
	_exit(code == AGENT_ERROR_NOT_FOUND          ? EXIT_NOT_FOUND
		: code == AGENT_ERROR_NOT_EXECUTABLE ? EXIT_NOT_EXECUTABLE
						     : EXIT_FAILED);
}

/** A terminal of the workload's own devpts as controlling terminal and streams; its master goes to the agent. */
static void open_terminal(const struct exec_request *request, int status)
{
	struct program_report report = {.kind = PROGRAM_TTY};
	struct winsize size = {.ws_row = request->rows, .ws_col = request->columns};
	int unlock = 0;

	CLEANUP_FD int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0)
		launch_fail(status, AGENT_ERROR_SYSTEM, "make a terminal: %s", strerror(errno));
	CLEANUP_FD int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		launch_fail(status, AGENT_ERROR_SYSTEM, "open the terminal: %s", strerror(errno));
	if (size.ws_row && size.ws_col)
		ioctl(slave, TIOCSWINSZ, &size);
	if (fd_send(status, &report, sizeof(report), &master, 1) < 0)
		_exit(125);
	for (int i = 0; i < 3; i++)
		if (dup2(slave, i) < 0)
			launch_fail(status, AGENT_ERROR_SYSTEM, "use the terminal: %s", strerror(errno));
	if (ioctl(0, TIOCSCTTY, 0) < 0)
		launch_fail(status, AGENT_ERROR_SYSTEM, "take the terminal: %s", strerror(errno));
}

/** Give the streams to the user; /dev/null stays everyone's. */
static void own_streams(uid_t uid, int status)
{
	for (int i = 0; i < 3; i++) {
		struct stat st;
		if (fstat(i, &st) < 0 || (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)) || st.st_uid == uid)
			continue;
		if (fchown(i, uid, st.st_gid) < 0)
			launch_fail(status, AGENT_ERROR_SYSTEM, "give the user its streams: %s", strerror(errno));
	}
}

void launch_become(const struct user *user, int status)
{
	if (setgroups(user->n_groups, user->groups) < 0 || setresgid(user->gid, user->gid, user->gid) < 0 ||
		setresuid(user->uid, user->uid, user->uid) < 0)
		launch_fail(status, AGENT_ERROR_SYSTEM, "become user %u: %s", user->uid, strerror(errno));
}

/** Take the variable @name out of @list. */
static void environment_unset(struct strings *list, const char *name)
{
	size_t length = strlen(name), kept = 0;
	for (size_t i = 0; i < list->n; i++) {
		char *item = list->items[i];
		if (strncmp(item, name, length) == 0 && item[length] == '=')
			free(item);
		else
			list->items[kept++] = item;
	}
	list->n = kept;
	list->items[kept] = NULL;
}

/** Set "NAME=value" in @list, in place of an entry of that name; "NAME" alone takes it away. */
static int environment_set(struct strings *list, const char *entry)
{
	if (!strchr(entry, '=')) {
		environment_unset(list, entry);
		return 0;
	}
	size_t name = strcspn(entry, "=") + 1;
	for (size_t i = 0; i < list->n; i++) {
		if (strncmp(list->items[i], entry, name) != 0)
			continue;
		char *copy = strdup(entry);
		if (!copy)
			return -ENOMEM;
		free(list->items[i]);
		list->items[i] = copy;
		return 0;
	}
	return strings_add(list, entry);
}

static int environment_add(struct strings *list, const char *name, const char *value)
{
	char *entry = NULL;
	if (asprintf(&entry, "%s=%s", name, value) < 0)
		return -ENOMEM;
	int rc = environment_set(list, entry);
	free(entry);
	return rc;
}

static const char *environment_get(char *const *env, const char *name)
{
	size_t n = strlen(name);
	for (; *env; env++)
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	return NULL;
}

/** The agent's defaults with what the VM has to say, the workload's environment, the request's, HOME of passwd; of a name that
 *  comes twice the later one. NULL without memory. */
static char **make_environment(const struct exec_request *request, const struct workload_setup *setup, const char *home)
{
	const struct exec_request *const layers[] = {request->base, request};
	struct strings list = {0};
	int rc = environment_add(&list, "PATH", PATH_DEFAULT);
	if (rc == 0)
		rc = environment_add(&list, "HOSTNAME", setup->hostname);
	if (rc == 0 && setup->vsock_port) {
		char port[16];
		snprintf(port, sizeof(port), "%u", setup->vsock_port);
		rc = environment_add(&list, "HUSK_VSOCK_PORT", port);
	}
	if (rc == 0 && (request->flags & AGENT_EXEC_FLAG_TTY))
		rc = environment_add(&list, "TERM", "xterm");
	for (size_t layer = 0; layer < ARRAY_SIZE(layers); layer++)
		for (size_t i = 0; rc == 0 && layers[layer] && i < layers[layer]->env.n; i++)
			rc = environment_set(&list, layers[layer]->env.items[i]);
	if (rc == 0 && !environment_get(list.items, "HOME"))
		rc = environment_add(&list, "HOME", home);
	if (rc < 0)
		strings_free(&list);
	return list.items;
}

/** Try each directory of PATH; returns with the errno of the most telling failure. */
static int exec_in_path(const char *path, char *const *argv, char *const *env)
{
	char candidate[PATH_MAX];
	int telling = ENOENT;
	while (*path) {
		size_t n = strcspn(path, ":");
		if (n && (size_t)snprintf(candidate, sizeof(candidate), "%.*s/%s", (int)n, path, argv[0]) <
				 sizeof(candidate)) {
			execve(candidate, argv, env);
			if (errno == EACCES)
				telling = EACCES;
			else if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG)
				return errno;
		}
		path += n + (path[n] == ':');
	}
	return telling;
}

_Noreturn static void run(char *const *argv, char *const *env, int status)
{
	const char *name = argv[0];
	int failed;

	if (strchr(name, '/')) {
		execve(name, argv, env);
		failed = errno;
	} else {
		const char *path = environment_get(env, "PATH");
		failed = exec_in_path(path ? path : "", argv, env);
		if (failed == ENOENT)
			launch_fail(status, AGENT_ERROR_NOT_FOUND, "exec %s: executable file not found in $PATH", name);
	}
	if (failed == ENOENT || failed == ENOTDIR)
		launch_fail(status, AGENT_ERROR_NOT_FOUND, "exec %s: %s", name, strerror(failed));
	struct stat st;
	bool directory = strchr(name, '/') && stat(name, &st) == 0 && S_ISDIR(st.st_mode);
	launch_fail(status, AGENT_ERROR_NOT_EXECUTABLE, "exec %s: %s", name,
		directory           ? "is a directory"
		: failed == ENOEXEC ? "exec format error"
				    : strerror(failed));
}

static void reset_signals(void)
{
	static const uint64_t standard[8] = {0}; /* the kernel's struct sigaction: SIG_DFL, no flags, no mask */
	sigset_t none;
	for (int s = 1; s < NSIG; s++)
		syscall(SYS_rt_sigaction, s, standard, NULL, (NSIG - 1) / 8);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/** The user of the request, with the workload's further groups and its own. */
static void find_user(const struct exec_request *request, struct user *user, int status)
{
	struct husk_error err = {0};
	struct strings groups = {0};
	const struct strings *const lists[] = {request->base ? &request->base->groups : NULL, &request->groups};
	int rc = 0;

	for (size_t list = 0; list < ARRAY_SIZE(lists); list++)
		for (size_t i = 0; rc == 0 && lists[list] && i < lists[list]->n; i++)
			rc = strings_add(&groups, lists[list]->items[i]);
	if (rc < 0)
		launch_fail(status, AGENT_ERROR_SYSTEM, "find the user: out of memory");
	if (user_lookup(exec_request_user(request), groups.items, groups.n, user, &err) < 0)
		launch_fail(status, AGENT_ERROR_USER, "%s", err.message);
	strings_free(&groups);
}

/** With the user's own rights. A file that was there keeps its owner; a fifo that nobody reads holds nobody up. */
static void write_files(const struct exec_request *request, int status)
{
	for (size_t i = 0; i < request->n_files; i++) {
		const struct staged_file *file = &request->files[i];
		struct stat st;
		int fd = open(file->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
		int rc = fd < 0 || fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
		rc = rc < 0 ? rc : fd_write_all(fd, file->contents, file->size);
		if (rc == 0 && fchmod(fd, file->mode) < 0)
			rc = -errno;
		if (fd >= 0 && close(fd) < 0 && rc == 0)
			rc = -errno;
		if (rc < 0)
			launch_fail(status, AGENT_ERROR_ERRNO - rc, "write %s: %s", file->path,
				rc == -EINVAL ? "not a regular file" : strerror(-rc));
	}
}

void launch(const struct workload_setup *setup, const struct exec_request *request, size_t step, int status)
{
	const char *cwd = exec_request_cwd(request);
	struct user user;
	struct rlimit files = {.rlim_cur = setup->nofile, .rlim_max = setup->nofile};

	if (step > 0) { /* the agent has long said STARTED */
		close(status);
		status = -1;
	}
	reset_signals();
	umask(022);
	setsid();
	if (request->flags & AGENT_EXEC_FLAG_TTY)
		open_terminal(request, status);
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		launch_fail(status, AGENT_ERROR_SYSTEM, "set the limit of open files: %s", strerror(errno));
	find_user(request, &user, status);
	own_streams(user.uid, status);
	if (chdir(cwd) < 0)
		launch_fail(status, AGENT_ERROR_DIRECTORY, "enter the working directory %s: %s", cwd, strerror(errno));
	char **env = make_environment(request, setup, user.home);
	if (!env)
		launch_fail(status, AGENT_ERROR_SYSTEM, "make the environment: out of memory");
	launch_become(&user, status);
	if (step == 0)
		write_files(request, status);
	run(request->commands[step].items, env, status);
}
