/* SPDX-License-Identifier: Apache-2.0 */
/*
 * service_bench.h - a supervisor that serves supervisor.sock, with a test in the places of its worker and of its clients
 *
 * There is one per process. Nothing runs by itself: turn() lets the supervisor do what there is to do.
 */
#ifndef TESTS_SERVICE_BENCH_H
#define TESTS_SERVICE_BENCH_H

#include "vmm/supervisor/supervisor.h"

#include <sys/un.h>

extern struct supervisor s;
extern int worker; /* its end of the channel */
extern char folder[64]; /* the runtime directory */
extern struct husk_error err;

/** A supervisor of a VM that runs; false when it could not be made. */
bool bench_begin(void);
/** Let go of all but the folder's contents. */
void bench_end(void);
/** Let the supervisor do what there is to do. */
void turn(void);
/** Wait for something to happen, @ms at most, and let it be done. */
void turn_in(int ms);

void set_address(struct sockaddr_un *address, const char *name);
/** A listening socket @name in the folder. */
int listen_at(const char *name, int type);
/** A client of supervisor.sock. */
int join(void);
/** True when the supervisor has closed @client's connection. */
bool closed(int client);
/** What the worker was told: the message, and whether a descriptor came, which is closed. */
bool told(struct vm_message *m, bool *with_fd);

#endif
