/* SPDX-License-Identifier: Apache-2.0 */
/*
 * husk.h - the public interface of libhusk: OCI images run as microVMs
 *
 * This is the only public header. Link with `pkg-config --libs husk`.
 *
 * Errors: every function that can fail returns 0 on success or a negative errno value, and then fills the caller's
 * struct husk_error (which may be NULL); it stays untouched on success. No function prints, exits, aborts, or changes
 * the process's signal dispositions or masks.
 *
 * Threads: a struct husk may be used from any number of threads at once. A struct husk_vm may be used from several
 * threads as well, but husk_vm_close() must be the last call on it. Threads that the library starts (it copies streams
 * in them) have every signal blocked. VMs are children of the process: a program that reaps all children with wait(-1)
 * takes nothing from husk but the supervisor's exit status, which husk does not need.
 *
 * Growth: structs that a caller fills begin with `size`, which their *_init() function sets. A program built with an
 * older header works with a newer library; one built with a newer header is refused (-E2BIG) only when it uses a field
 * that the library does not know.
 *
 * Strings returned through `char **` are malloc'ed, NUL-terminated, and freed by the caller with free(3).
 */
#ifndef HUSK_H
#define HUSK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HUSK_ERROR_MESSAGE_MAX 1024

/** What went wrong: filled by a failing call, untouched by a successful one.
 *  code:    negative errno value, the same that the call returned
 *  message: one line, NUL-terminated, without a trailing newline: what was tried, on what, why it failed */
struct husk_error {
	int code;
	char message[HUSK_ERROR_MESSAGE_MAX];
};

/** The library's version, "0.1.0". */
const char *husk_version(void);

/* ---- the handle: one home with its images, kernels and VMs ---- */

/** One home directory, opened. */
struct husk;

enum husk_notice {
	HUSK_NOTICE_WALL = 1,    /* which wall stands there: said once per start on the `software` wall */
	HUSK_NOTICE_CLEANUP = 2, /* a VM was found that had lost its supervisor, and was cleaned up */
	HUSK_NOTICE_CONSOLE = 3, /* the VM failed: one of the last lines of the guest's console or the VM's log */
	HUSK_NOTICE_WARNING = 4, /* something that works, but perhaps not as meant */
};

/** Something a user should read: one line, printable, without newline, valid during the call. Called in the thread that
 *  called the library. */
typedef void husk_notice_fn(void *data, enum husk_notice kind, const char *line);

struct husk_options {
	size_t size;
	const char *home;    /* directory of all state; NULL: $HUSK_HOME, else /var/lib/husk for root, else
	                      * $XDG_DATA_HOME/husk, else ~/.local/share/husk */
	const char *libexec; /* directory of husk's helper programs; NULL: $HUSK_LIBEXEC, else where they were installed */
	husk_notice_fn *notice; /* NULL: notices are dropped */
	void *notice_data;
};

void husk_options_init(struct husk_options *options);

/** Open a home, which is made when missing. @options may be NULL: all defaults. Strings are copied.
 *  Sockets of running VMs lie in /run/husk for root and $XDG_RUNTIME_DIR/husk (else /tmp/husk-UID) for others; with a
 *  home given by option or environment, in its subdirectory run, unless that path is too long for a unix socket.
 *  Errors: -EACCES, -ENOTDIR, -EPERM (a runtime directory of someone else). */
int husk_open(const struct husk_options *options, struct husk **out, struct husk_error *err);
/** VMs that were started live on until husk_vm_close(), which must come before. NULL is fine. */
void husk_close(struct husk *husk);

/** The absolute paths in use; valid until husk_close(). */
const char *husk_home(const struct husk *husk);
const char *husk_runtime(const struct husk *husk);

/** Clean up after VMs whose supervisor died: their records are set right, foreground ones removed, each named in one
 *  HUSK_NOTICE_CLEANUP. Nothing of a live VM is touched. *@n (may be NULL): how many. husk_vm_start() does it too. */
int husk_cleanup(struct husk *husk, size_t *n, struct husk_error *err);

/* ---- images ---- */

enum husk_pull { HUSK_PULL_MISSING = 0, HUSK_PULL_ALWAYS = 1, HUSK_PULL_NEVER = 2 };

struct husk_pull_options {
	size_t size;
	const char *platform;  /* "linux/amd64"; NULL: this machine's */
	enum husk_pull policy;
	bool offline;          /* never use the network */
	int progress_fd;       /* progress as text, a bar when it is a terminal; -1: none */
	int cancel_fd;         /* readable: give up with -ECANCELED; -1: none */
};

void husk_pull_options_init(struct husk_pull_options *options);

/** Bring an image into the store. @source: a reference ("debian:12"), or "oci:DIR[:TAG]", "oci-archive:FILE",
 *  "docker-archive:FILE", "rootfs:PATH", "tar:FILE". *@id (may be NULL) gets "sha256:…".
 *  Errors: -EINVAL (not a reference), -ENOENT (no such image, tag or platform), -EACCES (credentials), -EBADMSG (a digest
 *  or an archive is wrong), -ENOSPC, -ENETUNREACH (offline or no network), -ECANCELED. Nothing half-done stays. */
int husk_image_pull(struct husk *husk, const char *source, const struct husk_pull_options *options, char **id,
	struct husk_error *err);
/** All images as a JSON array, newest first: {id, names[], created, os, architecture, size}. */
int husk_image_list(struct husk *husk, char **json, struct husk_error *err);
/** One image as a JSON object: {id, names[], digest, created, os, architecture, size, config{…}, layers[]}. @name: a
 *  reference, an id or a unique prefix of one. -ENOENT, -ENOTUNIQ. */
int husk_image_inspect(struct husk *husk, const char *name, char **json, struct husk_error *err);
/** Remove a name and, with its last name, the image. @force: also when other names or VMs use it. *@report (may be NULL)
 *  says what was removed, a line each. -ENOENT, -EBUSY. */
int husk_image_remove(struct husk *husk, const char *name, bool force, char **report, struct husk_error *err);
/** Import a local source, or a root file system as tar on descriptor 0 ("-"), under the name @name (may be NULL). */
int husk_image_import(struct husk *husk, const char *source, const char *name, const struct husk_pull_options *options,
	char **id, struct husk_error *err);
/** Check the credentials with the registry and store them in ~/.docker/config.json. */
int husk_login(struct husk *husk, const char *registry, const char *user, const char *password, struct husk_error *err);
int husk_logout(struct husk *husk, const char *registry, struct husk_error *err);
/** Remove what no image refers to: blobs, layers, unfinished downloads. *@report as above. husk_gc() does it, too. */
int husk_image_gc(struct husk *husk, char **report, struct husk_error *err);

/* ---- kernels ---- */

/** Fetch the guest kernel package with apt and unpack it into the store; fine when it is there. @progress_fd as in
 *  husk_pull_options. *@id (may be NULL): the kernel's id. */
int husk_kernel_fetch(struct husk *husk, int progress_fd, char **id, struct husk_error *err);
/** Build the tuned kernel from the distribution's source package into the store: about ten minutes on two processors, nothing
 *  when that very kernel is there. @fragment (may be NULL): a file with lines of kernel configuration to add to husk's own.
 *  Errors: -ENOENT (tools are missing; the message has the line that installs them), -ENOSPC, -EINVAL (an option that the
 *  source does not have), -ENOTSUP (not x86_64), -EIO (the build failed; the message says where its log lies). */
int husk_kernel_build(struct husk *husk, const char *fragment, int progress_fd, char **id, struct husk_error *err);
/** The id of the kernel that VMs boot: the newest tuned one, else the newest fetched one; or -ENOENT. */
int husk_kernel_find(struct husk *husk, char **id, struct husk_error *err);
/** All kernels as a JSON array, newest first: {id, flavor ("tuned" or "distribution"), path, created, used, reason}. */
int husk_kernel_list(struct husk *husk, char **json, struct husk_error *err);

