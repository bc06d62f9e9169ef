/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.c - the distribution's kernel, fetched into the store; a kernel of the store, found
 *
 * Theory of Operation: a fetch works in a temporary directory beside its target (kernel_store.h): apt downloads the package,
 * dpkg-deb unpacks it, depmod works out which module needs which, and a few files are moved to a directory that is renamed
 * into place last.
 */
#include "engine/kernel.h"

#include "base/fd.h"
#include "base/path.h"
#include "engine/kernel_modules.h"
#include "engine/kernel_package.h"
#include "engine/kernel_store.h"
#include "engine/tool.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define META_PACKAGE "linux-image-cloud-amd64"

/** What one fetch works on. */
struct fetch {
	struct kernel_store store;
	char *package, *id, *deb, *release; /* id: package and its version */
};

static void fetch_free(struct fetch *f)
{
	kernel_store_end(&f->store);
	free(f->package);
	free(f->id);
	free(f->deb);
	free(f->release);
}

/** The package that the meta package depends on now, and the kernel's id: a security update may keep the package's name. */
static int find_package(struct fetch *f, struct husk_error *err)
{
	CLEANUP_FREE char *rest = NULL;
	CLEANUP_FREE char *version = NULL;
	int rc = kernel_package_ask("depends", META_PACKAGE, "Depends: linux-image-", &rest, err);
	f->package = rc == 0 ? path_format("linux-image-%s", rest) : NULL;
	if (rc == 0)
		rc = kernel_package_version(f->package ? f->package : META_PACKAGE, &version, err);
	if (rc < 0)
		return rc;
	f->id = path_format("%s_%s", f->package, version);
	return f->package && f->id ? 0 : error_set(err, -ENOMEM, "find the guest kernel: out of memory");
}

