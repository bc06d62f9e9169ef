/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-exec.c - what an exec costs over what the guest itself needs for the program
 *
 * usage: bench-exec VM GUEST ROUNDS
 *
 * VM runs; GUEST is exec-guest, which is copied into it. In each round, one behind the other, so that all see the same machine:
 * an exec of `true`; a byte there and back on a new connection to an echo in the guest; the same on one that stays open. Before
 * and after the rounds the guest forks, execs and waits for the same program. Prints a line per figure, microseconds each:
 * NAME VALUE VALUE …; last "rss BYTES" of this process before and after a gibibyte of a program's output.
 */
#include "base/cleanup.h"

#include <fcntl.h>
#include <husk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PORT 7007
#define GIBIBYTE (1ull << 30)

static struct husk *husk;
static struct husk_vm *vm;
static struct husk_error err;

static void die(const char *what)
{
	fprintf(stderr, "bench-exec: %s: %s\n", what, err.message);
	exit(1);
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double exec_true(void)
{
	static const char *const command[] = {"/bin/true", NULL};
	struct husk_exec_outcome outcome = {.size = sizeof(outcome)};
	struct husk_exec_config config;

	husk_exec_config_init(&config);
	config.command = command;
	double begun = now_us();
	if (husk_vm_exec(vm, &config, &outcome, &err) < 0 || outcome.exit_code != 0)
		die("exec true");
	return now_us() - begun;
}

static int dial(void)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	char line[64];
	size_t n = 0;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "%s/%s/vsock.sock", husk_runtime(husk), husk_vm_id(vm));
	if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || dprintf(fd, "CONNECT %d\n", PORT) < 0)
		die("connect");
	while (n < sizeof(line) && read(fd, line + n, 1) == 1 && line[n] != '\n')
		n++;
	if (n < 2 || memcmp(line, "OK", 2) != 0)
		die("connect to the echo");
	return fd;
}

static void ping(int fd)
{
	char byte = 'x';

	if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
		die("echo");
}

static double echo_anew(void)
{
	double begun = now_us();
	CLEANUP_FD int fd = dial();

	ping(fd);
	return now_us() - begun;
}

static double echo_on(int fd)
{
	double begun = now_us();

	ping(fd);
	return now_us() - begun;
}

/** The guest's own times of the program. */
static void spawn_in_guest(unsigned rounds)
{
	char count[16];
	const char *const command[] = {"/tmp/exec-guest", "spawn", count, "/bin/true", NULL};
	struct husk_exec_outcome outcome = {.size = sizeof(outcome)};
	struct husk_exec_config config;

	snprintf(count, sizeof(count), "%u", rounds);
	husk_exec_config_init(&config);
	config.command = command;
	config.collect = 1 << 20;
	if (husk_vm_exec(vm, &config, &outcome, &err) < 0 || outcome.exit_code != 0)
		die("measure in the guest");
	printf("spawn");
	for (char *at = outcome.out, *line; (line = strsep(&at, "\n")) && *line;)
		printf(" %.1f", strtod(line, NULL) / 1e3);
	printf("\n");
	husk_exec_outcome_free(&outcome);
}

static long peak_kib(void)
{
	char line[128];
	long kib = 0;
	FILE *file = fopen("/proc/self/status", "re");

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "VmHWM: %ld", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib;
}

static void swallow(void *data, enum husk_stream stream, const void *bytes, size_t n)
{
	(void)stream, (void)bytes;
	*(uint64_t *)data += n;
}

/** A gibibyte of output: seconds, and what this process grew by. */
static void flood(void)
{
	static const char *const command[] = {"/bin/dd", "if=/dev/zero", "bs=1M", "count=1024", NULL};
	struct husk_exec_outcome outcome = {.size = sizeof(outcome)};
	struct husk_exec_config config;
	uint64_t bytes = 0;

	husk_exec_config_init(&config);
	config.command = command;
	config.output = swallow;
	config.output_data = &bytes;
	long before = peak_kib();
	double begun = now_us();
	if (husk_vm_exec(vm, &config, &outcome, &err) < 0 || bytes < GIBIBYTE)
		die("a gibibyte of output");
	printf("flood %.1f\nrss %ld %ld\n", now_us() - begun, before, peak_kib());
}

static void start_echo(void)
{
	static const char *const command[] = {"/tmp/exec-guest", "echo", "7007", NULL};
	struct husk_exec_outcome outcome = {.size = sizeof(outcome)};
	struct husk_exec_config config;

	husk_exec_config_init(&config);
	config.command = command;
	config.detach = true;
	if (husk_vm_exec(vm, &config, &outcome, &err) < 0)
		die("start the echo");
}

static void copy_guest(const char *path)
{
	struct husk_copy_options options;

	husk_copy_options_init(&options);
	if (husk_vm_copy_in(vm, path, "/tmp/exec-guest", &options, &err) < 0)
		die("copy the guest's side");
}

static void print(const char *name, const double *values, unsigned n)
{
	printf("%s", name);
	for (unsigned i = 0; i < n; i++)
		printf(" %.1f", values[i]);
	printf("\n");
}

int main(int argc, char **argv)
{
	unsigned rounds = argc == 4 ? (unsigned)atoi(argv[3]) : 0;

	if (!rounds) {
		fprintf(stderr, "usage: bench-exec VM GUEST ROUNDS\n");
		return 2;
	}
	if (husk_open(NULL, &husk, &err) < 0 || husk_vm_open(husk, argv[1], &vm, &err) < 0)
		die("open the VM");
	double *values = calloc(3 * rounds, sizeof(*values));
	if (!values)
		return 1;
	copy_guest(argv[2]);
	start_echo();
	exec_true(); /* what is done once has been done then, and the echo listens */
	int fd = dial();
	spawn_in_guest(rounds / 2);
	for (unsigned i = 0; i < rounds; i++) {
		values[i] = exec_true();
		values[rounds + i] = echo_anew();
		values[2 * rounds + i] = echo_on(fd);
	}
	close(fd);
	spawn_in_guest(rounds / 2);
	print("exec", values, rounds);
	print("echo-anew", values + rounds, rounds);
	print("echo", values + 2 * rounds, rounds);
	flood();
	free(values);
	husk_vm_close(vm);
	husk_close(husk);
	return 0;
}
