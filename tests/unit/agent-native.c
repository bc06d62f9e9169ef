/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent-native.c - the agent as an ordinary process of root's: agent-native ROOT SOCKET [read-only VOLUME…]
 *
 * HUSK_TEST_CGROUP in the environment, a directory of a cgroup2 file system, is the workload's cgroup; HUSK_TEST_SYSFS stands
 * for sysfs.
 *
 * The directory ROOT becomes the workloads' root, the unix socket SOCKET stands for vsock. Exit status 77: this machine does
 * not let us make the namespaces.
 */
#include "base/cleanup.h"
#include "guest/agent.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
	struct husk_error err = {0};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *why = "", *cgroup = getenv("HUSK_TEST_CGROUP");
	if (argc < 3)
		return 2;
	struct agent_setup setup = {
		.workload =
			{
				.root = argv[1],
				.cgroup = cgroup ? open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1,
				.hostname = "native",
				.read_only = argc > 3,
				.volumes = argv + 4,
				.n_volumes = argc > 4 ? (size_t)argc - 4 : 0,
				.shm_size = 1 << 20,
				.nofile = 512,
			},
		.ready = -1,
		.late_modules = -1,
		.input = "/nonexistent", /* no button of this machine's */
		.stop_signal = SIGTERM,
		.sysfs = getenv("HUSK_TEST_SYSFS"),
	};
	prctl(PR_SET_PDEATHSIG, 9);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount(argv[1], argv[1], NULL, MS_BIND, NULL) < 0) {
		perror("agent-native");
		return 77;
	}
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", argv[2]);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
		listen(listener, AGENT_LISTEN_BACKLOG) < 0)
		return 1;
	setup.listener = listener;
	int rc = agent_serve(&setup, &why, &err);
	printf("%s\n", rc < 0 ? err.message : why);
	fflush(stdout);
	_exit(rc < 0); /* as PID 1 does: what is open goes with the process, and no leak checker looks */
}
