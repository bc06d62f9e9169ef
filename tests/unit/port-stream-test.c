/* SPDX-License-Identifier: Apache-2.0 */
/* port-stream-test.c - a console's port on pipes, sockets and files: back-pressure, input, ends, what is left at the end */
#include "tests/unit/fake_driver.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "tests/tap.h"
#include "vmm/virtio/port_stream.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define WRITE VRING_DESC_F_WRITE
enum { RX, TX };

static struct fake_driver d;
static struct virtio_console *console;
static struct loop loop;
static struct port_stream *stream;
static uint64_t data;

static void start(int output, int input)
{
	struct husk_error err;
	fake_init(&d);
	if (loop_init(&loop, &err) < 0 || vconsole_create(&console, &err) < 0 ||
		port_stream_create(&loop, console, 0, output, input, &stream, &err) < 0) {
		printf("Bail out! %s\n", err.message);
		exit(1);
	}
	fake_queue(&d, RX, 128);
	fake_queue(&d, TX, 128);
	fake_attach(&d, vconsole_device(console), 2, VIRTIO_QUEUE_FEATURES);
	data = fake_alloc(&d, 1 << 20);
}

static int stop(void)
{
	int rc = port_stream_destroy(stream);
	vconsole_destroy(console);
	loop_destroy(&loop);
	fake_destroy(&d);
	return rc;
}

/** The guest writes @n bytes that lie at @at of its data. */
static void put(uint64_t at, uint32_t n)
{
	uint16_t i = d.queues[TX].avail_idx % 128;
	fake_desc(&d.queues[TX], i, data + at, n, 0, 0);
	fake_offer(&d.queues[TX], i);
	fake_kick(&d, TX);
}

static void put_text(const char *text)
{
	memcpy(d.ram + data, text, strlen(text));
	put(0, (uint32_t)strlen(text));
}

static void rounds(unsigned n)
{
	while (n--)
		loop_round(&loop, 0, NULL);
}

/** Bytes that tell where they belong. */
static void fill(size_t n)
{
	for (size_t i = 0; i < n; i++)
		d.ram[data + i] = (uint8_t)(i * 7 + i / 256);
}

static void test_back_pressure(bool socket)
{
	int ends[2], *read_end = &ends[0], *write_end = &ends[1];
	static uint8_t got[1 << 20];
	size_t n = 0;
	if ((socket ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends)) < 0)
		return;
	start(*write_end, -1);
	CHECK(!!(fcntl(*write_end, F_GETFL) & O_NONBLOCK) == !socket, "a pipe is made non-blocking, a socket is not");
	fill(1 << 20);
	for (unsigned i = 0; i < 16; i++)
		put(i << 16, 1 << 16);
	CHECK(vconsole_waiting(console, 0), "a reader that sleeps holds the guest, not the worker");
	fd_set_nonblocking(*read_end, true);
	for (unsigned i = 0; i < 100000 && n < sizeof(got); i++) {
		ssize_t part = read(*read_end, got + n, 10000);
		n += part > 0 ? (size_t)part : 0;
		rounds(1);
	}
	CHECK(n == sizeof(got) && !memcmp(got, d.ram + data, n), "every byte arrives, in order");
	CHECK(!vconsole_waiting(console, 0) && port_stream_error(stream) == 0, "nothing is left");
	CHECK(stop() == 0 && !(fcntl(*write_end, F_GETFL) & O_NONBLOCK), "the descriptor is as it was");
	CHECK(write(*write_end, "mine", 4) == 4, "and still open");
	close(ends[0]);
	close(ends[1]);
}

static void *read_all(void *argument)
{
	int fd = *(int *)argument;
	static char bytes[4096];
	size_t total = 0;
	for (ssize_t n; (n = read(fd, bytes, sizeof(bytes))) > 0;)
		total += (size_t)n;
	return (void *)total;
}

static void test_flush(void)
{
	int ends[2];
	pthread_t reader;
	void *total;
	if (pipe(ends) < 0)
		return;
	start(ends[1], -1);
	for (unsigned i = 0; i < 10; i++)
		put(i << 16, 1 << 16);
	CHECK(port_stream_flush(stream, 20) == -ETIMEDOUT, "a flush into a full pipe gives up in time");
	pthread_create(&reader, NULL, read_all, &ends[0]);
	int rc = stop();
	close(ends[1]);
	pthread_join(reader, &total);
	CHECK(rc == 0 && (size_t)total == 10 << 16, "the end waits for what the guest has left");
	close(ends[0]);
}

