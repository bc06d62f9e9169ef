/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reach.h - the way to a VM's agent: who may be asked, the connection, and what the agent's refusals mean
 *
 * Theory of operation: each connection to exec.sock in a VM's runtime directory is one to its agent. Whether the VM runs is read
 * from its record first, so that one that is paused, and would answer only later, is told from one that hangs. The record's lock
 * is not taken: who runs the VM holds it. A record that says "running" after its supervisor was killed is found out by the
 * connection, which then fails.
 */
#ifndef ENGINE_REACH_H
#define ENGINE_REACH_H

#include "engine/engine.h"

#include <stdint.h>

#define REACH_SOCKET "exec.sock"

/** 0 when the VM @id runs; -ENOENT (no such record), -ESRCH (it does not run), -EAGAIN (it is paused, or its agent has not
 *  answered yet). */
int reach_check(const struct husk *husk, const char *id, struct husk_error *err);

/** A non-blocking connection to the agent of the VM @id, made within @timeout_ms: the descriptor, or as reach_check(), and
 *  -ETIMEDOUT. */
int reach_agent(const struct husk *husk, const char *id, uint64_t timeout_ms, struct husk_error *err);

/** What the agent's ERROR @code with @text is for a caller: always negative, @err filled. */
int reach_refused(const char *id, uint32_t code, const char *text, struct husk_error *err);

/** The connection to the agent has ended, or broken, without a word: -ESRCH where the VM has ended, else -EPROTO. */
int reach_lost(const struct husk *husk, const char *id, struct husk_error *err);

#endif