/* ---- doors: sockets of the host that lead into a VM ---- */

enum husk_door_kind {
	HUSK_DOOR_UNIX = 1,    /* a unix stream socket; each connection is bridged to a TCP port of the guest */
	HUSK_DOOR_TCP = 2,     /* a TCP socket, likewise */
	HUSK_DOOR_EXEC = 3,    /* a unix stream socket to the agent (docs/agent-protocol.md) */
	HUSK_DOOR_HANDOFF = 5, /* a unix stream socket on which a router hands TCP connections over */
	HUSK_DOOR_TLS = 6,     /* a TCP socket; TLS is ended in a process of its own and bridged as with TCP */
};

/** A door to open. husk_door_init() sets everything to 0. */
struct husk_door {
	size_t size;
	enum husk_door_kind kind;
	const char *path;        /* UNIX, EXEC, HANDOFF: where the socket appears; its absolute path has at most 107 bytes */
	const char *address;     /* TCP, TLS: a numeric IPv4 or IPv6 address; NULL: 127.0.0.1 */
	uint16_t port;           /* TCP, TLS: 0 lets the kernel choose */
	uint16_t guest_port;     /* the guest's TCP port; 0: its first listener, the oldest that lives. Not with EXEC */
	const char *certificate; /* TLS: file with the certificate chain, PEM */
	const char *key;         /* TLS: file with the private key, PEM */
	const char *alpn;        /* TLS: protocols to agree to, comma-separated; NULL: "http/1.1" */
};

void husk_door_init(struct husk_door *door);

/* ---- what else a VM may have ---- */

/** A disk: a file or a block device, as raw bytes. husk_disk_init() sets everything to 0. */
struct husk_disk {
	size_t size;
	const char *path;   /* required; a multiple of 512 bytes. Writable, it is locked: no two VMs write the same */
	bool read_only;     /* enforced outside the guest. Any number of VMs may read the same */
	const char *serial; /* 1 to 20 letters, digits, '.', '_', '-'; NULL: "disk" and its place in the list */
	const char *format; /* "raw", which NULL means, too */
};

void husk_disk_init(struct husk_disk *disk);

/** A directory of the host's in the guest. No machine serves any yet: a list that is not empty is refused. */
struct husk_share {
	size_t size;
	const char *path;   /* of the host */
	const char *target; /* in the guest */
	bool read_only;
};

void husk_share_init(struct husk_share *share);

/** Which ports of the host a guest reaches over vsock, at vsock.sock_PORT in the VM's runtime directory. husk's own port is
 *  never one of them, and says nothing to anybody but the agent. */
enum husk_vsock {
	HUSK_VSOCK_ANY = 0,      /* each at which somebody has bound that socket; the guest is told of none */
	HUSK_VSOCK_DISABLED = 1, /* none */
	HUSK_VSOCK_AUTO = 2,     /* one from 50000 to 59999 that no other VM of this home has */
	HUSK_VSOCK_FIXED = 3,    /* vsock_port */
};

/** Where the guest's serial console goes. */
enum husk_serial {
	HUSK_SERIAL_LOG = 0,     /* into the VM's bounded log */
	HUSK_SERIAL_INHERIT = 1, /* there and, byte by byte, to the caller; what the caller sends goes to the guest */
	HUSK_SERIAL_CAPTURE = 2, /* /dev/hvc0, and with it the workload's /dev/console, to the caller and nobody else; what kernel
	                          * and init say goes into the log */
};

/* ---- VMs ---- */

/** A VM: one that this process has started, or one of the home that it has opened. */
struct husk_vm;

enum husk_lifetime {
	/** It ends with its handle, or with this process. The streams are the caller's. */
	HUSK_LIFETIME_CALLER = 0,
	/** It belongs to nobody: it is no child of this process, outlives it, and keeps its record, its scratch disk and its logs
	 *  when it ends, so that it can be started again. Its output goes into its log (husk_vm_logs()); stdin_fd, stdout_fd,
	 *  stderr_fd, serial_fd and serial_input_fd must be -1, serial HUSK_SERIAL_LOG: its console is a pseudo-terminal. */
	HUSK_LIFETIME_DETACHED = 1,
};

/** What to start. husk_vm_config_init() sets the defaults; every pointer may be freed once husk_vm_start() returned.
 *  Lists are NULL-terminated. Whatever a machine cannot meet is refused by husk_vm_start(), never dropped. */
struct husk_vm_config {
	size_t size;
	const char *image;                /* as for husk_image_pull(), or an id; required */
	const char *const *command;       /* NULL: the image's Cmd */
	const char *const *entrypoint;    /* NULL: the image's; an empty list or one "" removes it. With one given the
	                                   * image's Cmd is not used */
	const char *const *env;           /* "NAME=value", added to the image's; later ones win. A bare
	                                   * "NAME" takes the variable away */
	const char *working_dir;          /* absolute; NULL: the image's, else "/" */
	const char *user;                 /* "user[:group]", names or numbers; NULL: the image's, else 0:0 */
	const char *hostname;             /* NULL: the VM's id */
	const char *name;                 /* unique among the VMs of this home; NULL: none */
	bool tty;                         /* a pseudo-terminal in the guest; stdout and stderr come as one, on stdout_fd */
	bool init;                        /* a reaper is the workload's PID 1 */
	bool read_only;                   /* the root is read-only for the workload; volumes, /dev/shm, /tmp are not */
	bool require_hardware;            /* refuse the `software` wall */
	uint16_t rows, columns;           /* with tty: its size at first; 0: 24x80 */
	int stdin_fd, stdout_fd, stderr_fd; /* the workload's streams, -1: /dev/null. They stay the caller's, who keeps them
	                                   * open until husk_vm_close(). Any kind: pipes and files are handed to the worker
	                                   * as descriptions of their own, terminals and sockets are copied by a thread */
	uint64_t memory;                  /* bytes, 96 MiB and more, rounded up to whole MiB; default 512 MiB */
	uint32_t cpus;                    /* 1 to 32; default 1 */
	uint64_t scratch;                 /* bytes, 64 MiB and more; a sparse disk for all the workload writes; default 8 GiB */
	uint64_t timeout_ms;              /* of the workload, counted from its exec; 0: none */
	uint64_t start_timeout_ms;        /* of the boot; default 60000 */
	const char *machine;              /* "auto" (default), "qemu", "kvm" */
	const char *platform;             /* NULL: this machine's */
	enum husk_pull pull;
	bool offline;
	int progress_fd;                  /* as in husk_pull_options; default -1 */
	int cancel_fd;                    /* readable: give the start up with -ECANCELED; -1: none */
	const char *kernel;               /* NULL: as husk_kernel_find(). A path, or the id of a kernel of the store or its
	                                   * beginning ("linux": the distribution's newest); a file in the way of an id
	                                   * comes first */
	const char *initramfs;            /* path of a foreign initramfs: a VM without our agent. What needs the agent
	                                   * (command, env, user, streams, timeout …) is refused then */
	const char *cmdline;              /* appended to the kernel command line */
	const struct husk_door *doors;    /* opened before the VM starts; one that cannot be opened fails the start */
	size_t n_doors;                   /* at most 62 */
	uint64_t listen_wait_ms;          /* how long a connection waits for its port to be listened on, counted from its
	                                   * accept or the workload's exec, whichever is later; 0: 1 s on hardware, 10 s on
	                                   * the software wall */
	const struct husk_disk *disks;    /* /dev/vdb and so on in the guest, in this order; with or without our agent */
	size_t n_disks;                   /* at most 18 */
	const struct husk_share *shares;
	size_t n_shares;                  /* 0: none can be served yet */
	const char *net;                  /* NULL or "none", which is all there is yet */
	enum husk_vsock vsock;            /* default HUSK_VSOCK_ANY */
	uint32_t vsock_port;              /* FIXED: 1 to 4294967294, not 1028. AUTO: 0, or the one to take if it is free */
	enum husk_serial serial;
	int serial_fd;                    /* INHERIT, CAPTURE: what the guest says goes here; -1: none. As the streams, and
	                                   * open still when the VM has ended, for husk never closes it */
	int serial_input_fd;              /* INHERIT, CAPTURE: what the guest hears; -1: none */
	const char *shell;                /* NULL or "full": worker and QEMU get every wall, or the start fails. "degraded":
	                                   * those that this host allows; what is missing is a notice, and in the VM's JSON */
	enum husk_lifetime lifetime;
	bool remove;                      /* DETACHED: its record goes with its end, as of `run --rm`. CALLER: always so */
	bool open_stdin;                  /* DETACHED: the workload's stdin is a stream that husk_vm_attach_stdin() feeds */
	uint64_t log_size;                /* DETACHED: bytes of each of the two files of the workload's output, and of the two of
	                                   * the guest's console; 64 KiB and more; default 16 MiB */
};

