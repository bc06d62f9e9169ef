/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door.c - open the host's side of a door
 *
 * Theory of operation: a door on a path is bound by door_path.c, a TCP door here. A TLS door is two sockets: a TCP socket,
 * which husk-tls gets with certificate and key, and a unix socket in the VM's runtime directory, by which husk-tls enters.
 * That husk-tls can work with certificate and key is asked of itself.
 */
#include "engine/door.h"

#include "base/cleanup.h"
#include "base/door.h"
#include "engine/helper.h"

#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>

static int explain_path(const char *path, const char *kind, int code, struct husk_error *err)
{
	switch (code) {
	case -ENAMETOOLONG:
		return error_set(err, code,
			"open the %s door %s: the absolute path of a unix socket has at most %d bytes", kind, path,
			DOOR_PATH_MAX);
	case -EADDRINUSE:
		return error_set(
			err, code, "open the %s door %s: Address already in use: a live socket is there", kind, path);
	case -ENOTSOCK:
		return error_set(err, -EEXIST, "open the %s door %s: File exists, and is not a socket", kind, path);
	default:
		return error_set(err, code, "open the %s door %s: %s", kind, path, strerror(-code));
	}
}

static int open_path(
	struct open_door *d, const struct husk_door *wanted, const struct door_nest *nest, struct husk_error *err)
{
	int fd = door_bind_path(wanted->path, nest, &d->door);
	if (fd < 0)
		return explain_path(wanted->path, vm_door_kind_name(d->door.kind), fd, err);
	d->fd[0] = fd;
	return 0;
}

static void format_address(char out[VM_ENDPOINT_MAX], const char *host, const char *service)
{
	snprintf(out, VM_ENDPOINT_MAX, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, service);
}

/** A listening TCP socket on @address; its name with the real port goes to @endpoint. The descriptor or -errno. */
static int listen_tcp(const struct addrinfo *address, char endpoint[VM_ENDPOINT_MAX])
{
	const int on = 1;
	struct sockaddr_storage name;
	socklen_t size = sizeof(name);
	char host[64], service[16];
	CLEANUP_FD int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -errno;
	if (address->ai_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)
		return -errno;
	if (bind(fd, address->ai_addr, address->ai_addrlen) < 0 || listen(fd, DOOR_BACKLOG) < 0 ||
		getsockname(fd, (struct sockaddr *)&name, &size) < 0)
		return -errno;
	if (getnameinfo((struct sockaddr *)&name, size, host, sizeof(host), service, sizeof(service),
		    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return -EAFNOSUPPORT;
	format_address(endpoint, host, service);
	return steal_fd(&fd);
}

static int open_tcp(struct open_door *d, const struct husk_door *wanted, int *fd, struct husk_error *err)
{
	const struct addrinfo hints = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_STREAM};
	const char *host = wanted->address ? wanted->address : "127.0.0.1", *kind = vm_door_kind_name(d->door.kind);
	struct addrinfo *address = NULL;
	char service[8], asked[VM_ENDPOINT_MAX];
	snprintf(service, sizeof(service), "%u", wanted->port);
	format_address(asked, host, service);
	if (getaddrinfo(host, service, &hints, &address) != 0)
		return error_set(err, -EINVAL, "open the %s door %s: '%s' is not a numeric IPv4 or IPv6 address", kind,
			asked, host);
	*fd = listen_tcp(address, d->door.endpoint);
	freeaddrinfo(address);
	if (*fd >= 0)
		return 0;
	int code = *fd;
	*fd = -1;
	return error_set(err, code, "open the %s door %s: %s", kind, asked, strerror(-code));
}

static int open_file(const char *path, const char *what, int *out, struct husk_error *err)
{
	struct stat st;
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, "open the %s %s", what, path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "the %s %s is not a regular file", what, path);
	*out = steal_fd(&fd);
	return 0;
}

/** What the helper said itself, without what helper.c says about the helper. */
static int keep_own_words(struct husk_error *err)
{
	static const char mark[] = "husk-tls: ";
	const char *own = strstr(err->message, mark);
	CLEANUP_FREE char *text = own ? strdup(own + strlen(mark)) : NULL;
	return text ? error_set(err, -EINVAL, "%s", text) : err->code;
}