static int unpack(struct fetch *f, struct husk_error *err)
{
	kernel_store_progress(&f->store, "unpacking %s", f->deb);
	const char *unpack_argv[] = {"dpkg-deb", "-x", f->deb, "package", NULL};
	struct tool dpkg = {
		.argv = unpack_argv, .package = "dpkg", .directory = f->store.work, .stdin_fd = -1, .stdout_fd = -1};
	int rc = tool_run(&dpkg, NULL, err);
	if (rc < 0)
		return rc;
	CLEANUP_FREE char *modules = path_format("%s/package/lib/modules", f->store.work);
	f->release = modules ? kernel_package_find(modules, "", "") : NULL;
	if (!f->release)
		return error_set(err, -EIO, "%s holds no modules", f->deb);
	const char *depmod_argv[] = {"depmod", "-b", "package", f->release, NULL};
	struct tool depmod = {
		.argv = depmod_argv, .package = "kmod", .directory = f->store.work, .stdin_fd = -1, .stdout_fd = -1};
	return tool_run(&depmod, NULL, err);
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
	CLEANUP_FREE char *from = path_format("%s/package/lib/modules/%s/%s", f->store.work, f->release, path);
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

/** Keep the modules that guests use, and note which names they were collected for. */
static int keep_modules(struct fetch *f, const char *target, struct husk_error *err)
{
	CLEANUP(kernel_modules_free) char **list = NULL;
	CLEANUP_FREE char *dep_path = path_format("%s/package/lib/modules/%s/modules.dep", f->store.work, f->release);
	CLEANUP_FREE char *builtin_path =
		path_format("%s/package/lib/modules/%s/modules.builtin", f->store.work, f->release);
	CLEANUP_FREE char *directory = path_join(target, "modules");
	CLEANUP_FREE char *load_path = path_join(target, "load");
	CLEANUP_FREE char *wanted_path = path_join(target, "wanted");
	CLEANUP_BUFFER struct buffer dep = {0};
	CLEANUP_BUFFER struct buffer builtin = {0};
	CLEANUP_BUFFER struct buffer load = {0};
	const char *wanted = kernel_modules_wanted();
	if (!dep_path || !builtin_path || !directory || !load_path || !wanted_path)
		return error_set(err, -ENOMEM, "keep the kernel's modules: out of memory");
	int rc = kernel_store_read(dep_path, &dep, err);
	if (rc == 0)
		rc = kernel_store_read(builtin_path, &builtin, err);
	if (rc == 0)
		rc = kernel_modules_collect((char *)buffer_bytes(&dep), (char *)buffer_bytes(&builtin), &list, err);
	if (rc == 0)
		rc = path_make_directories(directory, 0755, err);
	for (char **at = list; rc == 0 && *at; at++)
		rc = keep_module(f, target, *at, &load, err);
	if (rc == 0)
		rc = path_write_atomically(load_path, buffer_bytes(&load), load.size, 0644, err);
	if (rc == 0)
		rc = path_write_atomically(wanted_path, wanted, strlen(wanted), 0644, err);
	return rc;
}

/** Put the kernel together in the temporary directory's "kernel". */
static int assemble(struct fetch *f, const char *target, struct husk_error *err)
{
	CLEANUP_FREE char *vmlinuz = path_format("%s/package/boot/vmlinuz-%s", f->store.work, f->release);
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
	kernel_store_progress(&f->store, "kept compressed: %s", why.message);
	return link(bzimage, image) < 0 ? error_errno(err, "link %s", image) : 0;
}

/** A kernel of that id that was fetched for other modules makes way. */
static int remove_stale(struct fetch *f, const char *target, struct husk_error *err)
{
	CLEANUP_FREE char *stale = path_join(f->store.work, "stale");
	if (!stale)
		return error_set(err, -ENOMEM, "replace %s: out of memory", target);
	return rename(target, stale) < 0 && errno != ENOENT ? error_errno(err, "replace %s", target) : 0;
}

int kernel_fetch(const char *home, int progress_fd, char **id, struct husk_error *err)
{
	CLEANUP(fetch_free) struct fetch f = {.store = KERNEL_STORE_INIT(progress_fd)};
	int rc = kernel_store_begin(&f.store, home, "fetch", err);
	if (rc == 0)
		rc = find_package(&f, err);
	if (rc < 0)
		return rc;
	CLEANUP_FREE char *target = path_join(f.store.kernels, f.id);
	CLEANUP_FREE char *assembled = path_join(f.store.work, "kernel");
	CLEANUP_FREE char *own_id = strdup(f.id);
	if (!target || !assembled || !own_id)
		return error_set(err, -ENOMEM, "fetch %s: out of memory", f.package);
	if (kernel_is_current(f.store.kernels, f.id)) {
		kernel_store_progress(&f.store, "there already: %s", f.id);
	} else {
		if ((rc = kernel_package_download(&f.store, f.package, &f.deb, err)) < 0 ||
			(rc = unpack(&f, err)) < 0 || (rc = assemble(&f, assembled, err)) < 0 ||
			(rc = remove_stale(&f, target, err)) < 0 ||
			(rc = kernel_store_commit(&f.store, assembled, f.id, err)) < 0)
			return rc;
		kernel_store_progress(&f.store, "ready: %s", f.id);
	}
	if (id)
		*id = steal_pointer(&own_id);
	return 0;
}

/** The lines of @text as a NULL-terminated list. */
static char **split_lines(const char *text)
{
	CLEANUP(kernel_modules_free) char **list = calloc(KERNEL_MODULES_MAX + 1, sizeof(*list));
	size_t n = 0;
	for (const char *at = text; list && *at && n < KERNEL_MODULES_MAX; at += strcspn(at, "\n"), at += *at == '\n')
		if (!(list[n++] = strndup(at, strcspn(at, "\n"))))
			return NULL;
	return steal_pointer(&list);
}

int kernel_find(const char *home, const char *wanted, struct kernel *out, struct husk_error *err)
{
	CLEANUP_FREE char *kernels = path_join(home, "kernels");
	CLEANUP(kernel_free) struct kernel k = {0};
	int rc = kernel_choose(home, wanted, &k.id, err);
	if (rc < 0)
		return rc;
	k.directory = path_join(kernels, k.id);
	k.image = path_format("%s/%s/image", kernels, k.id);
	CLEANUP_FREE char *load = path_format("%s/%s/load", kernels, k.id);
	CLEANUP_BUFFER struct buffer text = {0};
	if (!k.directory || !k.image || !load)
		return error_set(err, -ENOMEM, "find the guest kernel: out of memory");
	rc = kernel_store_read(load, &text, err);
	if (rc == 0 && access(k.image, R_OK) < 0)
		rc = error_errno(err, "read %s", k.image);
	if (rc < 0)
		return error_prefix(err, rc, "guest kernel %s is not whole; remove %s and run: husk kernel %s", k.id,
			k.directory, kernel_is_tuned(k.id) ? "build" : "fetch");
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
	kernel_modules_free(&kernel->modules);
	*kernel = (struct kernel){0};
}
