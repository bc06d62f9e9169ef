/* SPDX-License-Identifier: Apache-2.0 */
/*
 * protocol.h - the agent protocol: frames between the host and husk-init on vsock port 1028
 *
 * One connection per operation. Frame: u32 LE payload length | u8 type | u8 stream | u16 0 | payload, payload at most
 * AGENT_PAYLOAD_MAX bytes. A payload is raw bytes, fixed fields, or entries as in base/tlv.h (without the header).
 *
 * Both ends open with HELLO (u32 protocol version, all that follows it is reserved and empty). The client speaks first and
 * may send its request right behind its HELLO without waiting, so that HELLO and the answer are one packet of the agent's. A
 * version that the other end does not know ends the connection with ERROR. Then the client sends one request frame. A type
 * that is unknown, or out of place, is answered with ERROR and the connection ends. Lengths, tags and enumerations outside
 * what is written here are errors as well.
 *
 * Flow control: each of the three byte streams of an EXEC has a window of AGENT_WINDOW bytes. A sender sends at most what
 * the window allows; the receiver opens it again with WINDOW (stream, u32 bytes) as it hands bytes on. So a stream whose
 * reader sleeps holds up neither the other streams nor SIGNAL and RESIZE.
 *
 * EXEC, from the client:  HELLO EXEC (STDIN… EOF[stream] | SIGNAL | RESIZE | WINDOW)*
 *       from the agent:   HELLO STARTED (STDOUT | STDERR | EOF[stream] | WINDOW)* EXIT      or ERROR at any point
 * A client whose own reader went away sends EOF[stdout] or EOF[stderr]: the agent closes that stream, sends no more of it
 * (frames under way may still arrive), and the program gets what a pipe without a reader gives it.
 * EXIT is the last frame: all output has been sent before it. When the client goes away a joined program gets SIGKILL
 * with its whole process group; the main workload ends with the VM.
 * With DETACH the agent closes behind STARTED, and the program lives on. A client that sends LEAVE behind STARTED is let go
 * likewise: the agent drops what the program says from then on, keeps its stdin open and silent, and closes the connection.
 * With several commands (NEXT) each begins when the one before has exited with 0, on the same streams; EXIT tells of the last
 * one that ran. A later one that cannot be started says so on stderr and counts as exited with 127, 126 or 125. What a
 * command that is over has left behind in the background lives on; SIGNAL, TIMEOUT and a client that goes concern the one
 * that runs.
 * Files (FILE) are written by the program's own process as its own user before the first command.
 *
 * PUT, from the client:  HELLO PUT (ENTRY DATA…)… END;  from the agent: HELLO OK or ERROR, at any point
 * GET, from the client:  HELLO GET;  from the agent: HELLO (ENTRY DATA…)… END, or ERROR at any point
 * A tree, one ENTRY for each thing in it, a directory before what is in it, the root first with an empty name. DATA behind the
 * ENTRY of a file are its bytes, in ascending order; what is left out is a hole. These two have no windows: the connection's
 * own flow control is theirs. docs/agent-protocol.md says what happens to what is there already, and to what changes meanwhile.
 *
 * FORWARD, from the client: HELLO FORWARD, and bytes behind it;  from the agent: HELLO OK and bytes, or HELLO ERROR.
 * Behind FORWARD and OK the connection carries the bytes of a TCP connection to that port in the guest, and no frames. Its
 * ends: each side shuts its sending down when its own source has ended (half-close). An agent that closes without having
 * shut down its sending before, a single shutdown of both directions, passes on a reset; a client resets by resetting.
 *
 * LISTENERS, from the client: HELLO LISTENERS;  from the agent: HELLO LISTENING LISTENING …   or HELLO ERROR
 * The first LISTENING tells the state, each further one a new state; several changes may be told in one. A client that does
 * not read gets the newest state once it does.
 *
 * When it is ready the agent itself connects once to host port 1028 and sends HELLO and READY; the host closes that
 * connection. That is the only sign of readiness.
 */
#ifndef AGENT_PROTOCOL_H
#define AGENT_PROTOCOL_H

#include "base/buffer.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define AGENT_PORT 1028
#define AGENT_VERSION 2
#define AGENT_HEADER_SIZE 8
#define AGENT_PAYLOAD_MAX (1u << 20)
#define AGENT_WINDOW (512u << 10) /* bytes per stream in flight */
#define AGENT_CHUNK (64u << 10) /* preferred size of stream frames */

