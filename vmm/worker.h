/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.h - the worker: one VM's guest memory, devices, machine and doors
 *
 * Split in rooms: worker.c wires the VM up from its configuration, workload.c follows its life from the guest's READY to the
 * outcome, orders.c does what the supervisor asks for meanwhile, sample.c keeps the counters.
 */
#ifndef VMM_WORKER_H
#define VMM_WORKER_H

#include "base/loop.h"
#include "base/record_log.h"
#include "memory/memory.h"
#include "vmm/agent_client.h"
#include "vmm/config.h"
#include "vmm/console.h"
#include "vmm/control.h"
#include "vmm/doors/doors.h"
#include "vmm/machine/machine.h"
#include "vmm/ready.h"
#include "vmm/sink.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/disk.h"
#include "vmm/virtio/rng.h"
#include "vmm/virtio/vconsole.h"
#include "vmm/virtio/vsock.h"

#define WORKER_DEVICES_MAX (VMM_DEVICES_MAX + 3) /* with the `kvm` machine's console, rng and balloon */

/** A device in the machine. */
struct worker_device {
	struct worker *worker;
	char name[16]; /* in messages: "root disk", "disk 1" */
	bool broken; /* by the guest; said once */
};

/** A block device with what lies behind it. */
struct worker_disk {
	struct disk *disk;
	struct blk *blk;
};

struct worker {
	struct loop loop;
	struct vmm_config config;
	struct memory memory;
	struct worker_disk disks[VMM_DISKS_MAX + 2]; /* as the guest sees them: root, the user's, scratch */
	unsigned n_disks;
	struct vsock *vsock;
	/* where the machine has none of its own */
	struct virtio_console *vconsole;
	struct rng *rng;
	struct balloon *balloon;
	struct worker_device devices[WORKER_DEVICES_MAX]; /* in the order of VMM_DEVICE_FD */
	unsigned n_devices;
	const struct machine_ops *ops;
	struct machine *machine;
	struct record_log console_log, workload_log; /* limit 0: the VM has none */
	struct console console;
	struct sink sink; /* of the serial sinks but `log` */
	struct doors *doors;
	struct control control;
	/* orders.c */
	struct loop_watch supervisor; /* what the supervisor says */
	bool runs, paused; /* the machine has begun to run, it rests */
	uint32_t changing; /* VM_CONTROL_PAUSE or RESUME, which the machine has not answered yet; 0 */
	uint64_t paused_ns; /* CLOCK_MONOTONIC: since when */
	bool guest_answers; /* the balloon may be set */
	bool ballooning; /* its first target was asked for by us, and QEMU has not answered */
	int stdin_fd; /* owned; of an ATTACH before the workload's start; -1 */
	bool stdin_to_end;
	/* sample.c */
	struct vm_stats *stats; /* mapped */
	struct loop_watch sampling; /* the timer of what takes more than one round */
	unsigned samples_asked, sample_region;
	uint64_t sample_at, sample_used;
	/* workload.c */
	struct ready ready;
	struct agent_client *client; /* NULL before READY and after its end */
	struct loop_watch timeout; /* of the workload; then of what is left to do after its SIGKILL */
	struct loop_watch settle; /* after the machine's end: lets the other sources speak first */
	struct loop_watch drain; /* after the workload's end: the doors' clients take what it has said */
	uint64_t timeout_left_ns, drain_left_ns; /* while paused: of those two timers; 0: not set */
	uint64_t exit_ns, drain_progress;
	struct vm_message outcome; /* of the workload, while that goes on; kind 0: not known yet */
	bool timed_out, draining, reported;
	bool held; /* the outcome waits for the caller to take the guest's last words */
	enum vm_end settle_end;
	char settle_text[256];
	uint64_t begun_ns, running_ns; /* running_ns: when the machine was told to run */
};

/** Run the worker whose envelope is descriptor @fd; the process's exit status. */
int worker_run(int fd);

/** Start following the VM's life. */
int workload_init(struct worker *w, struct husk_error *err);
/** Tell the supervisor something. */
void workload_tell(struct worker *w, const struct vm_message *message);
/** Tell the supervisor how the VM ended; the first word counts. */
__attribute__((format(printf, 4, 5))) void workload_report(
	struct worker *w, enum vm_end end, uint32_t value, const char *format, ...);
/** The machine ended or is lost: report that in @ms milliseconds unless something better is known by then. @text may be NULL. */
void workload_settle(struct worker *w, enum vm_end end, const char *text, uint64_t ms);
/** A message from the control socket. */
void workload_control(void *data, const struct vm_message *message);
/** The guest connects to host @port. */
int workload_accept(void *data, uint32_t port);

/** The VM stands still, and so does the time that its workload has; or both go on. */
void workload_suspend(struct worker *w);
void workload_go_on(struct worker *w);

/** Listen to the supervisor. */
int orders_open(struct worker *w, struct husk_error *err);
/** The machine says something that a request may have waited for. */
void orders_machine(struct worker *w, enum machine_event event, const char *text);
/** The guest is far enough to have its balloon set. */
void orders_guest_answers(struct worker *w);
/** Answer @kind: 0, or -errno with @text. */
void orders_done(struct worker *w, uint32_t kind, int rc, const char *text);

/** Map the VM's counters: what is given, or memory that nobody sees. */
int sample_open(struct worker *w, struct husk_error *err);
/** Bring what is not counted as it happens up to date, then answer VM_CONTROL_STATS. */
void sample_ask(struct worker *w);
/** The guest has given back @bytes by way of QEMU's balloon. */
void sample_ballooned(void *data, uint64_t bytes);

/** A line for the VM's log. */
__attribute__((format(printf, 2, 3))) void worker_log(struct worker *w, const char *format, ...);

#endif
