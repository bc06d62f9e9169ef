/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_build.c - the tuned guest kernel, built from the distribution's source package
 *
 * Theory of Operation: first the recipe (kernel_recipe.h) is read off this machine, and with it the kernel's id; if that kernel is
 * there, nothing is done. Otherwise the source package is downloaded and unpacked in a temporary directory of the store,
 * configured from allnoconfig and the fragment, compared with what the fragment asked for, compiled, and the image with its
 * configuration is renamed into place. The compiler's output goes to a log that stays when the build fails.
 *
 * The source comes as apt gives it, verified by apt's signatures; nothing else is downloaded. The environment's ideas of a
 * kernel build (ARCH, KCFLAGS, MAKEFLAGS of an outer make …) are overruled: they are not part of the recipe. The lock is
 * handed down to make: should husk be killed, the next build waits for the compilers that are left.
 */
#include "base/buffer.h"
#include "base/fd.h"
#include "base/path.h"
#include "engine/engine.h"
#include "engine/kernel.h"
#include "engine/kernel_package.h"
#include "engine/kernel_recipe.h"
#include "engine/kernel_store.h"
#include "engine/tool.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <time.h>

#define SOURCE_PACKAGE "linux-source-6.12"
#define SPACE_NEEDED (3ull << 30) /* the source has 1.7 GiB, the archives 0.3, the objects 0.5 */
#define TICK_MS 60000
#define FRAGMENT_MAX (1u << 20)

/** What one build works on. */
struct build {
	struct kernel_store store;
	struct kernel_recipe recipe;
	char *id;
	char *tree; /* the unpacked source */
	char *log_path;
	int log;
	struct timespec begun;
};

static void build_free(struct build *b)
{
	kernel_store_end(&b->store);
	kernel_recipe_free(&b->recipe);
	free(b->id);
	free(b->tree);
	free(b->log_path);
	if (b->log >= 0)
		close(b->log);
}

static double minutes(const struct build *b)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return ((double)(now.tv_sec - b->begun.tv_sec) + (double)(now.tv_nsec - b->begun.tv_nsec) / 1e9) / 60;
}

/** True when the compiler finds the header @name. */
static bool has_header(const char *name)
{
	struct husk_error ignored;
	const char *argv[] = {"gcc", "-E", "-include", name, "-x", "c", "/dev/null", NULL};
	CLEANUP_FD int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct tool tool = {.argv = argv, .package = "gcc", .stdin_fd = -1, .stdout_fd = null};
	return tool_run(&tool, NULL, &ignored) == 0;
}