enum agent_type {
	AGENT_HELLO = 0x01, /* u32 version */
	AGENT_READY = 0x02, /* TLV: AGENT_READY_*; agent to host, on the connection that the agent opens */
	/* requests */
	AGENT_EXEC = 0x10, /* TLV: AGENT_EXEC_* */
	AGENT_PUT = 0x11, /* TLV: AGENT_TREE_* */
	AGENT_GET = 0x12, /* TLV: AGENT_TREE_* */
	AGENT_SYNC = 0x13, /* empty; sync(2), then OK */
	AGENT_LISTENERS = 0x15, /* empty; answered with LISTENING again and again, until the client closes */
	AGENT_FORWARD = 0x16, /* u16 TCP port 1..65535 | u16 0; OK, and from then on the connection is the port's */
	AGENT_POWER = 0x17, /* u32: 0 power off; OK, then the VM ends */
	AGENT_RESCAN = 0x18, /* empty; probe the virtio-mmio slots that had no device, then RESCANNED */
	/* streams and answers */
	AGENT_STDIN = 0x30, /* bytes, 1 or more */
	AGENT_STDOUT = 0x31,
	AGENT_STDERR = 0x32,
	AGENT_EOF = 0x33, /* empty; `stream` says which ended */
	AGENT_RESIZE = 0x34, /* u16 rows | u16 columns */
	AGENT_SIGNAL = 0x35, /* u32 Linux signal number 1..64, to the program (main: to the workload's PID 1) */
	AGENT_STARTED = 0x36, /* u32 pid in the agent's PID namespace; the exec has succeeded */
	AGENT_EXIT = 0x37, /* struct agent_exit, AGENT_EXIT_SIZE bytes */
	AGENT_ERROR = 0x38, /* u32 enum agent_error | text (UTF-8, at most 1000 bytes, no NUL) */
	AGENT_OK = 0x39, /* empty */
	AGENT_WINDOW_OPEN = 0x3a, /* u32 bytes; `stream` says which */
	AGENT_LISTENING = 0x3b, /* n * AGENT_LISTENER_SIZE bytes: all live listeners, oldest first */
	AGENT_RESCANNED = 0x3c, /* u32: how many devices have appeared */
	AGENT_LEAVE = 0x3d, /* empty; from the client of an EXEC without MAIN: it goes, and the program lives on */
	/* trees */
	AGENT_ENTRY = 0x40, /* TLV: AGENT_ENTRY_* */
	AGENT_DATA = 0x41, /* u64 offset | bytes, 1 or more */
	AGENT_END = 0x42, /* empty; the tree is whole */
};

enum agent_stream { AGENT_STREAM_STDIN = 0, AGENT_STREAM_STDOUT = 1, AGENT_STREAM_STDERR = 2 };

enum agent_error {
	AGENT_ERROR_PROTOCOL = 1, /* malformed or out of place */
	AGENT_ERROR_VERSION = 2,
	AGENT_ERROR_BUSY = 3, /* a main workload runs already; or none runs that could be joined */
	AGENT_ERROR_NOT_EXECUTABLE = 4, /* exit status 126 */
	AGENT_ERROR_NOT_FOUND = 5, /* exit status 127 */
	AGENT_ERROR_USER = 6, /* user or group unknown in the image's passwd and group: 125 */
	AGENT_ERROR_DIRECTORY = 7, /* working directory cannot be entered or made: 125 */
	AGENT_ERROR_SYSTEM = 8, /* anything else that failed in the guest: 125 */
	AGENT_ERROR_REFUSED = 9, /* FORWARD: nobody listens on the port, or it refuses */
	AGENT_ERROR_UNSUPPORTED =
		10, /* LISTENERS: this kernel cannot tell (no cgroup BPF); every request of a VM without agent */
	AGENT_ERROR_ERRNO =
		64, /* PUT, GET and EXEC's FILE: from 65 up it is 64 + Linux's errno, 1 to AGENT_ERRNO_MAX */
};
#define AGENT_ERRNO_MAX 4095

enum agent_ready_tag {
	AGENT_READY_BOOT_NS = 1, /* u64: CLOCK_BOOTTIME when ready */
	AGENT_READY_INIT_NS = 2, /* u64: CLOCK_BOOTTIME when husk-init's main began */
	AGENT_READY_KERNEL = 3, /* string: uname release */
};

