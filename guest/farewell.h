/* SPDX-License-Identifier: Apache-2.0 */
/* farewell.h - sockets whose forward was reset by the host: each is reset, too, once it has sent what it still holds */
#ifndef GUEST_FAREWELL_H
#define GUEST_FAREWELL_H

#include "base/loop.h"

struct farewells;

int farewells_open(struct loop *loop, struct farewells **out, struct husk_error *err);

/** Close the TCP socket @fd (taken) with a reset as soon as its bytes have been sent, and in any case within 5 seconds. At
 *  once where there are too many of them, or without memory: then bytes are lost, which the reset tells. */
void farewell(struct farewells *all, int fd);

/** Close @fd with a reset now; what it has not sent is lost. */
void close_with_reset(int fd);

#endif
