/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - what husk-vmm is told at start: one envelope, written by the engine, read by supervisor and worker
 *
 * Descriptor 3 of `husk-vmm supervisor` is a sealed memfd with this envelope. Entries that name descriptors hold the
 * number that the descriptor has in the receiving process. The supervisor writes the worker's envelope from its own.
 */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include "base/buffer.h"
#include "base/error.h"
#include "base/state.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VMM_MAGIC 0x434d5648u /* "HVMC" */
#define VMM_VERSION 1
#define VMM_LAYERS_MAX 127
#define VMM_DISKS_MAX                                                                                                  \
	18 /* of the user's: with root, scratch, vsock, console, rng and balloon 24 slots, all that `kvm` has */
#define VMM_SERIAL_MAX 20 /* VIRTIO_BLK_ID_BYTES: virtio 1.2 §5.2.6 */
#define VMM_DEVICES_MAX (VMM_DISKS_MAX + 3) /* that the worker makes for every machine: root, disks, scratch, vsock */
#define VMM_SIZE_MAX (2u << 20)

enum vmm_machine { VMM_MACHINE_QEMU = 1, VMM_MACHINE_KVM = 2 };

/** Which ports of the host a guest program reaches. */
enum vmm_reach { VMM_REACH_ANY = 0, VMM_REACH_NONE = 1, VMM_REACH_ONE = 2 };

/** PTY: as INHERIT, but what the terminal does not take at once is dropped: nobody may be there. */
enum vmm_serial { VMM_SERIAL_LOG = 0, VMM_SERIAL_INHERIT = 1, VMM_SERIAL_CAPTURE = 2, VMM_SERIAL_PTY = 3 };