/** EXEC's entries. Repeated: ARG, ENV, GROUP. */
enum agent_exec_tag {
	AGENT_EXEC_FLAGS = 1, /* u32 of AGENT_EXEC_FLAG_* */
	AGENT_EXEC_ARG = 2, /* string, at least one; argv[0] is looked up in PATH of the env when it has no slash */
	AGENT_EXEC_ENV = 3, /* "NAME=value"; later ones win, and "NAME" takes it away. The agent adds PATH, HOME (passwd),
	                     * HOSTNAME, TERM (tty) */
	AGENT_EXEC_CWD = 4, /* absolute; made when missing for the main workload, as Docker does */
	AGENT_EXEC_USER = 5, /* "user[:group]", names or numbers, resolved in the guest */
	AGENT_EXEC_GROUP = 6, /* a further supplementary group, name or number */
	/* ENV, CWD, USER and GROUP of the main workload are the base of a joined program's: its ENV and GROUPs are added to them,
	 * its CWD and USER are in their place. Of the main workload CWD is "/" and USER 0:0 where they are not given. */
	AGENT_EXEC_WINDOW = 7, /* u32: rows << 16 | columns; with TTY */
	AGENT_EXEC_TIMEOUT =
		8, /* u64 milliseconds, 1 and more, counted from STARTED over all commands: then the program's
	                         * process group is killed and EXIT says TIMED_OUT. Not with MAIN, whose worker does it */
	AGENT_EXEC_FILE =
		9, /* u32 mode (07777) | u16 length of path | path, absolute or relative to CWD | contents; repeated.
	                         * Made, or cut to these contents; not with MAIN */
	AGENT_EXEC_NEXT = 10, /* empty; the ARGs behind it are another command. Not with MAIN, TTY, DETACH; at most
	                         * AGENT_STEPS_MAX commands, each with at least one ARG */
};

#define AGENT_EXEC_FLAG_MAIN                                                                                           \
	(1u << 0) /* the VM's main workload: new PID, mount and cgroup namespaces; else join them */
#define AGENT_EXEC_FLAG_TTY (1u << 1) /* a pseudo-terminal; all output on STDOUT */
#define AGENT_EXEC_FLAG_STDIN (1u << 2) /* stdin is a stream; else /dev/null */
#define AGENT_EXEC_FLAG_INIT (1u << 3) /* with MAIN: a reaper is PID 1 and the program its child */
#define AGENT_EXEC_FLAG_SYNC (1u << 4) /* with MAIN: sync(2) before EXIT, as the scratch disk is kept */
#define AGENT_EXEC_FLAG_DETACH (1u << 5) /* streams are /dev/null; not with MAIN, TTY, STDIN, TIMEOUT */

#define AGENT_STEPS_MAX 64 /* commands of one EXEC */

/** How a program ended. On the wire, all LE: u32 kind | u32 value | u64 duration_ns | u64 peak_rss | u32 flags | u32 step. */
struct agent_exit {
	uint32_t kind; /* enum agent_exit_kind */
	uint32_t value; /* exit status 0..255, or signal number 1..64 */
	uint64_t duration_ns;
	uint64_t peak_rss; /* bytes */
	uint32_t flags; /* AGENT_EXIT_* */
	uint32_t step; /* which command, 0 to AGENT_STEPS_MAX - 1 */
};
enum agent_exit_kind { AGENT_EXITED = 1, AGENT_SIGNALED = 2 };
#define AGENT_EXIT_TIMED_OUT (1u << 0)
#define AGENT_EXIT_OOM                                                                                                 \
	(1u << 1) /* the guest's kernel killed a process of the workload's cgroup for want of memory meanwhile */
#define AGENT_EXIT_SIZE 32

/** PUT's and GET's entries, each at most once. */
enum agent_tree_tag {
	AGENT_TREE_PATH = 1, /* absolute, at most 4095 bytes. PUT: where the tree goes; GET: its root */
	AGENT_TREE_USER = 2, /* as EXEC's: on whose behalf, default 0:0 */
	AGENT_TREE_FLAGS = 3, /* u32 of AGENT_TREE_FLAG_* */
	AGENT_TREE_NAME =
		4, /* PUT: the root's own name. When PATH is a directory the tree becomes PATH/NAME; when there is
	                       * nothing at PATH, and its parent is a directory, the tree becomes PATH; when PATH is a file, a root
	                       * that is one replaces it. Absent: the root must be a directory, and what is in it goes into PATH,
	                       * which is made where its parent exists */
};
#define AGENT_TREE_FLAG_OWNER (1u << 0) /* PUT: the entries' UID and GID count; else things belong to the user */
#define AGENT_TREE_FLAG_FOLLOW (1u << 1) /* GET: a root that is a symbolic link is followed */

/** ENTRY's entries, each at most once; NAME and TYPE always, LINK with the types that have one and DEVICE with devices, SIZE
 *  with files only. MODE, UID, GID, MTIME and SIZE that are not there are 0. */
