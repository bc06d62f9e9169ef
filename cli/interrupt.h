/* SPDX-License-Identifier: Apache-2.0 */
/* interrupt.h - verbs that go on until they are interrupted: logs -f, events, stats */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

/** From now on SIGINT, SIGTERM and SIGHUP end the process with exit status 128 + signal, at once and whatever it does, as a command
 *  in a shell would be seen to end; those that are ignored (nohup) stay so. */
void interrupt_ends(void);

#endif
