/* SPDX-License-Identifier: Apache-2.0 */
/*
 * native.h - a sandbox program run without KVM: in a process of its own, under ptrace
 *
 * Theory of operation: the program is code for privilege level 0 that does nothing privileged but `out`. In a process
 * that instruction is a general protection fault, so a SIGSEGV, which the tracer takes for the exit of KVM_RUN: it
 * reads eax, answers in the buffers, which both have mapped, and goes on behind the instruction. Everything lies
 * where it does in a sandbox. This tests the runtime and counts its instructions, by single steps; it is no wall, and
 * only for programs of the tests.
 */
#ifndef TESTS_SANDBOX_NATIVE_H
#define TESTS_SANDBOX_NATIVE_H

#include "sandbox/codec.h"
#include "sandbox/image.h"
#include "sandbox/places.h"

#include <sys/types.h>

/** How a run ended: a signal of the protocol's, or a fault: a signal of the process. */
struct native_exit {
	uint32_t signal; /* enum sandbox_signal; 0: fault */
	int fault;
	uint64_t rip;
	uint64_t steps; /* when they were counted */
};

struct native;

/** The host's side of a host call: @result or, when the return value is not 0, the error's code and @message. */
typedef int32_t native_host(struct native *native, const struct signature *import, const struct codec_values *args,
	struct husk_sandbox_value *result, char message[64]);

struct native {
	struct husk_sandbox_image *image;
	struct husk_sandbox_config config;
	struct sandbox_places places;
	pid_t pid;
	uint8_t *input, *output, *shared; /* shared: one page at SANDBOX_REGIONS that the program may write */
	uint64_t call_size; /* 0: no call is under way */
	native_host *host;
	bool count;
	char printed[4096]; /* by host calls of print, which native_finish() answers */
	size_t n_printed;
	int32_t code; /* of the last error frame */
	char message[SANDBOX_MESSAGE_MAX + 1];
	struct husk_error err;
};

/** Load @path and stop before its first instruction. @names: of regions and cells, in shared. False: err says why. */
bool native_load(struct native *native, const char *path, const struct sandbox_named *names, unsigned n_names);
/** Run to the next `out` of the protocol, or a fault. */
struct native_exit native_run(struct native *native);
/** Run until it is no host call; those are answered by `host`, print by itself. An error frame is read into code and
 *  message. */
struct native_exit native_finish(struct native *native);
/** Call @name. *@result, when not NULL, gets what was returned. */
struct native_exit native_call(struct native *native, const char *name, const struct husk_sandbox_value *args, size_t n,
	struct codec_values *result);
void native_end(struct native *native);

#endif