enum agent_entry_tag {
	AGENT_ENTRY_NAME =
		1, /* relative to the root, "a/b"; no empty, "." or ".." component, at most 4095 bytes; the root: "" */
	AGENT_ENTRY_TYPE = 2, /* u32 enum agent_entry_type */
	AGENT_ENTRY_MODE = 3, /* u32, 07777 */
	AGENT_ENTRY_UID = 4, /* u32 */
	AGENT_ENTRY_GID = 5, /* u32 */
	AGENT_ENTRY_MTIME = 6, /* u64: nanoseconds since 1970, two's complement */
	AGENT_ENTRY_SIZE = 7, /* u64, of a file, at most INT64_MAX */
	AGENT_ENTRY_LINK = 8, /* SYMLINK: what it says, 1 to 4095 bytes; HARDLINK: the NAME of one before it */
	AGENT_ENTRY_DEVICE = 9, /* u64: major << 32 | minor, of 12 and 20 bits as Linux has them */
};
enum agent_entry_type {
	AGENT_FILE = 1,
	AGENT_DIRECTORY,
	AGENT_SYMLINK,
	AGENT_HARDLINK,
	AGENT_FIFO,
	AGENT_CHARACTER,
	AGENT_BLOCK,
	AGENT_SOCKET,
};
#define AGENT_NAME_MAX 4095

/** One thing of a tree. Strings are NUL-terminated and owned by the struct; link is "" where there is none. */
struct agent_entry {
	char name[AGENT_NAME_MAX + 1], link[AGENT_NAME_MAX + 1];
	enum agent_entry_type type;
	uint32_t mode, uid, gid;
	int64_t mtime_ns;
	uint64_t size, device;
};

/** A listening TCP socket of the workload. On the wire: u16 LE port | u8 4 or 6 | u8 0 | address, network byte order: 16
 *  bytes, the last 12 of an IPv4 address are 0. */
struct agent_listener {
	uint16_t port; /* 1..65535 */
	uint8_t family; /* 4 or 6 */
	uint8_t address[16];
};
#define AGENT_LISTENER_SIZE 20
#define AGENT_LISTENERS_MAX 1024

/** One frame as it lies in the caller's bytes. */
struct agent_frame {
	uint8_t type;
	uint8_t stream;
	uint32_t size;
	const uint8_t *payload;
};

/** Take the frame at the front of @bytes: its whole length in bytes, 0 when more bytes are needed, -EPROTO when its header
 *  is malformed (reserved bytes, length over the limit, type 0). Does not judge the type. */
long agent_frame_decode(const void *bytes, size_t size, struct agent_frame *frame);

/* Append a frame to @b; 0 or -ENOMEM. */
int agent_frame_put(struct buffer *b, enum agent_type type, uint8_t stream, const void *payload, size_t size);
int agent_hello_put(struct buffer *b);
int agent_u32_put(struct buffer *b, enum agent_type type, uint8_t stream, uint32_t value);
int agent_resize_put(struct buffer *b, uint16_t rows, uint16_t columns);
int agent_forward_put(struct buffer *b, uint16_t port);
int agent_listening_put(struct buffer *b, const struct agent_listener *listeners, size_t n);
int agent_exit_put(struct buffer *b, const struct agent_exit *exit);
/** -EINVAL for what agent_entry_get() would refuse. */
int agent_entry_put(struct buffer *b, const struct agent_entry *entry);
/** @n: 1 to AGENT_PAYLOAD_MAX - 8. */
int agent_data_put(struct buffer *b, uint64_t offset, const void *bytes, size_t n);
/** The text is formatted and cut at the limit. */
__attribute__((format(printf, 3, 4))) int agent_error_put(
	struct buffer *b, enum agent_error code, const char *format, ...);

/* Decoders check size and ranges: true when the payload is well-formed. */
bool agent_u32_get(const struct agent_frame *frame, uint32_t *value);
bool agent_resize_get(const struct agent_frame *frame, uint16_t *rows, uint16_t *columns);
bool agent_forward_get(const struct agent_frame *frame, uint16_t *port);
/** *@n holds the room in @listeners (at most AGENT_LISTENERS_MAX are ever sent), then how many there are. */
bool agent_listening_get(const struct agent_frame *frame, struct agent_listener *listeners, size_t *n);
bool agent_exit_get(const struct agent_frame *frame, struct agent_exit *exit);
/** What is in *@entry when this is false means nothing. */
bool agent_entry_get(const struct agent_frame *frame, struct agent_entry *entry);
/** *@bytes lies in the frame; offset + *@n does not overflow and is at most INT64_MAX. */
bool agent_data_get(const struct agent_frame *frame, uint64_t *offset, const uint8_t **bytes, size_t *n);
/** @text gets at most @room - 1 bytes, non-printable bytes replaced by '?', NUL-terminated. */
bool agent_error_get(const struct agent_frame *frame, uint32_t *code, char *text, size_t room);

#endif