/** A caller's size is its header's, so that a program lives on with a library that knows more fields. */
void husk_vm_config_init(struct husk_vm_config *config); /* for programs built with an older header */
void husk_vm_config_init_sized(struct husk_vm_config *config, size_t size);
#define husk_vm_config_init(config) husk_vm_config_init_sized((config), sizeof(*(config)))

/** What the strings and lists of a configuration from JSON live in. */
struct husk_vm_json;

/** Read @n bytes of JSON, as docs/configuration.md has it, over @config, which has been initialised: what the text does not
 *  name stays. Strings and lists lie in *@out, which has to live until husk_vm_start(). -EINVAL says line and column, or
 *  which field is wrong and why; a key that is none is refused. Values are checked by husk_vm_start(). */
int husk_vm_config_read(struct husk_vm_config *config, const char *json, size_t n, struct husk_vm_json **out,
	struct husk_error *err);
/** NULL is fine. */
void husk_vm_json_free(struct husk_vm_json *json);
/** The same as JSON, without descriptors. Bytes that are no UTF-8 become U+FFFD. */
int husk_vm_config_write(const struct husk_vm_config *config, char **json, struct husk_error *err);

enum husk_end {
	HUSK_END_EXITED = 1,        /* the workload's exit status in value */
	HUSK_END_SIGNALED = 2,      /* the workload died of signal value */
	HUSK_END_TIMEOUT = 3,       /* timeout_ms was over */
	HUSK_END_NOT_STARTED = 4,   /* the command could not be run: exit_code 126, 127 or 125 */
	HUSK_END_START_TIMEOUT = 5, /* the guest was not ready in time */
	HUSK_END_GUEST = 6,         /* the guest's kernel panicked, powered off or reset */
	HUSK_END_MACHINE = 7,       /* QEMU died */
	HUSK_END_WORKER = 8,        /* the VM's worker process died */
	HUSK_END_SUPERVISOR = 9,    /* the VM's supervisor process died */
	HUSK_END_CALLER = 10,       /* the caller went away */
	HUSK_END_KILLED = 11,       /* husk_vm_kill() */
	HUSK_END_FAILED = 12,       /* husk failed */
};

/** How a VM ended. Set size before the call. */
struct husk_outcome {
	size_t size;
	enum husk_end end;
	uint32_t value;
	int exit_code;        /* as Docker's: the workload's status, 128 + signal, 124 timeout, 125 husk or the VM failed,
	                       * 126 not executable, 127 not found */
	uint64_t duration_ns; /* of the workload */
	uint64_t peak_rss;    /* of the workload, bytes; 0: not known */
	char reason[512];     /* one line; empty when the workload ended by itself */
};

/** Make a VM and start it: pull the image if the policy says so, boot, and return when the agent in the guest has answered and
 *  started the workload, so that more can be run beside it. A workload that could not be started is an outcome. A VM of lifetime CALLER lives at most until
 *  husk_vm_close() or the end of this process. A failed start leaves nothing behind; the end of the VM's console is said in
 *  notices.
 *  Errors: as husk_image_pull(), and -EINVAL and -ERANGE (a value or a combination that cannot work), -EEXIST (the name is
 *  taken), -ENODEV (no machine that can do this; no kernel fetched; no QEMU), -ETIMEDOUT (not ready in time), -EIO (the VM
 *  failed), -ECANCELED; for a door that cannot be opened those of husk_vm_expose(). */
int husk_vm_start(struct husk *husk, const struct husk_vm_config *config, struct husk_vm **out, struct husk_error *err);

/** Make a VM of lifetime DETACHED and do not start it: the image is pulled if the policy says so, everything is checked as for
 *  a start, and the record is written. It is `created` then. Errors as husk_vm_start(). */
int husk_vm_create(struct husk *husk, const struct husk_vm_config *config, struct husk_vm **out, struct husk_error *err);
/** Open a VM of this home, whoever made it: by id, unique prefix of at least 3 digits, or name. husk_vm_close() lets it be.
 *  -ENOENT, -ENOTUNIQ, -EPROTO (a record of another version of husk). */
int husk_vm_open(struct husk *husk, const char *vm, struct husk_vm **out, struct husk_error *err);

/** How to start a VM that exists. husk_boot_options_init() sets the defaults. */
struct husk_boot_options {
	size_t size;
	uint64_t start_timeout_ms; /* 0: as configured */
	int progress_fd;           /* as in husk_pull_options; default -1 */
	int cancel_fd;             /* default -1 */
};

void husk_boot_options_init(struct husk_boot_options *options);
/** Start a VM that is created, stopped or in error, with its configuration, image and scratch disk, and return when its agent
 *  has answered. @options may be NULL. A failed start leaves it in error, with the reason. Errors as husk_vm_start(), -EALREADY
 *  (it runs), -EBUSY (another process starts or removes it just now), -ENOENT (its image was removed). */
int husk_vm_boot(struct husk_vm *vm, const struct husk_boot_options *options, struct husk_error *err);

enum husk_state {
	HUSK_STATE_CREATING = 1, /* its record is being made, or making it was interrupted */
	HUSK_STATE_STARTING = 2, /* its agent has not answered yet */
	HUSK_STATE_RUNNING = 3,
	HUSK_STATE_PAUSED = 4,
	HUSK_STATE_STOPPED = 5, /* it has run; reason says how it ended */
	HUSK_STATE_ERROR = 6,   /* its last start failed, or husk did; reason says why */
	HUSK_STATE_CREATED = 7, /* it has never run */
};

/** What is true of a VM at this moment. Set size before the call. Times are CLOCK_REALTIME nanoseconds, 0: never. */
struct husk_status {
	size_t size;
	enum husk_state state;
	uint64_t generation;  /* grows with every change of the state */
	uint64_t changed_ns, started_ns, ended_ns;
	uint32_t starts;      /* how often it was started */
	int supervisor_pid, worker_pid, machine_pid; /* 0: none */
	enum husk_end end;    /* stopped, error; else 0 */
	int exit_code;        /* as in husk_outcome */
	bool oom;             /* the guest's kernel killed one of the workload's processes for want of memory */
	char reason[512];     /* one line */
	char console[64];     /* path of the pseudo-terminal that is its console; "" none */
};

/** Read its record. A VM whose supervisor or host has gone is stopped, with that reason. -ENOENT: it was removed. */
int husk_vm_status(struct husk_vm *vm, struct husk_status *status, struct husk_error *err);