enum vmm_tag {
	VMM_ID = 1, /* string: 12 hex digits */
	VMM_MACHINE = 2, /* u32: enum vmm_machine */
	VMM_MEMORY = 3, /* u64 bytes, a multiple of 1 MiB */
	VMM_CPUS = 4, /* u32 */
	VMM_QEMU_PATH = 5, /* string: absolute path of qemu-system-x86_64 */
	VMM_CMDLINE = 6, /* string: kernel command line */
	VMM_KERNEL_FD = 7, /* u32 */
	VMM_INITRD_FD = 8, /* u32 */
	VMM_LAYER_FD = 9, /* u32, repeated, bottom first: read-only block images that make up the root disk */
	VMM_SCRATCH_FD = 10, /* u32: read-write disk image */
	VMM_RUNTIME_FD = 11, /* u32: the VM's runtime directory (0700), the worker's root */
	VMM_STATE_FD = 12, /* u32: the state record (base/state.h), read-write; supervisor only */
	VMM_LOG_FD = 13, /* u32: append-only: guest console, husk-vmm's and QEMU's own messages */
	VMM_CALLER_FD = 14, /* u32: SOCK_SEQPACKET to the caller; its end of file ends a VM of lifetime CALLER */
	VMM_CONTROL_FD = 15, /* u32: SOCK_SEQPACKET, the worker's control socket */
	VMM_STDIN_FD = 16, /* u32: the workload's streams; never a terminal; absent: none. Non-blocking where that */
	VMM_STDOUT_FD = 17, /*      is a property of a description of ours; otherwise a regular file or a device */
	VMM_STDERR_FD = 18,
	VMM_EXEC = 19, /* bytes: payload of the agent's EXEC frame for the main workload */
	VMM_START_TIMEOUT_MS = 20, /* u64: from start to the agent's READY */
	VMM_TIMEOUT_MS = 21, /* u64: of the workload, from STARTED; 0: none */
	VMM_LIFETIME = 22, /* u32: 0 caller, 1 detached */
	VMM_DOOR = 23, /* repeated: struct vmm_door_entry; a door to be open from the start. Supervisor only */
	VMM_LISTEN_WAIT_MS = 24, /* u64: how long a connection waits for its port to be listened on */
	VMM_STATS_FD = 25, /* u32: the VM's counters (base/stats.h), read-write, of full size */
	VMM_SERVICE_FD = 26, /* u32: listening SOCK_SEQPACKET, supervisor.sock (supervisor/requests.c). Supervisor only */
	VMM_TLS_PATH = 27, /* string: absolute path of husk-tls; absent: no TLS doors. Supervisor only */
	VMM_DISK = 28, /* repeated: struct vmm_disk; the user's disks, in the guest's order */
	VMM_REACH = 29, /* u32: enum vmm_reach; default ANY. Supervisor only, which connects */
	VMM_REACH_PORT = 30, /* u32: with ONE */
	VMM_SERIAL = 31, /* u32: enum vmm_serial, default LOG: where the guest's console goes */
	VMM_SERIAL_OUT_FD = 32, /* u32: with INHERIT and CAPTURE: to there, as VMM_STDOUT_FD */
	VMM_SERIAL_IN_FD = 33, /* u32: and what the guest hears from there */
	VMM_NO_AGENT = 34, /* u32: 1 for a foreign initramfs: nobody answers on the agent's port */
	VMM_WALLS =
		37, /* u32: the walls around worker and QEMU (vmm/jail/jail.h); absent: all that go with our rights */
	VMM_KVM_FD = 38, /* u32: /dev/kvm, `kvm` machine only */
	/* of a VM that lives on without its caller; logs: base/record_log.h */
	VMM_LOG_SIZE = 50, /* u64: most bytes of each file of the two logs */
	VMM_CONSOLE_LOG_FD =
		51, /* u32: the guest's console; absent: it goes to VMM_LOG_FD, as far as console.h has it */
	VMM_CONSOLE_LOG_2_FD = 43,
	VMM_WORKLOAD_LOG_FD =
		52, /* u32: stdout and stderr of the workload, which then has no VMM_STDOUT_FD, VMM_STDERR_FD */
	VMM_WORKLOAD_LOG_2_FD = 44,
	VMM_OPEN_STDIN = 53, /* u32: 1: the workload's stdin is a stream, which ATTACH feeds; not with VMM_STDIN_FD */
	VMM_STOP_SIGNAL = 54, /* u32: what STOP sends to the workload; supervisor only */
	VMM_BALLOON = 55, /* u64 bytes: the balloon's target from READY on; 0: none */
	VMM_NAME = 56, /* string: the VM's name, for events; supervisor only, as are the following */
	VMM_EVENTS_PATH = 57, /* string: the home's file of events (base/event.h); absent: none are told */
	VMM_PTY_FD = 58, /* u32: PTY: the terminal's slave, held open so that the master never sees a hang-up */
	VMM_PTY_PATH = 59, /* string: PTY: its path, for the state */
	VMM_REMOVER_PATH =
		60, /* string: absolute path of husk-remove, which the supervisor becomes at the end; absent: none */
	VMM_HOME = 61, /* string: its first argument; the second is VMM_RUNTIME_PATH, the third VMM_ID */
	VMM_RUNTIME_PATH = 62,
	VMM_LOCK_FD = 63, /* u32: the record's lock; let go when the state names the supervisor. Supervisor only */
	/* only in the worker's envelope, put there by the supervisor */
	VMM_MEMORY_FD = 40, /* u32: guest RAM, a sealed memfd */
	VMM_QMP_FD = 41, /* u32 */
	VMM_DEVICE_FD =
		42, /* u32, repeated: vhost-user sockets, one per device: root, disks, scratch if there is one, vsock */
	VMM_SUPERVISOR_FD = 45, /* u32: SOCK_SEQPACKET to the supervisor: struct vm_outcome and progress */
	VMM_CONSOLE_FD = 46, /* u32: the guest's serial console, a stream */
	VMM_HVC_FD = 39, /* u32: QEMU's hvc0, a stream; with CAPTURE */
	VMM_EXEC_SOCKET_FD = 47, /* u32: exec.sock, listening */
	VMM_VSOCK_SOCKET_FD = 48, /* u32: vsock.sock, listening */
	VMM_DIAL_FD = 49, /* u32: SOCK_SEQPACKET to the supervisor, for guest programs that connect (vmm/dial.h) */
};

#define VM_SERVICE_NAME "supervisor.sock" /* in the runtime directory */

#define VMM_DOOR_FDS 4 /* TLS: the unix socket, the TCP socket, certificate and key; others: the listening socket */

/** The value of a VMM_DOOR entry, host byte order, one build. door.id is 0. */
struct vmm_door_entry {
	uint32_t n_fds; /* 1, or 4 for TLS */
	int32_t fd[VMM_DOOR_FDS]; /* their numbers */
	struct vm_door door;
};

