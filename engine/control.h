/* SPDX-License-Identifier: Apache-2.0 */
/* control.h - requests to a VM's supervisor over supervisor.sock, from any process of the user's */
#ifndef ENGINE_CONTROL_H
#define ENGINE_CONTROL_H

#include "engine/engine.h"
#include "vmm/config.h"

#define CONTROL_ANSWER_MS 10000

/** Send @message with @fds and wait at most @timeout_ms for the one message that answers it, which has to be @kind. Whether it
 *  answers with an error is not looked at. -ESRCH: the VM has ended; -ETIMEDOUT; -EPROTO. */
int control_ask(const struct husk *husk, const char *id, const struct vm_message *message, const int *fds, size_t n_fds,
	enum vm_message_kind kind, unsigned timeout_ms, struct vm_message *answer, struct husk_error *err);
/** The error that an answer tells, in its own words, which say what was tried. */
int control_judge(const char *id, const struct vm_message *answer, struct husk_error *err);
/** A request that an ANSWER answers; @fd goes with it (-1: none). */
int control_request(const struct husk *husk, const char *id, const struct vm_message *message, int fd,
	unsigned timeout_ms, struct husk_error *err);

#endif