/** All VMs of the home, or with @all false those that are starting, running or paused, newest first, as a JSON array: {id, name,
 *  image, command, created, state, reason, status, exit_code, ports[]…}. Records that cannot be read are in it, in state error. */
int husk_vm_list(struct husk *husk, bool all, char **json, struct husk_error *err);

/** Ask the VM to end and wait until it has, at most @grace_ms and what killing takes: first the workload gets its stop signal,
 *  after half of the time the power button is pressed, at its end the VM is killed. A paused one is resumed. 0 as well when it
 *  does not run. Works with an agent and a worker that hang. */
int husk_vm_stop(struct husk_vm *vm, uint64_t grace_ms, struct husk_error *err);
/** Freeze all its vCPUs, and let them go on. The time that a workload has stands still meanwhile. -EALREADY, -ESRCH (it does not run),
 *  -ENOTSUP (the machine cannot), -ETIMEDOUT (10 s). */
int husk_vm_pause(struct husk_vm *vm, struct husk_error *err);
int husk_vm_resume(struct husk_vm *vm, struct husk_error *err);
/** Remove its record with all that belongs to it. @force: kill it first if it runs, else -EBUSY. The handle stays to be
 *  closed. -ENOENT: somebody else was faster. */
int husk_vm_remove(struct husk_vm *vm, bool force, struct husk_error *err);
/** Another name; NULL: none. -EEXIST, -EINVAL; -EBUSY: of lifetime CALLER. */
int husk_vm_rename(struct husk_vm *vm, const char *name, struct husk_error *err);
/** Let the guest have @memory bytes from now on, by way of its balloon, and after further starts: 32 MiB to what it was made
 *  with, which takes the balloon back. The guest may keep more when it needs it. Errors as husk_vm_pause(), -ERANGE. */
int husk_vm_set_memory(struct husk_vm *vm, uint64_t memory, struct husk_error *err);
/** Feed the workload's stdin from @fd, a pipe that is read from now on and whose copy this call keeps no hold of. @to_end: its
 *  end is the end of stdin; else another may be attached later. -EBUSY: one is attached; -ENOTSUP: made without open_stdin;
 *  -EPIPE: stdin has ended; -ESRCH. */
int husk_vm_attach_stdin(struct husk_vm *vm, int fd, bool to_end, struct husk_error *err);

enum husk_stream { HUSK_STDOUT = 1, HUSK_STDERR = 2, HUSK_CONSOLE = 3, HUSK_LOST = 4 };

/** A piece of a log, in order. LOST: @n bytes were dropped here, @bytes is NULL. Nonzero ends the reading, which returns it. */
typedef int husk_log_fn(void *data, enum husk_stream stream, uint64_t time_ns, const void *bytes, size_t n);

/** What of a log to read. husk_log_options_init() sets the defaults: all there is now, of the workload. */
struct husk_log_options {
	size_t size;
	bool boot;         /* the guest's console and husk's own words instead of the workload's output */
	bool follow;       /* go on until the VM has ended and all is read */
	bool last_start;   /* only what came since its last start */
	int64_t tail;      /* so many lines at the end; -1 (default): all */
	uint64_t since_ns; /* CLOCK_REALTIME; 0 */
	uint64_t until_ns; /* 0: no end */
	int64_t timeout_ms; /* of following; -1 (default): none. -ETIMEDOUT */
	int cancel_fd;     /* readable: -ECANCELED; default -1 */
};

void husk_log_options_init(struct husk_log_options *options);
/** Read a VM's log, in the calling thread. A VM of lifetime CALLER has the log of its boot only. */
int husk_vm_logs(struct husk_vm *vm, const struct husk_log_options *options, husk_log_fn *fn, void *data,
	struct husk_error *err);

/* ---- running more in a VM ---- */

/** A file that is written in the guest before the first command, by the command's user. */
struct husk_staged_file {
	size_t size;
	const char *path; /* in the guest, absolute or beneath working_dir; its directory exists */
	const void *data;
	size_t n;         /* all that goes with one exec, arguments and variables included, is at most 1 MiB */
	uint32_t mode;    /* 0: 0644 */
};

void husk_staged_file_init(struct husk_staged_file *file);

/** A piece of output, in the exec's thread; the next one waits for its return, and so does the program once 512 KiB are under
 *  way. */
typedef void husk_output_fn(void *data, enum husk_stream stream, const void *bytes, size_t n);

/** What to run. husk_exec_config_init() sets the defaults. Lists are NULL-terminated. */
struct husk_exec_config {
	size_t size;
	const char *const *command;        /* argv; its first word is looked up in the guest's PATH. An argument has at most
	                                    * 131071 bytes: -E2BIG */
	const char *const *const *chain;   /* instead: up to 64 commands, NULL-terminated, each run when the one before has exited
	                                    * with 0, in one round trip and without a shell */
	const char *const *env;            /* over the workload's: "NAME=value"; a bare "NAME" takes one away */
	const char *working_dir;           /* NULL: the workload's */
	const char *user;                  /* "user[:group]"; NULL: the workload's */
	const char *const *groups;         /* further supplementary groups */
	bool tty;
	uint16_t rows, columns;            /* 0: 24x80 */
	bool detach;                       /* return when it has started; nothing is known of its end. Not with streams, tty, timeout */
	uint64_t timeout_ms;               /* 0: none; then its process group is killed, and the outcome says timed_out */
	const struct husk_staged_file *files;
	size_t n_files;
	const void *input;                 /* bytes for stdin, or */
	size_t input_size;
	int stdin_fd, stdout_fd, stderr_fd; /* as in husk_vm_config; -1: none */
	husk_output_fn *output;            /* instead of stdout_fd and stderr_fd */
	void *output_data;
	size_t collect;                    /* instead of both: keep at most so many bytes of each stream for the outcome; more is
	                                    * -EMSGSIZE, and the program is killed */
	int64_t start_timeout_ms;          /* until it has started; default 30000 */
};

void husk_exec_config_init(struct husk_exec_config *config);

/** How it ended. Set size before the call; free with husk_exec_outcome_free(). */
struct husk_exec_outcome {
	size_t size;
	enum husk_end end;    /* EXITED, SIGNALED, TIMEOUT, NOT_STARTED, GUEST (the VM ended), FAILED; 0: it lives on, detached or left */
	uint32_t value;       /* status or signal */
	int exit_code;        /* as in husk_outcome */
	bool timed_out;
	bool oom;
	uint32_t step;        /* which command of a chain was the last one that ran, from 0 */
	uint64_t duration_ns; /* the guest's clock */
	uint64_t peak_rss;    /* bytes */
	char reason[512];     /* one line; empty when it ended by itself */
	void *out, *err;      /* collected, with a NUL behind the last byte; NULL: not asked for */
	size_t out_size, err_size;
};

void husk_exec_outcome_free(struct husk_exec_outcome *outcome);

/** A program that was started with husk_exec_start(). */
struct husk_exec;

/** Run to the end. Errors: -ESRCH (the VM does not run), -EAGAIN (it is paused), -ENOTSUP (it has no agent), -E2BIG, -EINVAL,
 *  -ETIMEDOUT (the agent does not answer: start_timeout_ms before the start; timeout_ms and 5 s after it), -EPROTO (the agent
 *  broke the protocol). A command that cannot be run is an outcome. */
int husk_vm_exec(struct husk_vm *vm, const struct husk_exec_config *config, struct husk_exec_outcome *outcome,
	struct husk_error *err);
/** The same in a thread of its own: returns when it has started, or could not be. What @config points to may be freed then, but
 *  for `input` and output_data, which have to live until husk_exec_wait() has succeeded or husk_exec_close(). */
