/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.c - the guest kernels of a home
 *
 * Theory of Operation: a fetch works in a temporary directory beside its target: apt downloads the package, dpkg-deb
 * unpacks it, depmod works out which module needs which, and a few files are moved to a directory that is renamed into place
 * last. A crash leaves a temporary directory, which the next fetch removes (it holds the lock).
 */
#include "engine/kernel.h"

#include "base/fd.h"
#include "base/path.h"
#include "engine/tool.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define META_PACKAGE "linux-image-cloud-amd64"

/* What a guest needs to find its disks, stack its root and hear its host. vsock_loopback makes connects inside the guest
 * arrive, so that the agent can refuse them by itself. */
static const char *const wanted_modules[] = {
	"virtio_pci", "virtio_blk", "squashfs", "overlay", "vmw_vsock_virtio_transport", "vsock_loopback"};

#define MODULES_MAX 64

/** What one fetch works on. */
struct fetch {
	char *kernels; /* HOME/kernels */
	char *work; /* the temporary directory */
	char *package, *id, *deb, *release; /* id: package and its version */
	int lock;
	int progress_fd;
};

static void fetch_free(struct fetch *f)
{
	if (f->work)
		path_remove_tree(f->work, NULL);
	if (f->lock >= 0)
		close(f->lock);
	free(f->kernels);
	free(f->work);
	free(f->package);
	free(f->id);
	free(f->deb);
	free(f->release);
}

static void cleanup_string_list(char ***list)
{
	for (char **at = *list; at && *at; at++)
		free(*at);
	free(*list);
}

static void progress(const struct fetch *f, const char *what, const char *which)
{
	if (f->progress_fd >= 0)
		dprintf(f->progress_fd, "kernel: %s %s\n", what, which);
}

/** What follows @key, up to white space, in the output of `apt-cache @verb @package`; malloc'ed. */
static int ask_apt(const char *verb, const char *package, const char *key, char **out, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer text = {0};
	const char *argv[] = {"apt-cache", "-o", "APT::Cache::AllVersions=false", verb, package, NULL};
	struct tool tool = {.argv = argv, .package = "apt", .stdin_fd = -1, .stdout_fd = -1};
	int rc = tool_run(&tool, &text, err);
	if (rc == 0)
		rc = buffer_append(&text, "", 1);
	if (rc < 0)
		return error_prefix(
			err, "find the package of the guest kernel (is this Debian, and was apt-get update run?)");
	const char *at = strstr((char *)buffer_bytes(&text), key);
	if (!at)
		return error_set(err, -ENOENT, "apt knows no %s; run apt-get update", package);
	at += strlen(key);
	*out = strndup(at, strcspn(at, " \n"));
	return *out ? 0 : error_set(err, -ENOMEM, "find the guest kernel: out of memory");
}

/** The package that the meta package depends on now, and the kernel's id: a security update may keep the package's name. */
static int find_package(struct fetch *f, struct husk_error *err)
{
	CLEANUP_FREE char *rest = NULL;
	CLEANUP_FREE char *version = NULL;
	int rc = ask_apt("depends", META_PACKAGE, "Depends: linux-image-", &rest, err);
	f->package = rc == 0 ? path_format("linux-image-%s", rest) : NULL;
	if (rc == 0)
		rc = ask_apt("show", f->package ? f->package : META_PACKAGE, "\nVersion: ", &version, err);
	if (rc < 0)
		return rc;
	for (char *c = version; *c; c++)
		if (*c == ':' || *c == '/')
			*c = '_';
	f->id = path_format("%s_%s", f->package, version);
	return f->package && f->id ? 0 : error_set(err, -ENOMEM, "find the guest kernel: out of memory");
}

/** The first name in @directory that ends with @suffix, malloc'ed; NULL when there is none. */
static char *find_entry(const char *directory, const char *prefix, const char *suffix)
{
	CLEANUP_DIR DIR *dir = opendir(directory);
	struct dirent *entry;
	while (dir && (entry = readdir(dir))) {
		size_t n = strlen(entry->d_name), tail = strlen(suffix);
		if (entry->d_name[0] != '.' && strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && n >= tail &&
			strcmp(entry->d_name + n - tail, suffix) == 0)
			return strdup(entry->d_name);
	}
	return NULL;
}

static int download(struct fetch *f, struct husk_error *err)
{
	progress(f, "downloading", f->package);
	/* apt's own unprivileged user cannot write to our directory; it only warns of that, on stderr. */
	const char *argv[] = {"apt-get", "-q", "download", f->package, NULL};
	struct tool tool = {.argv = argv, .package = "apt", .directory = f->work, .stdin_fd = -1, .stdout_fd = -1};
	int rc = tool_run(&tool, NULL, err);
	if (rc < 0)
		return error_prefix(err, "download %s", f->package);
	f->deb = find_entry(f->work, "linux-image-", ".deb");
	if (!f->deb)
		return error_set(err, -EIO, "download %s: apt-get left no package in %s", f->package, f->work);
	return 0;
}

