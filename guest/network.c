/* SPDX-License-Identifier: Apache-2.0 */
/*
 * network.c - loopback, host name and the files in /etc that speak of them
 *
 * Theory of operation: the files go into the overlay's upper layer before any workload starts. Each replaces what the image
 * has under that name, a link as well (resolv.conf is one in many images, to a place that a resolver fills which does not
 * run here); only the directory etc itself is followed, inside the root. A directory under one of the names stays.
 */
#include "guest/network.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "guest/mounts.h"

#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

int network_up(const char *hostname, struct husk_error *err)
{
	struct ifreq request = {.ifr_name = "lo"};
	CLEANUP_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		return error_errno(err, "bring lo up");
	if (sethostname(hostname, strlen(hostname)) < 0)
		return error_errno(err, "set the host name %s", hostname);
	return 0;
}

static int replace(int etc, const char *name, const void *bytes, size_t n, struct husk_error *err)
{
	if (unlinkat(etc, name, 0) < 0 && errno == EISDIR)
		return 0;
	CLEANUP_FD int fd = openat(etc, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return error_errno(err, "write /etc/%s", name);
	int rc = fd_write_all(fd, bytes, n);
	if (rc < 0) {
		errno = -rc;
		return error_errno(err, "write /etc/%s", name);
	}
	return 0;
}

int network_write_files(const char *root, const struct envelope *envelope, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer b = {0};
	CLEANUP_FD int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root_fd < 0)
		return error_errno(err, "open the root %s", root);
	CLEANUP_FD int path = mounts_make_directory_in(root_fd, "/etc");
	CLEANUP_FD int etc = path < 0 ? path : openat(path, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (etc < 0) {
		errno = path < 0 ? -path : errno;
		return error_errno(err, "open /etc of the image");
	}
	buffer_printf(&b, "%s\n", envelope->hostname);
	int rc = replace(etc, "hostname", buffer_bytes(&b), b.size, err);
	buffer_free(&b);
	buffer_printf(&b,
		"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n"
		"ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n127.0.1.1\t%s\n",
		envelope->hostname);
	buffer_append(&b, envelope->hosts.data, envelope->hosts.size);
	if (rc == 0)
		rc = b.data ? replace(etc, "hosts", buffer_bytes(&b), b.size, err)
			    : error_set(err, -ENOMEM, "out of memory");
	if (rc == 0)
		rc = replace(etc, "resolv.conf", envelope->resolv_conf.data ? envelope->resolv_conf.data : (void *)"",
			envelope->resolv_conf.size, err);
	if (rc == 0 && symlinkat("/proc/mounts", etc, "mtab") < 0 && errno != EEXIST)
		rc = error_errno(err, "make /etc/mtab");
	return rc;
}