static int check_tools(struct husk_error *err)
{
	struct kernel_need needs[] = {
		{"apt-get", "apt"},
		{"dpkg-deb", "dpkg"},
		{"tar", "tar"},
		{"xz", "xz-utils"},
		{"gzip", "gzip"},
		{"make", "make"},
		{"gcc", "gcc"},
		{"ld", "binutils"},
		{"flex", "flex"},
		{"bison", "bison"},
		{"bc", "bc"},
		{"perl", "perl"},
		{"stdlib.h", "libc6-dev"},
		{"gelf.h", "libelf-dev"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(needs); i++) {
		const char *name = needs[i].name;
		bool header = strstr(name, ".h") != NULL;
		CLEANUP_FREE char *path = header ? NULL : engine_find_program(name);
		needs[i].missing = header ? !has_header(name) : !path;
	}
	return kernel_needs_met(needs, ARRAY_SIZE(needs), err);
}

/** The first line that `@program --version` prints, malloc'ed. */
static int ask_version(const char *program, char **line, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer text = {0};
	const char *argv[] = {program, "--version", NULL};
	struct tool tool = {.argv = argv, .package = program, .stdin_fd = -1, .stdout_fd = -1};
	int rc = tool_run(&tool, &text, err);
	if (rc == 0 && buffer_append(&text, "", 1) < 0)
		rc = error_set(err, -ENOMEM, "out of memory");
	if (rc < 0)
		return error_prefix(err, rc, "ask %s for its version", program);
	*line = strndup((char *)buffer_bytes(&text), strcspn((char *)buffer_bytes(&text), "\n"));
	return *line ? 0 : error_set(err, -ENOMEM, "ask %s for its version: out of memory", program);
}

static int read_recipe(struct kernel_recipe *recipe, const char *more, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer own = {0};
	int rc = more ? kernel_store_read(more, &own, err) : 0;
	if (rc == 0 && (own.size > FRAGMENT_MAX || (own.size && memchr(buffer_bytes(&own), 0, own.size - 1))))
		rc = error_set(err, -EINVAL, "%s is not a configuration fragment", more);
	rc = rc < 0 ? rc : kernel_package_version(SOURCE_PACKAGE, &recipe->source, err);
	rc = rc < 0 ? rc : ask_version("gcc", &recipe->compiler, err);
	rc = rc < 0 ? rc : ask_version("ld", &recipe->linker, err);
	if (rc < 0)
		return rc;
	recipe->fragment = path_format("%s%s", kernel_fragment, more ? (char *)buffer_bytes(&own) : "");
	return recipe->fragment ? 0 : error_set(err, -ENOMEM, "read the configuration: out of memory");
}

static int check_space(const struct build *b, struct husk_error *err)
{
	struct statvfs fs;
	if (statvfs(b->store.kernels, &fs) < 0)
		return error_errno(err, "look at %s", b->store.kernels);
	unsigned long long available = (unsigned long long)fs.f_bavail * fs.f_frsize;
	if (available >= SPACE_NEEDED)
		return 0;
	return error_set(err, -ENOSPC, "a kernel build needs %.0f GiB for a while, and %s has %.1f GiB free",
		(double)SPACE_NEEDED / (1 << 30), b->store.kernels, (double)available / (1 << 30));
}

static int unpack_source(struct build *b, struct husk_error *err)
{
	CLEANUP_FREE char *deb = NULL;
	int rc = kernel_package_download(&b->store, SOURCE_PACKAGE, &deb, err);
	if (rc < 0)
		return rc;
	kernel_store_progress(&b->store, "unpacking %s", deb);
	const char *dpkg_argv[] = {"dpkg-deb", "-x", deb, "package", NULL};
	struct tool dpkg = {
		.argv = dpkg_argv, .package = "dpkg", .directory = b->store.work, .stdin_fd = -1, .stdout_fd = -1};
	const char *tar_argv[] = {"tar", "--no-same-owner", "-xf", "package/usr/src/" SOURCE_PACKAGE ".tar.xz", NULL};
	struct tool tar = {
		.argv = tar_argv, .package = "tar", .directory = b->store.work, .stdin_fd = -1, .stdout_fd = -1};
	rc = tool_run(&dpkg, NULL, err);
	rc = rc < 0 ? rc : tool_run(&tar, NULL, err);
	b->tree = rc == 0 ? path_join(b->store.work, SOURCE_PACKAGE) : NULL;
	if (rc == 0 && !b->tree)
		return error_set(err, -ENOMEM, "unpack the kernel's source: out of memory");
	return rc;
}

/** Once a minute: how far the compilers are. */
static void tell(void *data)
{
	const struct build *b = data;
	CLEANUP_BUFFER struct buffer text = {0};
	size_t objects = 0;
	if (kernel_store_read(b->log_path, &text, NULL) < 0)
		return;
	for (const char *at = (char *)buffer_bytes(&text); (at = strstr(at, "\n  CC ")); at++)
		objects++;
	kernel_store_progress(&b->store, "compiling, %.0f min, %zu files", minutes(b), objects);
}

/** make @target in the tree with what the recipe fixes, its output to the log. */
static int run_make(struct build *b, const char *jobs, const char *target, struct husk_error *err)
{
	CLEANUP_FREE char *config = path_format("KCONFIG_ALLCONFIG=%s/fragment", b->store.work);
	if (!config)
		return error_set(err, -ENOMEM, "build the kernel: out of memory");
	const char *argv[] = {"env", "-u", "MAKEFLAGS", "-u", "MFLAGS", "-u", "MAKELEVEL", "-u", "MAKEFILES", "-u",
		"KBUILD_OUTPUT", "make", jobs, config, "ARCH=" KERNEL_ARCH, "CROSS_COMPILE=", "LLVM=", "CC=gcc",
		"HOSTCC=gcc", "KCFLAGS=", "KAFLAGS=", "KCPPFLAGS=", "KBUILD_BUILD_USER=husk", "KBUILD_BUILD_HOST=husk",
		"KBUILD_BUILD_VERSION=1", "KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970", "LC_ALL=C", target,
		NULL};
	struct tool tool = {
		.argv = argv,
		.package = "coreutils",
		.directory = b->tree,
		.stdin_fd = -1,
		.stdout_fd = b->log,
		.stderr_too = true,
		.fds = &b->store.lock,
		.n_fds = 1,
		.tick = tell,
		.tick_data = b,
		.tick_ms = TICK_MS,
	};
	struct husk_error why;
	int rc = tool_run(&tool, NULL, &why);
	if (rc == 0)
		return 0;
	CLEANUP_BUFFER struct buffer text = {0};
	char line[300] = "";
	if (kernel_store_read(b->log_path, &text, NULL) == 0)
		kernel_complaint((char *)buffer_bytes(&text), line, sizeof(line));
	return error_set(err, rc, "make %s failed after %.1f min: %s (%s; the log is %s)", target, minutes(b), line,
		why.message, b->log_path);
}

static int configure(struct build *b, struct husk_error *err)
{
	CLEANUP_FREE char *fragment = path_join(b->store.work, "fragment");
	CLEANUP_FREE char *config = path_join(b->tree, ".config");
	CLEANUP_BUFFER struct buffer text = {0};
	if (!fragment || !config)
		return error_set(err, -ENOMEM, "configure the kernel: out of memory");
	kernel_store_progress(&b->store, "configuring");
	int rc = path_write_atomically(fragment, b->recipe.fragment, strlen(b->recipe.fragment), 0644, err);
	rc = rc < 0 ? rc : run_make(b, "-j1", "allnoconfig", err);
	rc = rc < 0 ? rc : kernel_store_read(config, &text, err);
	return rc < 0 ? rc : kernel_recipe_check(b->recipe.fragment, (char *)buffer_bytes(&text), err);
}

static int compile(struct build *b, struct husk_error *err)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	char jobs[24];
	snprintf(jobs, sizeof(jobs), "-j%ld", cpus > 0 ? cpus : 1);
	kernel_store_progress(&b->store, "compiling on %ld processors (about 10 minutes on two); the log is %s",
		cpus > 0 ? cpus : 1, b->log_path);
	return run_make(b, jobs, "bzImage", err);
}