static int unpack(struct fetch *f, struct husk_error *err)
{
	progress(f, "unpacking", f->deb);
	const char *unpack_argv[] = {"dpkg-deb", "-x", f->deb, "package", NULL};
	struct tool dpkg = {
		.argv = unpack_argv, .package = "dpkg", .directory = f->work, .stdin_fd = -1, .stdout_fd = -1};
	int rc = tool_run(&dpkg, NULL, err);
	if (rc < 0)
		return rc;
	CLEANUP_FREE char *modules = path_format("%s/package/lib/modules", f->work);
	f->release = modules ? find_entry(modules, "", "") : NULL;
	if (!f->release)
		return error_set(err, -EIO, "%s holds no modules", f->deb);
	const char *depmod_argv[] = {"depmod", "-b", "package", f->release, NULL};
	struct tool depmod = {
		.argv = depmod_argv, .package = "kmod", .directory = f->work, .stdin_fd = -1, .stdout_fd = -1};
	return tool_run(&depmod, NULL, err);
}

/** True when the path [@path, @path + @n) of modules.dep is the module @name ('-' and '_' are one to the kernel). */
static bool is_module(const char *path, size_t n, const char *name)
{
	const char *base = path + n;
	while (base > path && base[-1] != '/')
		base--;
	for (; *name; base++, name++)
		if (base == path + n || (*base == '-' ? '_' : *base) != *name)
			return false;
	return strncmp(base, ".ko", 3) == 0;
}

/** Append [@path, @path + @n) to the NULL-terminated @list unless it is there. */
static int add_unique(char **list, const char *path, size_t n)
{
	size_t i = 0;
	for (; list[i]; i++)
		if (strlen(list[i]) == n && memcmp(list[i], path, n) == 0)
			return 0;
	if (i == MODULES_MAX)
		return -E2BIG;
	list[i] = strndup(path, n);
	return list[i] ? 0 : -ENOMEM;
}

/** Add the module @name of modules.dep's text @dep to @list behind what it needs. A line is "path: path…", where each path
 *  comes before those that it needs itself: read from the right, it is a load order. */
static int add_module(char **list, const char *dep, const char *name, struct husk_error *err)
{
	for (const char *line = dep; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		size_t own = strcspn(line, ":\n");
		if (line[own] != ':' || !is_module(line, own, name))
			continue;
		const char *needs = line + own + 1, *end = line + strcspn(line, "\n");
		while (end > needs) {
			const char *word = end;
			while (word > needs && word[-1] != ' ')
				word--;
			int rc = word < end ? add_unique(list, word, (size_t)(end - word)) : 0;
			if (rc < 0)
				return error_set(err, rc, "collect the modules of %s", name);
			end = word > needs ? word - 1 : needs;
		}
		int rc = add_unique(list, line, own);
		return rc < 0 ? error_set(err, rc, "collect the modules of %s", name) : 0;
	}
	return error_set(err, -ENOENT, "the kernel package has no module %s", name);
}

static int read_text(const char *path, struct buffer *b, struct husk_error *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc = fd < 0 ? -errno : fd_read_to_end(fd, b, 16u << 20);
	if (rc == 0)
		rc = buffer_append(b, "", 1);
	return rc < 0 ? error_set(err, rc, "read %s: %s", path, strerror(-rc)) : 0;
}

/** Cut off the signature that is appended to the module @path (Linux include/linux/module_signature.h: the signature, 12
 *  bytes that end with its big-endian length, the mark). The files were verified with their package, the guest's kernel does
 *  not insist, and checking eleven of them costs an emulated boot 0.08 s. */
static int cut_signature(const char *path, struct husk_error *err)
{
	static const char mark[] = "~Module signature appended~\n";
	enum { HEADER = 12, TAIL = HEADER + sizeof(mark) - 1 };
	uint8_t tail[TAIL];
	struct stat st;
	CLEANUP_FD int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, "open %s", path);
	if (st.st_size < TAIL || pread(fd, tail, TAIL, st.st_size - TAIL) != TAIL ||
		memcmp(tail + HEADER, mark, sizeof(mark) - 1) != 0)
		return 0;
	off_t signature = (off_t)tail[8] << 24 | tail[9] << 16 | tail[10] << 8 | tail[11];
	off_t size = st.st_size - TAIL - signature;
	return size > 0 && ftruncate(fd, size) < 0 ? error_errno(err, "shorten %s", path) : 0;
}