int husk_exec_start(struct husk_vm *vm, const struct husk_exec_config *config, struct husk_exec **out, struct husk_error *err);
/** Readable when husk_exec_wait() has something to say. */
int husk_exec_fd(const struct husk_exec *exec);
/** Wait at most @timeout_ms (0, -1 as husk_vm_wait()). Later calls answer the same, but for the collected output, which goes to
 *  the first. */
int husk_exec_wait(struct husk_exec *exec, int64_t timeout_ms, struct husk_exec_outcome *outcome, struct husk_error *err);
int husk_exec_signal(struct husk_exec *exec, int signal_number, struct husk_error *err);
int husk_exec_resize(struct husk_exec *exec, uint16_t rows, uint16_t columns, struct husk_error *err);
/** Let the program live on without us: its output is dropped from now on, its input stays open and silent, and nothing is known of
 *  its end, as with `detach`. husk_exec_wait() has nothing more to say than that. -ESRCH: it has ended; -ETIMEDOUT (5 s). */
int husk_exec_leave(struct husk_exec *exec, struct husk_error *err);
/** Kill the program with its process group if it still runs, and free. NULL is fine. */
void husk_exec_close(struct husk_exec *exec);

/* ---- files of a running VM ---- */

/** How to copy. husk_copy_options_init() sets the defaults. */
struct husk_copy_options {
	size_t size;
	const char *user;   /* on whose behalf in the guest, "user[:group]"; NULL: root */
	bool archive;       /* into the guest: keep the owners, by number; out of it: likewise, where we may */
	bool follow;        /* a source that is a symbolic link is followed */
	int64_t timeout_ms; /* in which something has to move; default 30000 */
	int cancel_fd;      /* readable: -ECANCELED; default -1 */
	void (*skipped)(void *data, const char *name, const char *why); /* things that are not copied: sockets; out of the guest
	                                                                   * devices, too. NULL: nobody is told */
	void *data;
	void (*progress)(void *data, uint64_t bytes); /* so many bytes of contents have moved by now, often. NULL: nobody is told */
};

void husk_copy_options_init(struct husk_copy_options *options);

/** Copy a file or a tree from the host into the guest, with modes, times, links and holes. As `docker cp`: when @to is a
 *  directory it goes into it under its own name; else it becomes @to, whose parent exists; "DIR/." is what is in DIR. @to is
 *  absolute. @options may be NULL. Errors: -ENOENT, -ENOTDIR, -EACCES …, -ENOSPC of either side, as husk_vm_exec(). */
int husk_vm_copy_in(struct husk_vm *vm, const char *from, const char *to, const struct husk_copy_options *options,
	struct husk_error *err);
/** The other way round. Nothing is written but beneath @to, whatever the guest says; what was written before an error stays. */
int husk_vm_copy_out(struct husk_vm *vm, const char *from, const char *to, const struct husk_copy_options *options,
	struct husk_error *err);
/** The same with a tar archive that is read from, or written to, @fd. @to is a directory. */
int husk_vm_copy_in_tar(struct husk_vm *vm, int fd, const char *to, const struct husk_copy_options *options,
	struct husk_error *err);
int husk_vm_copy_out_tar(struct husk_vm *vm, const char *from, int fd, const struct husk_copy_options *options,
	struct husk_error *err);
/** Make or replace the file @path with @n bytes; @mode 0: 0644. */
int husk_vm_write_file(struct husk_vm *vm, const char *path, const void *data, size_t n, uint32_t mode,
	const struct husk_copy_options *options, struct husk_error *err);
/** The file's contents in *@data, malloc'ed, with a NUL behind the last of *@n bytes. -EFBIG: more than @max. -EISDIR. */
int husk_vm_read_file(struct husk_vm *vm, const char *path, size_t max, void **data, size_t *n,
	const struct husk_copy_options *options, struct husk_error *err);

/* ---- what happened, and what is left over ---- */

/** One event: a JSON object in one line without newline: {time, event, id, name?, …}; events are created, started, ready, exec,
 *  paused, resumed, oom, denied, stopped, renamed, updated, removed. Nonzero ends the reading, which returns it. */
typedef int husk_event_fn(void *data, const char *line);

struct husk_event_options {
	size_t size;
	bool follow;
	uint64_t since_ns, until_ns; /* CLOCK_REALTIME; 0: none */
	const char *vm;              /* an id, as events have it; NULL: of all */
	int64_t timeout_ms;          /* of following; -1 (default): none. -ETIMEDOUT */
	int cancel_fd;               /* default -1 */
};

void husk_event_options_init(struct husk_event_options *options);
/** Read the events of the home, in the calling thread. */
int husk_events(struct husk *husk, const struct husk_event_options *options, husk_event_fn *fn, void *data,
	struct husk_error *err);

/** Remove every VM that is created, stopped or in error. *@report (may be NULL): the id of each, a line each. *@freed (may be NULL):
 *  bytes of disk that came back. */
int husk_vm_prune(struct husk *husk, char **report, uint64_t *freed, struct husk_error *err);
/** Collect what belongs to nothing: records that were being made, runtime directories, scratch files, sockets and names without a
 *  VM; layers, blobs and downloads without an image; with @images, images that no VM uses. What cannot be read is left, and so
 *  is everything that it might refer to. *@report (may be NULL): a line for each, with the reason. @dry_run: nothing is removed,
 *  and the report says what would be. */
int husk_gc(struct husk *husk, bool images, bool dry_run, char **report, struct husk_error *err);

/** 12 hex digits; valid until husk_vm_close(). */
const char *husk_vm_id(const struct husk_vm *vm);
/** "hardware" or "software". */
const char *husk_vm_wall(const struct husk_vm *vm);
/** Nanoseconds from the worker's start to the agent's answer. */
uint64_t husk_vm_boot_ns(const struct husk_vm *vm);

/** The signal by which the image's workload wants to be asked to end (StopSignal); SIGTERM when it does not say. */
int husk_vm_stop_signal(const struct husk_vm *vm);

/** A descriptor for poll(2) that becomes readable when husk_vm_wait() may have something to say. It stays the VM's. */
int husk_vm_fd(const struct husk_vm *vm);

/** Wait at most @timeout_ms (0: do not wait, -1: for ever) until the VM has ended and its output has been delivered.
 *  -ETIMEDOUT: not yet. After the first success every call answers the same. */
int husk_vm_wait(struct husk_vm *vm, int64_t timeout_ms, struct husk_outcome *outcome, struct husk_error *err);

/** Send Linux signal @signal_number (1 to 64) to the workload's PID 1. Never blocks; -EAGAIN when too many are under way.
 *  -ESRCH: the VM has ended. */
int husk_vm_signal(struct husk_vm *vm, int signal_number, struct husk_error *err);
/** The terminal's size changed. As husk_vm_signal(). */
int husk_vm_resize(struct husk_vm *vm, uint16_t rows, uint16_t columns, struct husk_error *err);
/** Press the machine's power button: the agent asks the workload to end as its image wishes, kills it 10 s later, and powers
 *  off; a guest without our agent does what its own system does. A guest that has not loaded the button's driver yet, which our
 *  agent does once the workload runs, does not hear it. As husk_vm_signal(). */
int husk_vm_power_button(struct husk_vm *vm, struct husk_error *err);
/** End the VM now, without asking the guest. husk_vm_wait() then tells the outcome. */
int husk_vm_kill(struct husk_vm *vm, struct husk_error *err);

/** Open one more door of a running VM. *@endpoint (may be NULL) gets its path or "ADDRESS:PORT" with the real port.
 *  Errors: -EINVAL, -EADDRINUSE (a live socket is there, or the port is taken), -EEXIST (a file that is no socket is there),
 *  -ENAMETOOLONG, -EACCES, -ENOSPC (64 doors are the most, two of them the VM's own), -ENOTSUP (a VM without our agent),
 *  -ESRCH (it has ended), -ETIMEDOUT. */
