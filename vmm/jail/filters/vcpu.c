/* SPDX-License-Identifier: Apache-2.0 */
/* vcpu.c - the system calls of a thread that runs a vCPU: it runs it, handles its exits, and rings the loop's thread */
#include "vmm/jail/filters/rules.h"

#include <linux/kvm.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

const struct rule vcpu_rules[] = {
	CALL_IF(ioctl, 1, KVM_RUN, "run the guest"),
	CALL_IF(ioctl, 1, KVM_GET_REGS, "where the guest was, in a message about its end"),
	CALL_IF(ioctl, 1, KVM_KVMCLOCK_CTRL, "tell the guest's watchdogs of a pause"),
	CALL_IF(ioctl, 1, KVM_IRQ_LINE, "an interrupt of the serial port, where there are no irqfds"),
	CALL(write, "eventfds; the early console, into the log or to its terminal"),
	CALL(pwritev, "the early console, into its log"),
	CALL(pwrite64, "the same, into the other file"),
	CALL(ftruncate, "the same: that is emptied first"),
	CALL(timerfd_settime, "the same: when what is no whole line is written"),
	CALL(epoll_ctl, "the early console, to one who does not take it at once"),
	CALL(close, "the same, who is gone"),
	CALL(writev, "abort's message"),
	CALL(clock_gettime, "where the vDSO has no clock"),
	CALL(restart_syscall, "the kernel's, after a signal in a wait"),

	/* memory, never executable */
	CALL(brk, "malloc"),
	CALL_WITHOUT(mmap, 2, PROT_EXEC, "malloc: a thread's arena"),
	CALL_WITHOUT(mprotect, 2, PROT_EXEC, "the same"),
	CALL(mremap, "realloc"),
	CALL(munmap, "free"),
	CALL(madvise, "free; a thread's end"),
	CALL(sched_getaffinity, "malloc, how many arenas"),
	CALL(getrandom, "malloc of a newer C library"),

	/* the other threads, and an end */
	CALL(futex, "the device lock, the machine's phases"),
	CALL(getpid, "pthread_kill: a kick of the other vCPUs"),
	CALL(gettid, "the same"),
	CALL(tgkill, "the same; abort"),
	CALL(rt_sigprocmask, "pthread_kill, abort, a thread's end"),
	CALL(rt_sigaction, "abort"),
	CALL(rt_sigreturn, "after a kick"),
	CALL(sched_yield, "a C library's lock"),
	CALL_IF(prctl, 0, PR_SET_NAME, "a thread's name"),
	CALL(exit, "a thread's end"),
	CALL(exit_group, "abort's last resort"),
	{0},
};