/** Put the kernel together in @target: what the bzImage carries, before its compression, is the ELF file without symbols. */
static int assemble(const struct build *b, const char *target, struct husk_error *err)
{
	static const struct {
		const char *from, *to;
	} files[] = {
		{"arch/x86/boot/compressed/vmlinux.bin", "image"},
		{"arch/x86/boot/bzImage", "bzimage"},
		{".config", "config"},
	};
	CLEANUP_FREE char *modules = path_join(target, "modules");
	CLEANUP_FREE char *load = path_join(target, "load");
	CLEANUP_FREE char *image = path_join(target, "image");
	if (!modules || !load || !image)
		return error_set(err, -ENOMEM, "assemble the kernel: out of memory");
	int rc = path_make_directories(modules, 0755, err);
	for (size_t i = 0; i < ARRAY_SIZE(files) && rc == 0; i++) {
		CLEANUP_FREE char *from = path_join(b->tree, files[i].from);
		CLEANUP_FREE char *to = path_join(target, files[i].to);
		if (!from || !to)
			return error_set(err, -ENOMEM, "assemble the kernel: out of memory");
		if (rename(from, to) < 0 || chmod(to, 0644) < 0)
			rc = error_errno(err, "keep the kernel's %s", files[i].from);
	}
	rc = rc < 0 ? rc : path_write_atomically(load, "", 0, 0644, err);
	return rc < 0 ? rc : kernel_image_check(image, err);
}

/** Build the kernel of the recipe, whose id is not there yet. The log is removed when all went well. */
static int build(struct build *b, struct husk_error *err)
{
	CLEANUP_FREE char *target = path_join(b->store.work, "kernel");
	b->log_path = path_join(b->store.kernels, "build.log");
	if (!target || !b->log_path)
		return error_set(err, -ENOMEM, "build the kernel: out of memory");
	int rc = check_space(b, err);
	rc = rc < 0 ? rc : unpack_source(b, err);
	if (rc < 0)
		return rc;
	b->log = open(b->log_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
	if (b->log < 0)
		return error_errno(err, "open %s", b->log_path);
	rc = configure(b, err);
	rc = rc < 0 ? rc : compile(b, err);
	rc = rc < 0 ? rc : assemble(b, target, err);
	rc = rc < 0 ? rc : kernel_store_commit(&b->store, target, b->id, err);
	if (rc == 0)
		unlink(b->log_path);
	return rc;
}

int kernel_build(const char *home, const char *more, int progress_fd, char **id, struct husk_error *err)
{
	CLEANUP(build_free) struct build b = {.store = KERNEL_STORE_INIT(progress_fd), .log = -1};
	struct utsname machine;
	uname(&machine);
	if (strcmp(machine.machine, KERNEL_ARCH) != 0)
		return error_set(err, -ENOTSUP, "the tuned kernel is for " KERNEL_ARCH ", and this machine is %s",
			machine.machine);
	clock_gettime(CLOCK_MONOTONIC, &b.begun);
	int rc = check_tools(err);
	rc = rc < 0 ? rc : read_recipe(&b.recipe, more, err);
	rc = rc < 0 ? rc : kernel_recipe_id(&b.recipe, &b.id, err);
	rc = rc < 0 ? rc : kernel_store_begin(&b.store, home, "build", err);
	if (rc < 0)
		return rc;
	CLEANUP_FREE char *place = path_join(b.store.kernels, b.id);
	CLEANUP_FREE char *own_id = strdup(b.id);
	if (!place || !own_id)
		return error_set(err, -ENOMEM, "build the kernel: out of memory");
	if (access(place, F_OK) == 0) {
		kernel_store_progress(&b.store, "there already: %s", b.id);
	} else {
		if ((rc = build(&b, err)) < 0)
			return rc;
		kernel_store_progress(&b.store, "ready after %.1f min: %s", minutes(&b), b.id);
	}
	if (id)
		*id = steal_pointer(&own_id);
	return 0;
}