int husk_vm_expose(struct husk_vm *vm, const struct husk_door *door, char **endpoint, struct husk_error *err);
/** Close a door by the endpoint that husk_vm_expose() gave. Connections that reached the guest live on. -ENOENT; -EPERM for
 *  exec.sock and vsock.sock, which every VM has; -ESRCH, -ETIMEDOUT. */
int husk_vm_unexpose(struct husk_vm *vm, const char *endpoint, struct husk_error *err);
/** The VM as a JSON object: {id, name, image, created, state, reason, pids…, doors[{kind, endpoint, guest_port}], vsock_port,
 *  config{…}…}. config is the configuration in effect, as husk_vm_config_read() takes it. */
int husk_vm_inspect(struct husk_vm *vm, char **json, struct husk_error *err);
/** What it uses, as a JSON object: {cpu_ns, memory{limit, used, given_back, target}, block{reads, writes, read_bytes,
 *  write_bytes}, net{in_bytes, out_bytes}, exits, pids} and the counters of its doors: {doors[{kind, endpoint, connections, active,
 *  waiting, refused, bytes_in, bytes_out, stages{accept, connect, first_byte, read, write}{count, mean_us, p50_us, p90_us,
 *  p99_us}}], total{…}}. With a worker that hangs they are those of the last time. */
int husk_vm_stats(struct husk_vm *vm, char **json, struct husk_error *err);

/* The same for a VM of this home that any process started, by id, unique prefix of at least 3 digits, or name.
 * -ENOENT, -ENOTUNIQ. */
int husk_expose(struct husk *husk, const char *vm, const struct husk_door *door, char **endpoint, struct husk_error *err);
int husk_unexpose(struct husk *husk, const char *vm, const char *endpoint, struct husk_error *err);
int husk_inspect(struct husk *husk, const char *vm, char **json, struct husk_error *err);
int husk_stats(struct husk *husk, const char *vm, char **json, struct husk_error *err);

/** Free the handle. A VM of lifetime CALLER that this process started is ended first if it still runs, its processes are waited
 *  for, and its record removed. NULL is fine. */
void husk_vm_close(struct husk_vm *vm);

/* ---- what this machine can do ---- */

enum husk_finding_status { HUSK_FINDING_OK = 1, HUSK_FINDING_NOTE = 2, HUSK_FINDING_WARNING = 3, HUSK_FINDING_ERROR = 4 };

/** One thing that was looked at. ERROR: husk cannot run a VM until it is cured. */
struct husk_finding {
	enum husk_finding_status status;
	const char *topic;   /* "kvm", "qemu", "kernel", … */
	const char *message; /* what is so */
	const char *remedy;  /* what to do, NULL: nothing */
};

/** Look at this machine. *@findings is an array of *@n, one allocation with its strings; free(3) it. @husk may be NULL
 *  when husk_open() failed: then @open_error (may be NULL) is among the findings. */
int husk_doctor(struct husk *husk, const struct husk_error *open_error, struct husk_finding **findings, size_t *n,
	struct husk_error *err);

/** Boot, run and stop a guest on each machine that can be had here, with an image of its own that is removed again; findings
 *  as from husk_doctor(), with the topic "selftest". Takes as long as the boots do. */
int husk_selftest(struct husk *husk, struct husk_finding **findings, size_t *n, struct husk_error *err);

/* ---- function sandboxes: a guest with no OS, called like a function ----
 *
 * A sandbox is a small program (an ELF file made by `husk sandbox cc`, docs/sandbox.md) in a VM that has one CPU, memory and
 * nothing else: no kernel, no devices, no interrupts. Its functions are called, it calls chosen functions of the host, and it
 * is put back to a snapshot in microseconds. It runs in the caller's process and thread, on KVM, on x86-64; no struct husk and
 * no home is needed.
 *
 * States: configured (functions, regions and cells may be added) -> ready <-> running; a fault, an abort, a broken protocol, a
 * deadline or a cancel makes it poisoned: calls are refused (-ENOTRECOVERABLE) until husk_sandbox_restore(). dead, after
 * husk_sandbox_destroy() or a failure of KVM itself: everything is refused (-ESHUTDOWN).
 *
 * Threads: a sandbox may be used from any thread, by one at a time: what comes while a call runs fails with -EBUSY, at once.
 * Exceptions, fine from any thread at any time: husk_sandbox_cancel(), husk_sandbox_state(), and the functions of regions,
 * cells and memory. Images and snapshots may be shared by any number of threads.
 *
 * Signals: a deadline and a cancel interrupt KVM by one real-time signal (kick_signal). During a call it is blocked in the
 * calling thread and let through by KVM alone, so no handler is installed; none is left pending, and the thread's mask is put
 * back. A program must use that signal for nothing else.
 *
 * C++: a snapshot, a report and stats have functions of the same name, so their types are written with `struct` there, as in C. */

struct husk_sandbox_image;
struct husk_sandbox_snapshot;
struct husk_sandbox;

#define HUSK_SANDBOX_ARGS_MAX 32
#define HUSK_SANDBOX_NAME_MAX 63

enum husk_sandbox_type {
	HUSK_SANDBOX_VOID = 0, /* a result only */
	HUSK_SANDBOX_I32 = 1,
	HUSK_SANDBOX_U32 = 2,
	HUSK_SANDBOX_I64 = 3,
	HUSK_SANDBOX_U64 = 4,
	HUSK_SANDBOX_F32 = 5,
	HUSK_SANDBOX_F64 = 6,
	HUSK_SANDBOX_BOOL = 7,
	HUSK_SANDBOX_STRING = 8, /* bytes without a NUL among them, whatever their encoding */
	HUSK_SANDBOX_BYTES = 9,
};

/** A value with its type. */
struct husk_sandbox_value {
	enum husk_sandbox_type type;
	union {
		int32_t i32;
		uint32_t u32;
		int64_t i64;
		uint64_t u64;
		float f32;
		double f64;
		bool boolean;
		struct {
			const void *data; /* STRING: a NUL follows where the library made it, and none is needed in what it gets */
			size_t size;      /* without that NUL */
		} bytes; /* STRING, BYTES */
	};
};

/** Free what a result of husk_sandbox_call() holds and make it void. */
void husk_sandbox_value_clear(struct husk_sandbox_value *value);

/** A function's name and signature. */
struct husk_sandbox_signature {
	size_t size;
	const char *name; /* a C identifier of at most HUSK_SANDBOX_NAME_MAX bytes */
	enum husk_sandbox_type result;
	const enum husk_sandbox_type *args; /* none of them VOID */
	size_t n_args;                      /* at most HUSK_SANDBOX_ARGS_MAX */
};

/** Read a program: a static-PIE ELF file for x86-64 linked with husk's guest runtime. Everything in it is checked.
 *  Errors: those of open(2); -ENOEXEC (not such a program, with the reason), -EFBIG (over 64 MiB), -ENOMEM. */
int husk_sandbox_image_load(const char *path, struct husk_sandbox_image **out, struct husk_error *err);
/** The same from memory, which is copied. */
int husk_sandbox_image_load_bytes(const void *elf, size_t n, struct husk_sandbox_image **out, struct husk_error *err);
/** Sandboxes and snapshots keep what they need of it. NULL is fine. */
void husk_sandbox_image_free(struct husk_sandbox_image *image);
/** The program's function number @index, counted from 0; its strings live as long as the image. -ENOENT: there are fewer. */
int husk_sandbox_image_function(const struct husk_sandbox_image *image, size_t index,
	struct husk_sandbox_signature *function, struct husk_error *err);
