/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest-tool.c - boot husk-init in QEMU on husk's devices, without the rest of husk:
 * guest-tool KERNEL INITRD SCRATCH SOCKET APPEND LAYER...
 *
 * Prints "READY <ms since start>" when the agent has connected to host port 1028. Every connection to the unix socket SOCKET
 * is one to the agent. The guest's console goes to stdout. Ends when QEMU does.
 */
#include "agent/protocol.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/spawn.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/vhost_user.h"
#include "vmm/virtio/vsock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#define MEMORY (512ULL << 20)

static struct loop loop;
static struct vsock *vsock;
static struct loop_watch listener, ready, machine;
static uint64_t start_ns;

static void die(const char *what, const struct husk_error *err)
{
	fprintf(stderr, "%s: %s\n", what, err->message);
	exit(1);
}

static void ready_read(struct loop_watch *watch, uint32_t events)
{
	char bytes[512];
	ssize_t n = read(watch->fd, bytes, sizeof(bytes));
	if (n > AGENT_HEADER_SIZE + 4 && bytes[0] == 4 && bytes[4] == AGENT_HELLO && bytes[12 + 4] == AGENT_READY)
		printf("READY %llu\n", (unsigned long long)(clock_monotonic_ns() - start_ns) / 1000000);
	fflush(stdout);
	int fd = watch->fd;
	loop_remove(&loop, watch);
	close(fd);
}

static int accept_guest(void *data, uint32_t port)
{
	int pair[2];
	struct husk_error err;
	if (port != AGENT_PORT || ready.added || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -ECONNREFUSED;
	fd_set_nonblocking(pair[0], true);
	loop_add(&loop, &ready, pair[1], EPOLLIN, ready_read, &err);
	return pair[0];
}

static void client(struct loop_watch *watch, uint32_t events)
{
	struct husk_error err;
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0 && vsock_connect(vsock, fd, AGENT_PORT, false, NULL, NULL, &err) < 0)
		fprintf(stderr, "connect: %s\n", err.message);
}

static void machine_ended(struct loop_watch *watch, uint32_t events)
{
	loop_stop(&loop);
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	unlink(path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 64) < 0)
		exit(1);
	return fd;
}

static void failed(void *data, struct husk_error *err)
{
	fprintf(stderr, "device %s: %s\n", (const char *)data, err->message);
}

int main(int argc, char **argv)
{
	struct husk_error err;
	struct memory memory;
	struct disk *root, *scratch;
	struct blk *blk[2];
	struct vhost_user *transport[3];
	int memory_fd, sockets[3][2], layers[128];
	if (argc < 7)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	for (int i = 6; i < argc; i++)
		layers[i - 6] = open(argv[i], O_RDONLY | O_CLOEXEC);
	if (memory_make_fd(MEMORY, &memory_fd, &err) < 0 || memory_init(&memory, memory_fd, &err) < 0 ||
		memory_add(&memory, 0, MEMORY, 0, &err) < 0 || loop_init(&loop, &err) < 0 ||
		disk_open_layers(layers, (size_t)argc - 6, &root, &err) < 0 ||
		disk_open_file(open(argv[3], O_RDWR | O_CLOEXEC), false, &scratch, &err) < 0 ||
		blk_create(root, "root", 1, &blk[0], &err) < 0 ||
		blk_create(scratch, "scratch", 1, &blk[1], &err) < 0 ||
		vsock_create(&loop, 3, accept_guest, NULL, &vsock, &err) < 0)
		die("devices", &err);
	struct virtio_device *devices[3] = {blk_device(blk[0]), blk_device(blk[1]), vsock_device(vsock)};
	static const char *names[3] = {"root", "scratch", "vsock"};
	for (int i = 0; i < 3; i++) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets[i]) < 0 ||
			vhost_user_create(&loop, &memory, devices[i], sockets[i][0], failed, (void *)names[i],
				&transport[i], &err) < 0)
			die("transport", &err);
	}
	const char *args[] = {"qemu-system-x86_64", "-M", "q35,memory-backend=ram", "-accel", "tcg", "-cpu",
		"max,-erms", "-m", "512", "-object",
		"memory-backend-file,id=ram,size=512M,mem-path=/proc/self/fd/3,share=on", "-nodefaults", "-display",
		"none", "-nic", "none", "-no-reboot", "-serial", "stdio", "-kernel", argv[1], "-initrd", argv[2],
		"-append", argv[5], "-chardev", "socket,id=c0,fd=4", "-chardev", "socket,id=c1,fd=5", "-chardev",
		"socket,id=c2,fd=6", "-device", "vhost-user-blk-pci,chardev=c0,num-queues=1", "-device",
		"vhost-user-blk-pci,chardev=c1,num-queues=1", "-device", "vhost-user-vsock-pci,chardev=c2", NULL};
	int fds[] = {memory_fd, sockets[0][1], sockets[1][1], sockets[2][1]};
	struct spawn how = {.path = args[0],
		.argv = (char *const *)args,
		.stdio = {0, 1, 2},
		.fds = fds,
		.n_fds = 4,
		.die_with_parent = true};
	pid_t pid;
	int pidfd;
	start_ns = clock_monotonic_ns();
	if (loop_add(&loop, &listener, listen_at(argv[4]), EPOLLIN, client, &err) < 0 ||
		spawn(&how, &pid, &pidfd, &err) < 0 ||
		loop_add(&loop, &machine, pidfd, EPOLLIN, machine_ended, &err) < 0)
		die("qemu", &err);
	for (int i = 0; i < 3; i++)
		close(sockets[i][1]);
	int rc = loop_run(&loop, &err);
	for (int i = 0; i < 3; i++)
		vhost_user_destroy(transport[i]);
	vsock_destroy(vsock);
	for (int i = 0; i < 2; i++)
		blk_destroy(blk[i]);
	disk_close(root);
	disk_close(scratch);
	memory_destroy(&memory);
	waitpid(pid, NULL, 0);
	return rc < 0;
}