/** The value of a VMM_DISK entry, host byte order, one build: a disk of the user's. */
struct vmm_disk {
	int32_t fd; /* opened read-only when it is: the worker could not write if it wanted to */
	uint32_t read_only;
	char serial[VMM_SERIAL_MAX + 4]; /* at most VMM_SERIAL_MAX printable bytes, NUL-terminated */
};

/** Descriptors that a door of @kind comes with. */
static inline uint32_t vmm_door_fds(uint32_t kind)
{
	return kind == VM_DOOR_TLS ? VMM_DOOR_FDS : 1;
}

/** The envelope, read. Strings and arrays are owned; descriptors are -1 when absent and owned. */
struct vmm_config {
	char *id, *qemu_path, *cmdline, *tls_path;
	enum vmm_machine machine;
	uint64_t memory;
	uint32_t cpus;
	int kernel_fd, initrd_fd, scratch_fd, runtime_fd, state_fd, log_fd, caller_fd, control_fd;
	int stdio_fd[3];
	int layer_fd[VMM_LAYERS_MAX];
	size_t n_layers;
	struct vmm_disk disks[VMM_DISKS_MAX]; /* fd owned */
	size_t n_disks;
	uint8_t *exec;
	size_t exec_size;
	uint64_t start_timeout_ms, timeout_ms, listen_wait_ms;
	int stats_fd, service_fd, kvm_fd;
	struct vmm_door_entry *doors; /* fd[] owned; -1 beyond n_fds */
	size_t n_doors;
	bool detached;
	uint32_t walls; /* as it was given; UINT32_MAX: all */
	enum vmm_reach reach;
	uint32_t reach_port, no_agent;
	enum vmm_serial serial;
	int serial_out_fd, serial_in_fd, hvc_fd;
	int memory_fd, qmp_fd, supervisor_fd, console_fd, exec_socket_fd, vsock_socket_fd, dial_fd;
	uint64_t log_size, balloon;
	int console_log_fd[2], workload_log_fd[2]; /* both or none of a pair */
	uint32_t open_stdin, stop_signal;
	char *name, *events_path, *pty_path, *remover_path, *home, *runtime_path;
	int pty_fd, lock_fd;
	int device_fd[VMM_DEVICES_MAX]; /* owned */
	size_t n_devices;
};

/** How many devices the worker makes for this VM on every machine. */
static inline size_t vmm_config_devices(const struct vmm_config *config)
{
	return 1 + config->n_disks + (config->scratch_fd >= 0 ? 1 : 0) + 1;
}

/** Read the envelope in descriptor @fd, which is closed. Every descriptor it names is made CLOEXEC. */
int vmm_config_read(int fd, struct vmm_config *config, struct husk_error *err);
void vmm_config_free(struct vmm_config *config);

#define VMM_FDS_MAX (VMM_LAYERS_MAX + VMM_DISKS_MAX + VMM_DEVICES_MAX + VMM_DOOR_FDS * VM_DOORS_MAX + 64)
/** Every descriptor that @config owns into @fds; how many. */
size_t vmm_config_fds(const struct vmm_config *config, int fds[VMM_FDS_MAX]);

/* ---- messages on the caller's socket (supervisor to caller), the supervisor's socket (worker to supervisor) and the
 * control socket (caller to worker): one fixed-size struct per SOCK_SEQPACKET message, host byte order, one build. ---- */

