/* SPDX-License-Identifier: Apache-2.0 */
/* tool.c - run a tool of the system to its end */
#include "engine/tool.h"

#include "base/fd.h"
#include "base/spawn.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define OUTPUT_MAX (16u << 20)

/** The last line with anything in it of what a tool wrote to the file @fd, into @line. */
static void last_line(int fd, char *line, size_t room)
{
	char tail[4096];
	off_t size = lseek(fd, 0, SEEK_END);
	off_t from = size > (off_t)sizeof(tail) - 1 ? size - (off_t)sizeof(tail) + 1 : 0;
	ssize_t n = pread(fd, tail, sizeof(tail) - 1, from);
	tail[n > 0 ? n : 0] = 0;
	for (char *end = tail + strlen(tail); end > tail && (end[-1] == '\n' || end[-1] == ' ');)
		*--end = 0;
	const char *start = strrchr(tail, '\n');
	snprintf(line, room, "%s", start ? start + 1 : tail);
}

int tool_run(const struct tool *tool, struct buffer *out, struct husk_error *err)
{
	const char *name = tool->argv[0];
	CLEANUP_FD int complaints = memfd_create("stderr", MFD_CLOEXEC);
	CLEANUP_FD int directory = tool->directory ? open(tool->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (complaints < 0 || (tool->directory && directory < 0))
		return error_errno(err, "run %s in %s", name, tool->directory ? tool->directory : "here");
	int ends[2] = {-1, -1};
	if (tool->stdout_fd < 0 && pipe2(ends, O_CLOEXEC) < 0)
		return error_errno(err, "run %s: make a pipe", name);
	CLEANUP_FD int reading = ends[0];

	struct spawn how = {.path = name,
		.argv = (char *const *)tool->argv,
		.stdio = {tool->stdin_fd, tool->stdout_fd < 0 ? ends[1] : tool->stdout_fd, complaints},
		.die_with_parent = true,
		.working_directory = directory < 0 ? 0 : directory};
	pid_t pid;
	int rc = spawn(&how, &pid, NULL, err);
	if (ends[1] >= 0)
		close(ends[1]);
	if (rc == -ENOENT)
		return error_set(err, rc, "%s is not installed; install the package %s (apt-get install %s)", name,
			tool->package, tool->package);
	if (rc < 0)
		return rc;

	CLEANUP_BUFFER struct buffer unwanted = {0};
	int read_rc = reading < 0 ? 0 : fd_read_to_end(reading, out ? out : &unwanted, OUTPUT_MAX);
	close(steal_fd(&reading));
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (read_rc < 0)
		return error_set(err, read_rc, "read the output of %s: %s", name, strerror(-read_rc));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		char line[512];
		last_line(complaints, line, sizeof(line));
		return error_set(err, -EIO, "%s failed: %s", name, *line ? line : "it says nothing");
	}
	return 0;
}
