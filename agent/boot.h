/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot.h - the boot envelope: what husk-init needs to know, a file in the initramfs
 *
 * An envelope as in base/tlv.h, at most BOOT_SIZE_MAX bytes, at BOOT_PATH; written by the engine into a second cpio archive
 * behind the shared one. An unknown version or tag powers the VM off with a message on the console.
 */
#ifndef AGENT_BOOT_H
#define AGENT_BOOT_H

#define BOOT_PATH "/husk/boot"          /* in the initramfs */
#define BOOT_MODULES_DIR "/husk/modules" /* the modules' files lie here, flat */
#define BOOT_MAGIC 0x544f4248u          /* "HBOT" */
#define BOOT_VERSION 1
#define BOOT_SIZE_MAX (1u << 20)

enum boot_tag {
	BOOT_MODULE = 1,      /* string, repeated: file name below BOOT_MODULES_DIR, in load order (dependencies first) */
	BOOT_ROOT_DEVICE = 2, /* string: "vda": block device of the layers */
	BOOT_LAYERS = 3,      /* u32, 1..127: the partitions of that device, 1 is the bottom layer; squashfs */
	BOOT_SCRATCH_DEVICE = 4, /* string: "vdb": ext4, overlayfs upper and volumes */
	BOOT_FLAGS = 5,       /* u32 of BOOT_FLAG_* */
	BOOT_HOSTNAME = 6,    /* string */
	BOOT_RESOLV_CONF = 7, /* bytes: content of /etc/resolv.conf; absent: an empty file */
	BOOT_HOSTS = 8,       /* bytes: further lines for /etc/hosts */
	BOOT_VOLUME = 9,      /* string, repeated: absolute path in the image that is a volume, writable even with READ_ONLY */
	BOOT_SHM_SIZE = 10,   /* u64 bytes of /dev/shm; default 64 MiB */
	BOOT_NOFILE = 11,     /* u32: RLIMIT_NOFILE of workloads, soft and hard; default 1048576 */
	BOOT_TIME_NS = 12,    /* u64: host's CLOCK_REALTIME when the envelope was written */
	BOOT_ENTROPY = 13,    /* bytes: credited to the guest's random generator */
	BOOT_LATE_MODULE = 14, /* as BOOT_MODULE: loaded once the agent is ready; one that fails is said on the console */
	BOOT_STOP_SIGNAL = 15, /* u32: 1..64, asks the workload to end when the power button is pressed; default SIGTERM */
	BOOT_VSOCK_PORT = 17, /* u32: HUSK_VSOCK_PORT of programs: the one port of the host that is open to them */
	BOOT_CONSOLE = 18,    /* string: "hvc0": the console that is the workload's alone; absent: the kernel's */
	BOOT_DISK = 16,       /* string, repeated: "vdb SERIAL": a disk of the user's, for the workload's /dev */
};

/* husk-init as the workload of a self-test: called with this word it says this line and exits with this status. */
#define BOOT_SELFTEST_WORD "selftest"
#define BOOT_SELFTEST_LINE "husk-init: the guest runs\n"
#define BOOT_SELFTEST_STATUS 42

#define BOOT_FLAG_READ_ONLY (1u << 0) /* the root is mounted read-only for the workload */
#define BOOT_FLAG_DEBUG (1u << 1)     /* the agent says on the console what it does and how long it takes */
#define BOOT_FLAG_KEPT (1u << 2)      /* the scratch disk outlives the VM's processes: it is mounted with barriers and its journal
                                       * replayed, and what an earlier boot has left on it is the root again */

#endif