/** Move the module at @path of the package to @target/modules, uncompressed, and add its file name to @load. */
static int keep_module(
	struct fetch *f, const char *target, const char *path, struct buffer *load, struct husk_error *err)
{
	const char *slash = strrchr(path, '/');
	const char *base = slash ? slash + 1 : path;
	int stem = (int)(strstr(base, ".ko") - base) + 3;
	CLEANUP_FREE char *from = path_format("%s/package/lib/modules/%s/%s", f->work, f->release, path);
	CLEANUP_FREE char *to = path_format("%s/modules/%.*s", target, stem, base);
	if (!from || !to || buffer_printf(load, "%.*s\n", stem, base) < 0)
		return error_set(err, -ENOMEM, "keep module %s: out of memory", base);
	if (!base[stem]) {
		if (rename(from, to) < 0)
			return error_errno(err, "keep module %s", base);
		return cut_signature(to, err);
	}
	CLEANUP_FD int in = open(from, O_RDONLY | O_CLOEXEC);
	CLEANUP_FD int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (in < 0 || out < 0)
		return error_errno(err, "keep module %s", base);
	bool zstd = strcmp(base + stem, ".zst") == 0;
	const char *argv[] = {zstd ? "zstd" : "xz", "-dc", NULL};
	struct tool tool = {.argv = argv, .package = zstd ? "zstd" : "xz-utils", .stdin_fd = in, .stdout_fd = out};
	int rc = tool_run(&tool, NULL, err);
	return rc < 0 ? rc : cut_signature(to, err);
}

static int keep_modules(struct fetch *f, const char *target, struct husk_error *err)
{
	CLEANUP(cleanup_string_list) char **list = calloc(MODULES_MAX + 1, sizeof(*list));
	CLEANUP_FREE char *dep_path = path_format("%s/package/lib/modules/%s/modules.dep", f->work, f->release);
	CLEANUP_FREE char *directory = path_join(target, "modules");
	CLEANUP_FREE char *load_path = path_join(target, "load");
	CLEANUP_BUFFER struct buffer dep = {0};
	CLEANUP_BUFFER struct buffer load = {0};
	if (!list || !dep_path || !directory || !load_path)
		return error_set(err, -ENOMEM, "keep the kernel's modules: out of memory");
	int rc = read_text(dep_path, &dep, err);
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(wanted_modules); i++)
		rc = add_module(list, (char *)buffer_bytes(&dep), wanted_modules[i], err);
	if (rc == 0)
		rc = path_make_directories(directory, 0755, err);
	for (char **at = list; rc == 0 && *at; at++)
		rc = keep_module(f, target, *at, &load, err);
	if (rc == 0)
		rc = path_write_atomically(load_path, buffer_bytes(&load), load.size, 0644, err);
	return rc;
}

/** Put the kernel together in the temporary directory's "kernel". */
static int assemble(struct fetch *f, const char *target, struct husk_error *err)
{
	CLEANUP_FREE char *vmlinuz = path_format("%s/package/boot/vmlinuz-%s", f->work, f->release);
	CLEANUP_FREE char *bzimage = path_join(target, "bzimage");
	CLEANUP_FREE char *image = path_join(target, "image");
	if (!vmlinuz || !bzimage || !image)
		return error_set(err, -ENOMEM, "assemble the kernel: out of memory");
	int rc = path_make_directories(target, 0755, err);
	if (rc == 0)
		rc = keep_modules(f, target, err);
	if (rc < 0)
		return rc;
	if (rename(vmlinuz, bzimage) < 0)
		return error_errno(err, "keep %s", vmlinuz);
	struct husk_error why;
	if (kernel_image_unpack(bzimage, image, &why) == 0)
		return 0;
	progress(f, "kept compressed:", why.message);
	return link(bzimage, image) < 0 ? error_errno(err, "link %s", image) : 0;
}

/** Take the lock of HOME/kernels and make a fresh temporary directory. */
static int fetch_begin(struct fetch *f, const char *home, struct husk_error *err)
{
	f->kernels = path_join(home, "kernels");
	f->work = f->kernels ? path_join(f->kernels, ".fetch") : NULL;
	CLEANUP_FREE char *lock = f->kernels ? path_join(f->kernels, ".lock") : NULL;
	if (!lock || !f->work)
		return error_set(err, -ENOMEM, "fetch a kernel: out of memory");
	int rc = path_make_directories(f->kernels, 0755, err);
	if (rc < 0)
		return rc;
	f->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (f->lock < 0)
		return error_errno(err, "open %s", lock);
	if (flock(f->lock, LOCK_EX | LOCK_NB) < 0) {
		progress(f, "waiting for another fetch in", f->kernels);
		while (flock(f->lock, LOCK_EX) < 0)
			if (errno != EINTR)
				return error_errno(err, "lock %s", lock);
	}
	rc = path_remove_tree(f->work, err);
	return rc < 0 ? rc : path_make_directories(f->work, 0755, err);
}