/** Let husk-tls say whether it can serve with certificate and key. */
static int check_tls(const struct husk *husk, const struct open_door *d, struct husk_error *err)
{
	CLEANUP_FREE char *path = NULL;
	int rc = engine_helper(husk, "husk-tls", &path, err);
	if (rc < 0)
		return rc;
	const char *const argv[] = {"husk-tls", "check", VM_DOOR_INNER_SOCKET, d->door.alpn, NULL};
	const int fds[] = {-1, d->fd[2], d->fd[3]};
	const struct helper how = {
		.path = path,
		.argv = argv,
		.stdin_fd = -1,
		.stdout_fd = -1,
		.stderr_fd = -1,
		.cancel_fd = -1,
		.fds = fds,
		.n_fds = ARRAY_SIZE(fds),
	};
	struct husk_error told;
	rc = helper_run(&how, NULL, &told);
	if (rc < 0)
		rc = keep_own_words(&told);
	return rc < 0 ? error_set(err, rc, "%s", told.message) : 0;
}

/** The unix socket by which husk-tls enters the VM, in a directory where nothing else is for it to find. */
static int open_inner(struct open_door *d, struct husk_error *err)
{
	uint32_t number;
	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return error_errno(err, "name a socket");
	char name[sizeof(d->door.inner)] = ""; /* all of it is passed on */
	snprintf(name, sizeof(name), "tls-%08x", number);
	if (mkdirat(d->runtime_fd, name, 0700) < 0)
		return error_errno(err, "make the directory of its inner socket");
	memcpy(d->door.inner, name, sizeof(name));
	CLEANUP_FD int directory = openat(d->runtime_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int fd = directory < 0 ? -errno : door_listen_in(directory, VM_DOOR_INNER_SOCKET);
	if (fd < 0)
		return error_set(err, fd, "open its inner socket: %s", strerror(-fd));
	d->fd[0] = fd;
	return 0;
}

static int open_tls(
	const struct husk *husk, struct open_door *d, const struct husk_door *wanted, struct husk_error *err)
{
	snprintf(d->door.alpn, sizeof(d->door.alpn), "%s", wanted->alpn ? wanted->alpn : "http/1.1");
	int rc = open_tcp(d, wanted, &d->fd[1], err);
	if (rc < 0)
		return rc;
	rc = open_file(wanted->certificate, "certificate", &d->fd[2], err);
	rc = rc < 0 ? rc : open_file(wanted->key, "key", &d->fd[3], err);
	rc = rc < 0 ? rc : open_inner(d, err);
	rc = rc < 0 ? rc : check_tls(husk, d, err);
	return rc < 0 ? error_prefix(err, rc, "open the tls door %s", d->door.endpoint) : 0;
}

int door_open(const struct husk *husk, int runtime_fd, const struct husk_door *wanted, const struct door_nest *nest,
	struct open_door *out, struct husk_error *err)
{
	struct open_door d = OPEN_DOOR_INIT;
	int rc;
	d.runtime_fd = runtime_fd;
	d.door.kind = (uint32_t)wanted->kind;
	d.door.guest_port = wanted->guest_port;
	if (wanted->kind == HUSK_DOOR_TLS)
		rc = open_tls(husk, &d, wanted, err);
	else if (wanted->kind == HUSK_DOOR_TCP)
		rc = open_tcp(&d, wanted, &d.fd[0], err);
	else
		rc = open_path(&d, wanted, nest, err);
	if (rc < 0)
		door_take_down(&d);
	else
		*out = d;
	return rc;
}

void door_close(struct open_door *d)
{
	for (size_t i = 0; i < VMM_DOOR_FDS; i++)
		if (d->fd[i] >= 0)
			close(steal_fd(&d->fd[i]));
}

void door_take_down(struct open_door *d)
{
	/* While the socket is open its inode number is its own. */
	if (d->fd[0] >= 0)
		door_path_remove(&d->door);
	door_inner_remove(d->runtime_fd, &d->door);
	door_close(d);
}