static void test_gone(void)
{
	int ends[2];
	if (pipe(ends) < 0)
		return;
	start(ends[1], -1);
	close(ends[0]);
	put_text("nobody");
	CHECK(port_stream_error(stream) == -EPIPE && !vconsole_waiting(console, 0),
		"a reader that is gone holds nothing");
	put_text("listens");
	CHECK(!vconsole_waiting(console, 0) && stop() == -EPIPE, "and the end says so");
	close(ends[1]);

	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	start(full, -1);
	put_text("full");
	CHECK(port_stream_error(stream) == -ENOSPC && stop() == -ENOSPC, "a full disk is told");
	close(full);
}

static void test_file(void)
{
	char bytes[32] = "";
	int fd = memfd_create("output", MFD_CLOEXEC);
	start(fd, -1);
	put_text("one\n");
	put_text("two\n");
	CHECK(pread(fd, bytes, sizeof(bytes), 0) == 8 && !strcmp(bytes, "one\ntwo\n"), "a file");
	CHECK(stop() == 0, "ends well");
	close(fd);
	start(-1, -1);
	put_text("nowhere");
	CHECK(!vconsole_waiting(console, 0) && stop() == 0, "without an output nothing is held");
}

static void offer_input(uint32_t size)
{
	uint16_t i = d.queues[RX].avail_idx % 128;
	fake_desc(&d.queues[RX], i, data + i * 64, size, WRITE, 0);
	fake_offer(&d.queues[RX], i);
	fake_kick(&d, RX);
}

static void test_input(void)
{
	int ends[2];
	uint32_t id, n;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0)
		return;
	start(ends[1], ends[1]);
	CHECK(write(ends[0], "keys", 4) == 4, "one socket for both ways");
	rounds(2);
	CHECK(!fake_used(&d.queues[RX], &id, &n), "input waits for the guest");
	offer_input(3);
	CHECK(fake_used(&d.queues[RX], &id, &n) && n == 3 && !memcmp(d.ram + data, "key", 3), "which takes a part");
	CHECK(write(ends[0], "!", 1) == 1, "more comes meanwhile");
	rounds(2);
	offer_input(64);
	CHECK(fake_used(&d.queues[RX], &id, &n) && n == 1 && d.ram[data + 64] == 's', "the rest");
	offer_input(64);
	rounds(2);
	CHECK(fake_used(&d.queues[RX], &id, &n) && n == 1 && d.ram[data + 128] == '!', "and what came meanwhile");
	put_text("echo");
	char bytes[8] = "";
	CHECK(read(ends[0], bytes, sizeof(bytes)) == 4 && !strcmp(bytes, "echo"), "output on the same socket");
	shutdown(ends[0], SHUT_WR);
	rounds(3);
	CHECK(loop_round(&loop, 0, NULL) == 0 && loop.n_events == 0, "an input that has ended is not watched");
	put_text("still");
	CHECK(read(ends[0], bytes, sizeof(bytes)) == 5, "and the output goes on");
	CHECK(stop() == 0, "ends well");
	close(ends[0]);
	close(ends[1]);

	int fd = memfd_create("input", MFD_CLOEXEC);
	if (pwrite(fd, "from a file", 11, 0) != 11)
		return;
	start(-1, fd);
	offer_input(64);
	rounds(3);
	CHECK(fake_used(&d.queues[RX], &id, &n) && n == 11 && !memcmp(d.ram + data, "from a file", 11),
		"a file's bytes");
	CHECK(!loop.always, "its end is an end");
	CHECK(stop() == 0 && fcntl(fd, F_GETFD) >= 0, "and it stays the caller's");
	close(fd);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	test_back_pressure(false);
	test_back_pressure(true);
	test_flush();
	test_gone();
	test_file();
	test_input();
	CHECK(port_stream_destroy(NULL) == 0, "nothing to destroy");
	return tap_done();
}