/** Rename the assembled kernel into place. */
static int commit(const char *assembled, const char *target, struct husk_error *err)
{
	sync();
	if (rename(assembled, target) < 0)
		return error_errno(err, "move the kernel to %s", target);
	return 0;
}

int kernel_fetch(const char *home, int progress_fd, char **id, struct husk_error *err)
{
	CLEANUP(fetch_free) struct fetch f = {.lock = -1, .progress_fd = progress_fd};
	int rc = fetch_begin(&f, home, err);
	if (rc == 0)
		rc = find_package(&f, err);
	if (rc < 0)
		return rc;
	CLEANUP_FREE char *target = path_join(f.kernels, f.id);
	CLEANUP_FREE char *assembled = path_join(f.work, "kernel");
	CLEANUP_FREE char *own_id = strdup(f.id);
	if (!target || !assembled || !own_id)
		return error_set(err, -ENOMEM, "fetch %s: out of memory", f.package);
	if (access(target, F_OK) == 0) {
		progress(&f, "there already:", f.id);
	} else {
		if ((rc = download(&f, err)) < 0 || (rc = unpack(&f, err)) < 0 ||
			(rc = assemble(&f, assembled, err)) < 0 || (rc = commit(assembled, target, err)) < 0)
			return rc;
		progress(&f, "ready:", f.id);
	}
	if (id)
		*id = steal_pointer(&own_id);
	return 0;
}

/** The newest directory of HOME/kernels, by its time; NULL when there is none. */
static char *newest(const char *kernels)
{
	CLEANUP_DIR DIR *dir = opendir(kernels);
	CLEANUP_FREE char *best = NULL;
	struct timespec best_time = {0};
	struct dirent *entry;
	while (dir && (entry = readdir(dir))) {
		struct stat st;
		if (entry->d_name[0] == '.' || fstatat(dirfd(dir), entry->d_name, &st, 0) < 0 || !S_ISDIR(st.st_mode))
			continue;
		bool later = st.st_ctim.tv_sec > best_time.tv_sec ||
			     (st.st_ctim.tv_sec == best_time.tv_sec && st.st_ctim.tv_nsec > best_time.tv_nsec);
		if (best && !later)
			continue;
		free(best);
		best = strdup(entry->d_name);
		best_time = st.st_ctim;
	}
	return steal_pointer(&best);
}

/** The lines of @text as a NULL-terminated list. */
static char **split_lines(const char *text)
{
	CLEANUP(cleanup_string_list) char **list = calloc(MODULES_MAX + 1, sizeof(*list));
	size_t n = 0;
	for (const char *at = text; list && *at && n < MODULES_MAX; at += strcspn(at, "\n"), at += *at == '\n')
		if (!(list[n++] = strndup(at, strcspn(at, "\n"))))
			return NULL;
	return steal_pointer(&list);
}

int kernel_find(const char *home, const char *id, struct kernel *out, struct husk_error *err)
{
	CLEANUP_FREE char *kernels = path_join(home, "kernels");
	CLEANUP(kernel_free) struct kernel k = {0};
	k.id = id ? strdup(id) : kernels ? newest(kernels) : NULL;
	if (!k.id)
		return error_set(
			err, -ENOENT, "no guest kernel in %s; run: husk kernel fetch", kernels ? kernels : home);
	k.directory = path_join(kernels, k.id);
	k.image = path_format("%s/%s/image", kernels, k.id);
	CLEANUP_FREE char *load = path_format("%s/%s/load", kernels, k.id);
	CLEANUP_BUFFER struct buffer text = {0};
	if (!k.directory || !k.image || !load)
		return error_set(err, -ENOMEM, "find the guest kernel: out of memory");
	int rc = read_text(load, &text, err);
	if (rc == 0 && access(k.image, R_OK) < 0)
		rc = error_errno(err, "read %s", k.image);
	if (rc < 0)
		return error_prefix(
			err, "guest kernel %s is not whole; remove %s and run: husk kernel fetch", k.id, k.directory);
	k.modules = split_lines((char *)buffer_bytes(&text));
	if (!k.modules)
		return error_set(err, -ENOMEM, "find the guest kernel: out of memory");
	*out = k;
	k = (struct kernel){0};
	return 0;
}

void kernel_free(struct kernel *kernel)
{
	free(kernel->id);
	free(kernel->directory);
	free(kernel->image);
	cleanup_string_list(&kernel->modules);
	*kernel = (struct kernel){0};
}