enum vm_message_kind {
	VM_MESSAGE_READY = 1, /* the agent has answered; timings filled */
	VM_MESSAGE_STARTED = 2, /* the workload's exec succeeded */
	VM_MESSAGE_OUTCOME = 3, /* the last one */
	VM_MESSAGE_DRAINING =
		4, /* worker to supervisor only: the workload has ended, its output is still being written */
	VM_MESSAGE_EXPOSED = 5, /* answer to EXPOSE and UNEXPOSE: value 0 or a positive errno, door, text says why */
	VM_MESSAGE_ANSWER =
		6, /* answer to every other request on supervisor.sock: value 0 or a positive errno, text says why */
	VM_MESSAGE_DONE =
		7, /* worker to supervisor: answer to PAUSE, RESUME, BALLOON, STATS and ATTACH; value, text as ANSWER's,
				number: the request's kind */
	VM_MESSAGE_BEGUN = 8, /* supervisor to caller, the first one: the state on disk names this supervisor */
	VM_CONTROL_SIGNAL = 16, /* value: signal number, to the workload */
	VM_CONTROL_RESIZE = 17, /* value: rows << 16 | columns */
	VM_CONTROL_KILL = 18, /* caller to supervisor: end the VM now */
	VM_CONTROL_EXPOSE = 19, /* door, with its descriptors as SCM_RIGHTS; to the supervisor (which gives the id) over
				   supervisor.sock, and from there to the worker with the listening socket alone */
	VM_CONTROL_UNEXPOSE = 20, /* door.id, or with id 0 its endpoint */
	VM_CONTROL_POWER_BUTTON = 21, /* press it */
	/* over supervisor.sock, as are SIGNAL, RESIZE, KILL and POWER_BUTTON; each answered with one ANSWER */
	VM_CONTROL_STOP =
		22, /* value: milliseconds: ask the workload by its stop signal, halfway press the power button, at the
				 end kill the VM. Answered at once; a later STOP that gives less time counts */
	VM_CONTROL_PAUSE = 23, /* answered when the vCPUs stand still; -EALREADY when they do */
	VM_CONTROL_RESUME = 24, /* likewise */
	VM_CONTROL_BALLOON = 25, /* number: bytes that the guest is to give back in all */
	VM_CONTROL_STATS = 26, /* bring the VM's counters up to date */
	VM_CONTROL_ATTACH =
		27, /* with one descriptor, the reading end of a pipe: the workload's stdin from now on. value 1: its
				   end is the end of the workload's stdin; 0: another may be attached. -EBUSY while there is one,
				   -ENOTSUP without VMM_OPEN_STDIN, -EPIPE when stdin has ended */
};

/** How a VM ended, and why: the reason is what tells a guest's doing from husk's. */
enum vm_end {
	VM_END_NONE = 0, /* still running */
	VM_END_EXITED = 1, /* workload's exit status in value */
	VM_END_SIGNALED = 2, /* workload died of signal value */
	VM_END_TIMEOUT = 3, /* --timeout */
	VM_END_NOT_STARTED = 4, /* value: enum agent_error */
	VM_END_START_TIMEOUT = 5, /* no agent in time */
	VM_END_GUEST = 6, /* the guest powered off, panicked or reset before the workload ended */
	VM_END_MACHINE = 7, /* QEMU died or misbehaved */
	VM_END_WORKER = 8, /* the worker died */
	VM_END_SUPERVISOR = 9, /* the supervisor died (written by who finds it) */
	VM_END_CALLER = 10, /* the caller went away, lifetime CALLER */
	VM_END_KILLED = 11, /* asked to end */
	VM_END_FAILED = 12, /* husk failed: message says what */
};

/** "exited", "not_started", …; "unknown". */
const char *vm_end_name(uint32_t end);
/** Docker's exit statuses: the workload's own, 128 + signal, 124 timeout, 126 not executable, 127 not found, 137 killed, 125. */
int vm_end_exit_code(uint32_t end, uint32_t value);

#define VM_MESSAGE_TEXT 512

struct vm_message {
	uint32_t kind; /* enum vm_message_kind */
	uint32_t end; /* enum vm_end, of OUTCOME */
	uint32_t value;
	uint32_t reserved;
	uint64_t boot_ns; /* READY: worker start to the agent's READY */
	uint64_t duration_ns; /* OUTCOME: of the workload */
	uint64_t peak_rss; /* OUTCOME: of the workload, bytes */
	uint64_t number; /* BALLOON, DONE; OUTCOME: VM_STATE_* flags; 0 otherwise */
	char text[VM_MESSAGE_TEXT]; /* NUL-terminated, printable */
	struct vm_door door; /* EXPOSE, UNEXPOSE, EXPOSED; zero otherwise */
};

/** Check kind, end, value and text of a message that came from another process; false when out of range. */
bool vm_message_check(const struct vm_message *message);
/** Fill a message's text; non-printable bytes become '?'. */
__attribute__((format(printf, 2, 3))) void vm_message_text(struct vm_message *message, const char *format, ...);
__attribute__((format(printf, 2, 0))) void vm_message_vtext(
	struct vm_message *message, const char *format, va_list args);

#endif