/** The function of the host's number @index that the program needs before it can start. As above. */
int husk_sandbox_image_import(const struct husk_sandbox_image *image, size_t index,
	struct husk_sandbox_signature *function, struct husk_error *err);

/** Text that the program printed, not NUL-terminated, valid during the call; in the thread that called the sandbox. */
typedef void husk_sandbox_print_fn(void *data, const char *text, size_t n);

/** What a sandbox is made with. Sizes are bytes, rounded up to whole pages of 4 KiB. Memory that is not touched costs
 *  nothing. */
struct husk_sandbox_config {
	size_t size;
	uint64_t stack;            /* 4 KiB to 64 MiB; default 64 KiB */
	uint64_t heap;             /* 0 to 4 GiB; default 1 MiB */
	uint64_t input;            /* arguments of a call, and results of the host's functions: 4 KiB to 1 GiB; default 1 MiB */
	uint64_t output;           /* a call's result, and arguments of the host's functions: likewise */
	uint64_t start_timeout_ns; /* for what the program does before it is ready; 0: none; default 10 s */
	int kick_signal;           /* SIGRTMIN to SIGRTMAX; 0: SIGRTMIN + 8 */
	husk_sandbox_print_fn *print; /* the one function of the host's that every program has; NULL: text is dropped */
	void *print_data;
};

void husk_sandbox_config_init(struct husk_sandbox_config *config);

enum husk_sandbox_state {
	HUSK_SANDBOX_CONFIGURED = 1,
	HUSK_SANDBOX_READY = 2,
	HUSK_SANDBOX_RUNNING = 3,
	HUSK_SANDBOX_POISONED = 4,
	HUSK_SANDBOX_DEAD = 5,
};

/** Make a sandbox for a program; @config may be NULL: all defaults. No KVM is needed yet. -EINVAL and -ERANGE name the
 *  field. */
int husk_sandbox_create(struct husk_sandbox_image *image, const struct husk_sandbox_config *config,
	struct husk_sandbox **out, struct husk_error *err);
/** Make a sandbox that starts as a snapshot was: with its sizes (those of @config are ignored), regions and cells, which have
 *  the numbers they had. The host's functions have to be added again, with the same signatures. */
int husk_sandbox_create_from(struct husk_sandbox_snapshot *snapshot, const struct husk_sandbox_config *config,
	struct husk_sandbox **out, struct husk_error *err);

/**
 * A function of the host's, called in the thread that called the sandbox. @args are as the signature says and valid during the
 * call. @result is void of the right type; bytes that it is set to point to must stay valid until the function is called again
 * or the husk_sandbox_call() that led here returns; they are copied. Return 0, or a negative errno value with @err filled:
 * that is told to the guest as an error, code and message, and ends nothing. It may call any other sandbox, and of the one that
 * runs only what every thread may: a call of it fails with -EBUSY.
 */
typedef int husk_sandbox_function(void *data, const struct husk_sandbox_value *args, size_t n,
	struct husk_sandbox_value *result, struct husk_error *err);

/** Let the guest call @function. Configured state only. -EINVAL; -EEXIST: the name is taken ("print" always is). */
int husk_sandbox_add_function(struct husk_sandbox *sandbox, const struct husk_sandbox_signature *signature,
	husk_sandbox_function *function, void *data, struct husk_error *err);

/** Boot it: returns when the program's own start code has said that it is ready.
 *  Errors: -ENOENT, -EINVAL (a function that the program needs was not added, or has another signature), -ENODEV, -EACCES
 *  (no /dev/kvm, or not for you), -ENOTSUP (this KVM cannot), -EMFILE (a sandbox takes two descriptors); else as
 *  husk_sandbox_call(); then it is dead. */
int husk_sandbox_start(struct husk_sandbox *sandbox, struct husk_error *err);

struct husk_sandbox_call_options {
	size_t size;
	uint64_t deadline_ns; /* counted from the call; 0: none. The host's functions count, and are not interrupted */
};

void husk_sandbox_call_options_init(struct husk_sandbox_call_options *options);

/**
 * Call the program's function @name. The @n @args have to be of its types exactly. *@result (may be NULL) gets a value of the
 * result's type, whose bytes are freed by husk_sandbox_value_clear(). @options may be NULL.
 *
 * Errors that leave it ready: -ENOENT (no such function), -EINVAL (number or type of arguments; a string with a NUL), -EMSGSIZE
 * (more bytes than the input buffer has; 512 are kept for answers of host functions), -EREMOTEIO (the guest's function failed
 * and said so: husk_sandbox_report()), -ENOMEM, -EBUSY, -ENOTRECOVERABLE (poisoned before).
 *
 * Errors that poison: -EFAULT (the guest's CPU faulted), -ECONNABORTED (the program aborted), -EPROTO (the guest broke the
 * protocol), -ETIMEDOUT (deadline_ns), -ECANCELED, -ENOTSUP (this host's KVM cannot run one of its instructions), -EIO (KVM gave
 * up, which a guest can bring about). When KVM_RUN itself fails the sandbox is dead, and the error is its.
 */
int husk_sandbox_call(struct husk_sandbox *sandbox, const char *name, const struct husk_sandbox_value *args, size_t n,
	struct husk_sandbox_value *result, const struct husk_sandbox_call_options *options, struct husk_error *err);

/** Make the call under way return -ECANCELED with the first KVM_RUN that returns, and at the latest when the function of the
 *  host's that it is in has returned. Does not block. -ESRCH: no call is under way. */
int husk_sandbox_cancel(struct husk_sandbox *sandbox, struct husk_error *err);

enum husk_sandbox_state husk_sandbox_state(const struct husk_sandbox *sandbox);

/** Give back all that it holds; from then on it is dead. -EBUSY while a call runs. */
int husk_sandbox_destroy(struct husk_sandbox *sandbox, struct husk_error *err);
/** Destroy it if that has not been done, and free it: the last call on it. Never while a call runs. NULL is fine. */
void husk_sandbox_free(struct husk_sandbox *sandbox);

/* ---- sandboxes: narrow shared memory ----
 *
 * Regions are pages that host and guest share by offset, never by pointer; cells are single words. Both are added before the
 * start. The guest finds them by name. Functions below work from the moment of adding, in every state but dead, while the guest
 * runs too. Offsets and sizes are checked before anything is copied: -ERANGE; then nothing has been. Each byte is read or
 * written once. */

#define HUSK_SANDBOX_ANYWHERE UINT64_MAX /* the library chooses the guest-physical address */

enum husk_sandbox_rights {
	HUSK_SANDBOX_HOST_R = 1,
	HUSK_SANDBOX_HOST_W = 2,
	HUSK_SANDBOX_GUEST_R = 4, /* enforced by KVM's memory map: without it the region is not mapped for the guest */
	HUSK_SANDBOX_GUEST_W = 8, /* only with GUEST_R */
};

/** Add a region of @bytes (whole pages of 4 KiB, at most 1 GiB) that reads as zeroes at first. @gpa: page-aligned, below 512
 *  GiB, overlapping nothing. *@region: its number. -EINVAL, -EEXIST (the name, or an overlap), -ENOSPC (32 are the most). */
int husk_sandbox_add_region(struct husk_sandbox *sandbox, const char *name, uint64_t bytes, unsigned rights, uint64_t gpa,
	unsigned *region, struct husk_error *err);
/** The number of the region called @name. -ENOENT. */
int husk_sandbox_find_region(
	struct husk_sandbox *sandbox, const char *name, unsigned *region, uint64_t *gpa, uint64_t *bytes, struct husk_error *err);
/** -ENOENT (no such region), -EACCES (without HOST_R, HOST_W), -ERANGE. */
int husk_sandbox_region_read(
	struct husk_sandbox *sandbox, unsigned region, uint64_t offset, void *buf, size_t n, struct husk_error *err);
