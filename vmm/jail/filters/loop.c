/* SPDX-License-Identifier: Apache-2.0 */
/* loop.c - the system calls of the worker's event loop: devices, doors, the agent's client, what it asks KVM */
#include "vmm/jail/filters/rules.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

const struct rule loop_rules[] = {
	/* the loop */
	CALL(epoll_wait, "wait for events"),
	CALL(epoll_pwait, "the same where there is no epoll_wait"),
	CALL(epoll_ctl, "watch descriptors"),
	CALL(timerfd_create, "timers of doors that are opened later"),
	CALL(timerfd_settime, "set timers"),
	CALL(timerfd_gettime, "what timers have left, in a pause"),
	CALL(poll, "look at one descriptor: hang-ups, a dial's answer"),
	CALL(ppoll, "the same where there is no poll"),
	CALL(clock_gettime, "where the vDSO has no clock"),
	CALL(clock_nanosleep, "none of ours; a C library's spin"),
	CALL(restart_syscall, "the kernel's, after a signal in a wait"),

	/* streams: doors, the guest's connections, console, log, eventfds, QMP, vhost-user */
	CALL(read, "streams, eventfds, timers"),
	CALL(write, "streams, eventfds, the log"),
	CALL(readv, "vsock and console, into guest memory"),
	CALL(writev, "vsock and console, out of guest memory"),
	CALL(recvfrom, "recv: doors, messages"),
	CALL(recvmsg, "messages with descriptors: doors, handoffs, vhost-user"),
	CALL(sendto, "send: messages"),
	CALL(sendmsg, "messages, streams without SIGPIPE"),
	CALL(accept4, "clients of doors"),
	CALL(shutdown, "pass on the end of one direction"),
	CALL(getsockopt, "what a socket is, what it is worth: handoffs, doors"),
	CALL(setsockopt, "TCP's options, SO_LINGER, buffer sizes"),
	CALL(getpeername, "whom a handoff brings"),
	CALL(getsockname, "the same"),
	CALL_IF(socketpair, 0, AF_UNIX, "a stream between the guest and a handler of ours"),
	CALL(close, "let go"),
	CALL_IF(fcntl, 1, F_GETFL, "flags of descriptors that others gave us"),
	CALL_IF(fcntl, 1, F_SETFL, "the same"),
	CALL_IF(fcntl, 1, F_GETFD, "the same"),
	CALL_IF(fcntl, 1, F_SETFD, "the same"),
	CALL_IF(fcntl, 1, F_DUPFD_CLOEXEC, "a listener's spare descriptor"),
	CALL_IF(fcntl, 1, F_GET_SEALS, "guest memory that nobody can shrink"),
	CALL_IF(ioctl, 1, SIOCINQ, "an end of file, or a packet without bytes"),
	CALL_IF(eventfd2, 1, EFD_CLOEXEC | EFD_NONBLOCK, "doorbells and interrupts of a device that comes later"),

	/* disks */
	CALL(preadv, "read into guest memory"),
	CALL(pwritev, "write out of it"),
	CALL(pread64, "the same of one piece"),
	CALL(pwrite64, "the same of one piece; logs"),
	CALL(ftruncate, "logs: empty the older file, cut off what is not whole"),
	CALL(fdatasync, "the guest's flush"),
	CALL(fsync, "the same where the file has grown"),
	CALL(fallocate, "discard, write zeroes; guest memory that is given back"),
	CALL(lseek, "SEEK_DATA, SEEK_HOLE; where sendfile writes"),
	CALL(sendfile, "kernel and initramfs into guest memory"),
	CALL(fstat, "what a descriptor is"),
	CALL_IF(newfstatat, 3, AT_EMPTY_PATH, "fstat of a newer C library"),
	CALL_IF(statx, 2, AT_EMPTY_PATH, "the same of a newer one"),

	/* memory, never executable */
	CALL(brk, "malloc"),
	CALL_WITHOUT(mmap, 2, PROT_EXEC, "malloc, the log of vhost-user, balloon"),
	CALL_WITHOUT(mprotect, 2, PROT_EXEC, "malloc"),
	CALL(mremap, "realloc"),
	CALL(munmap, "free"),
	CALL(madvise, "give guest memory back"),
	CALL(mincore, "how much of it the guest has"),
	CALL(getrandom, "the guest's entropy, hash seeds"),

	/* the other threads, and an end */
	CALL(futex, "locks"),
	CALL(getpid, "pthread_kill: a kick"),
	CALL(gettid, "the same"),
	CALL(tgkill, "the same; abort"),
	CALL(rt_sigprocmask, "pthread_kill, abort"),
	CALL(rt_sigaction, "abort"),
	CALL(rt_sigreturn, "after a kick"),
	CALL(sched_yield, "a C library's lock"),
	CALL(sched_getaffinity, "malloc, how many arenas"),
	CALL(exit, "a thread's end"),
	CALL(exit_group, "ours"),

	/* what it asks KVM while the guest runs */
	CALL_IF(ioctl, 1, KVM_IRQ_LINE, "an interrupt, where there are no irqfds"),
	CALL_IF(ioctl, 1, KVM_IRQFD, "a device that comes later, or goes"),
	CALL_IF(ioctl, 1, KVM_IOEVENTFD, "the same"),
	{0},
};
