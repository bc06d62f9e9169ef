/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device-tool.c - run QEMU on husk's devices, without the rest of husk: device-tool KERNEL INITRD SCRATCH LAYER...
 *
 * The guest is device-guest.c (tests/unit/device-guest.sh puts it together). Host port 5000 is an echo; the tool connects to
 * guest port 6000 until somebody listens, and sends some MiB through the guest's echo.
 */
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/spawn.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/vhost_user.h"
#include "vmm/virtio/vsock.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define MEMORY (512ULL << 20)
#define ECHO_BYTES (32u << 20)

static struct loop loop;
static struct vsock *vsock;
static struct loop_watch timer;
static bool stop_retrying;

static void die(const char *what, const struct husk_error *err)
{
	fprintf(stderr, "%s: %s\n", what, err->message);
	exit(1);
}

static void *echo(void *arg)
{
	int fd = (int)(intptr_t)arg;
	static char bytes[1 << 18];
	ssize_t n;
	while ((n = read(fd, bytes, sizeof(bytes))) > 0)
		fd_write_all(fd, bytes, (size_t)n);
	shutdown(fd, SHUT_WR);
	close(fd);
	return NULL;
}

static int accept_guest(void *data, uint32_t port)
{
	int pair[2];
	pthread_t thread;
	if (port != 5000 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -ECONNREFUSED;
	pthread_create(&thread, NULL, echo, (void *)(intptr_t)pair[1]);
	pthread_detach(thread);
	fd_set_nonblocking(pair[0], true);
	return pair[0];
}

static int client = -1;

static void *client_writer(void *arg)
{
	static char bytes[65536];
	for (uint32_t sent = 0; sent < ECHO_BYTES; sent += sizeof(bytes))
		fd_write_all(client, bytes, sizeof(bytes));
	shutdown(client, SHUT_WR);
	return NULL;
}

static void *client_thread(void *arg)
{
	static char bytes[1 << 18];
	pthread_t writer;
	char line[64] = "";
	size_t got = 0, n_line = 0;
	ssize_t n;
	while (n_line < sizeof(line) - 1 && read(client, line + n_line, 1) == 1 && line[n_line++] != '\n')
		;
	uint64_t start = clock_monotonic_ns();
	pthread_create(&writer, NULL, client_writer, NULL);
	while ((n = read(client, bytes, sizeof(bytes))) > 0)
		got += (size_t)n;
	printf("HOST greeting %.*s, %zu bytes echoed, end %zd, %.0f MB/s\n", (int)n_line - 1, line, got, n,
		(double)got * 1e3 / (double)(clock_monotonic_ns() - start));
	fflush(stdout);
	pthread_join(writer, NULL);
	return NULL;
}

static void connected(void *data, int error)
{
	pthread_t thread;
	if (error) {
		close(client);
		client = -1;
		return;
	}
	stop_retrying = true;
	pthread_create(&thread, NULL, client_thread, NULL);
	pthread_detach(thread);
}

static void retry(struct loop_watch *watch, uint32_t events)
{
	int pair[2];
	struct husk_error err;
	if (stop_retrying)
		return loop_timer_set(watch, 0);
	loop_timer_set(watch, 200);
	if (client >= 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	client = pair[1];
	fd_set_nonblocking(pair[0], true);
	if (vsock_connect(vsock, pair[0], 6000, true, connected, NULL, &err) < 0)
		die("connect", &err);
}

static void failed(void *data, struct husk_error *err)
{
	fprintf(stderr, "device %s: %s\n", (const char *)data, err->message);
	if (err->code != -EBADMSG)
		loop_stop(&loop);
}

int main(int argc, char **argv)
{
	struct husk_error err;
	struct memory memory;
	struct disk *root, *scratch;
	struct blk *blk[2];
	struct vhost_user *transport[3];
	int memory_fd, sockets[3][2], layers[128];
	if (argc < 5)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	for (int i = 4; i < argc; i++)
		layers[i - 4] = open(argv[i], O_RDONLY | O_CLOEXEC);
	if (memory_make_fd(MEMORY, &memory_fd, &err) < 0 || memory_init(&memory, memory_fd, &err) < 0 ||
		memory_add(&memory, 0, MEMORY, 0, &err) < 0 || loop_init(&loop, &err) < 0 ||
		disk_open_layers(layers, (size_t)argc - 4, &root, &err) < 0 ||
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
		"-append", "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check", "-chardev", "socket,id=c0,fd=4",
		"-chardev", "socket,id=c1,fd=5", "-chardev", "socket,id=c2,fd=6", "-device",
		"vhost-user-blk-pci,chardev=c0,num-queues=1", "-device", "vhost-user-blk-pci,chardev=c1,num-queues=1",
		"-device", "vhost-user-vsock-pci,chardev=c2", NULL};
	int fds[] = {memory_fd, sockets[0][1], sockets[1][1], sockets[2][1]};
	struct spawn how = {.path = args[0],
		.argv = (char *const *)args,
		.stdio = {0, 1, 2},
		.fds = fds,
		.n_fds = 4,
		.die_with_parent = true};
	pid_t pid;
	if (spawn(&how, &pid, NULL, &err) < 0)
		die("qemu", &err);
	for (int i = 0; i < 3; i++)
		close(sockets[i][1]);
	loop_timer_open(&loop, &timer, retry, &err);
	loop_timer_set(&timer, 500);
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