int husk_sandbox_region_write(
	struct husk_sandbox *sandbox, unsigned region, uint64_t offset, const void *buf, size_t n, struct husk_error *err);

/** Any memory of the sandbox by guest-physical address: what the host may read (all but regions without HOST_R), or write
 *  (the program's data, heap, stack, buffers, and regions with HOST_W; never a page of cells, the program's code or the
 *  library's own pages). The range has to lie in one piece of memory. -EFAULT: it does not; -EACCES. */
int husk_sandbox_memory_read(struct husk_sandbox *sandbox, uint64_t gpa, void *buf, size_t n, struct husk_error *err);
int husk_sandbox_memory_write(struct husk_sandbox *sandbox, uint64_t gpa, const void *buf, size_t n, struct husk_error *err);
#ifdef HUSK_UNSAFE_RAW_MEMORY
/** Where [@gpa, @gpa + @n) lies in this process, whatever the rights; valid until the sandbox is restored or destroyed. What
 *  it leads to changes under the reader's hands, and what is written through it is not put back by husk_sandbox_restore().
 *  Only in a library that was built with -Dunsafe_raw_memory=true. */
int husk_sandbox_memory_ptr_unsafe(struct husk_sandbox *sandbox, uint64_t gpa, size_t n, void **ptr, struct husk_error *err);
#endif

/** Who writes a cell, an aligned 64-bit word in a page of such cells. */
enum husk_sandbox_cell_owner {
	HUSK_SANDBOX_CELL_HOST = 1,  /* read-only for the guest; what it reads there is never believed: the host has its own copy */
	HUSK_SANDBOX_CELL_GUEST = 2, /* the host only loads it */
};

/** Add a cell, 0 at first. @gpa: a multiple of 8; its page becomes a page of cells of that owner. As husk_sandbox_add_region();
 *  512 cells are the most. */
int husk_sandbox_add_cell(struct husk_sandbox *sandbox, const char *name, enum husk_sandbox_cell_owner owner, uint64_t gpa,
	unsigned *cell, struct husk_error *err);
int husk_sandbox_find_cell(
	struct husk_sandbox *sandbox, const char *name, unsigned *cell, uint64_t *gpa, struct husk_error *err);
/** Host-owned cells: one release store each. *@value (may be NULL): the value after it. -EOVERFLOW: it would wrap; nothing has
 *  changed. -EACCES: the guest's. */
int husk_sandbox_cell_set(struct husk_sandbox *sandbox, unsigned cell, uint64_t value, struct husk_error *err);
int husk_sandbox_cell_add(
	struct husk_sandbox *sandbox, unsigned cell, uint64_t delta, uint64_t *value, struct husk_error *err);
int husk_sandbox_cell_sub(
	struct husk_sandbox *sandbox, unsigned cell, uint64_t delta, uint64_t *value, struct husk_error *err);
int husk_sandbox_cell_get(struct husk_sandbox *sandbox, unsigned cell, uint64_t *value, struct husk_error *err);
/** Guest-owned cells: one acquire load. -ERANGE: it is above @max; *@value is untouched. -EACCES: the host's. */
int husk_sandbox_cell_load(
	struct husk_sandbox *sandbox, unsigned cell, uint64_t max, uint64_t *value, struct husk_error *err);

/* ---- sandboxes: snapshots ---- */

/** Remember a ready sandbox: memory, registers, regions, cells. Costs what has been touched. */
int husk_sandbox_snapshot(struct husk_sandbox *sandbox, struct husk_sandbox_snapshot **out, struct husk_error *err);
/** Put a ready or poisoned sandbox back: all is as it was, the time stamp counter excepted. @snapshot is one of this sandbox,
 *  or of one with the same program, sizes, regions, cells and functions: -EINVAL otherwise; -ENOTSUP: it was made with
 *  features of a CPU that this one lacks. Costs what has been touched since the last snapshot or restore of the same
 *  snapshot. */
int husk_sandbox_restore(
	struct husk_sandbox *sandbox, struct husk_sandbox_snapshot *snapshot, struct husk_error *err);
/** Sandboxes that were made from it live on. NULL is fine. */
void husk_sandbox_snapshot_free(struct husk_sandbox_snapshot *snapshot);
/** Write it to @path, and its memory to @path with ".memory" behind it; both appear whole or not at all, that of the memory
 *  first. The program is in it. -EEXIST: one of them is there already. */
int husk_sandbox_snapshot_save(struct husk_sandbox_snapshot *snapshot, const char *path, struct husk_error *err);
/** Read what husk_sandbox_snapshot_save() wrote; the memory is mapped, not read, so the file must stay as it is while the
 *  snapshot and sandboxes of it live. -EBADMSG (damaged, or no snapshot), -ENOTSUP (of a newer husk, another CPU
 *  architecture, or a CPU with features that this host lacks). */
int husk_sandbox_snapshot_load(const char *path, struct husk_sandbox_snapshot **out, struct husk_error *err);
/** The program of a snapshot; lives as long as that does. */
struct husk_sandbox_image *husk_sandbox_snapshot_image(struct husk_sandbox_snapshot *snapshot);

/* ---- sandboxes: diagnostics ---- */

enum husk_sandbox_reason {
	HUSK_SANDBOX_FINE = 0,
	HUSK_SANDBOX_GUEST_ERROR = 1,   /* code, message: what the guest's function said; not poisoned */
	HUSK_SANDBOX_FAULT = 2,         /* vector and what follows */
	HUSK_SANDBOX_ABORT = 3,         /* code, message: what the program said */
	HUSK_SANDBOX_PROTOCOL = 4,
	HUSK_SANDBOX_DEADLINE = 5,
	HUSK_SANDBOX_CANCELED = 6,
	HUSK_SANDBOX_INSTRUCTION = 7,   /* rip: KVM on this host cannot run the instruction there */
	HUSK_SANDBOX_KVM = 8,           /* KVM itself failed */
};

/** How the last call, or the start, ended. Set size before the call. */
struct husk_sandbox_report {
	size_t size;
	enum husk_sandbox_reason reason;
	int32_t code;
	uint32_t vector;     /* of the CPU's exception: 6 invalid opcode, 13 general protection, 14 page fault; 255: it shut down */
	uint64_t error_code; /* as the CPU pushed it */
	uint64_t address;    /* of a page fault */
	uint64_t rip;        /* of the instruction */
	uint64_t rsp;
	char symbol[64];     /* what rip lies in, "name+0x1c", when the program has symbols; "" otherwise */
	char message[512];   /* one line */
};

int husk_sandbox_report(struct husk_sandbox *sandbox, struct husk_sandbox_report *report, struct husk_error *err);

/** Write the guest's registers and memory as an ELF core file that gdb opens with the program, to @fd at its position. Ready or
 *  poisoned only. */
int husk_sandbox_write_core(struct husk_sandbox *sandbox, int fd, struct husk_error *err);

/** What a sandbox has done since it was made. Set size before the call. */
struct husk_sandbox_stats {
	size_t size;
	uint64_t calls, guest_errors, poisonings;
	uint64_t host_calls;
	uint64_t exits;          /* returns of KVM_RUN */
	uint64_t kicks;          /* those that a signal caused */
	uint64_t bytes_in, bytes_out; /* of frames: arguments and results, both ways */
	uint64_t snapshots, restores;
	uint64_t pages_restored; /* copied back, of 4 KiB */
	uint64_t run_ns;         /* in KVM_RUN, by the CPU's time stamp counter; 0 where KVM does not tell its rate */
};

int husk_sandbox_stats(struct husk_sandbox *sandbox, struct husk_sandbox_stats *stats, struct husk_error *err);

#ifdef __cplusplus
}
#endif

#endif /* HUSK_H */
