/* SPDX-License-Identifier: Apache-2.0 */
/* image.c - a program for sandboxes, from its file to what sandboxes share (theory of operation: image.h) */
#include "sandbox/image.h"

#include "base/buffer.h"
#include "base/fd.h"
#include "sandbox/cpu.h"
#include "sandbox/elf_file.h"
#include "sandbox/layout.h"
#include "sandbox/program.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- life ---- */

static struct husk_sandbox_image *image_new(void)
{
	struct husk_sandbox_image *image = calloc(1, sizeof(*image));

	if (!image)
		return NULL;
	image->refs = 1;
	image->fd = -1;
	image->kvm.fd = -1;
	pthread_mutex_init(&image->lock, NULL);
	return image;
}

struct husk_sandbox_image *image_ref(struct husk_sandbox_image *image)
{
	__atomic_add_fetch(&image->refs, 1, __ATOMIC_RELAXED);
	return image;
}

void image_unref(struct husk_sandbox_image *image)
{
	if (!image || __atomic_sub_fetch(&image->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	if (image->ro)
		munmap(image->ro, image->ro_size);
	cleanup_fd(&image->fd);
	kvm_close(&image->kvm);
	pthread_mutex_destroy(&image->lock);
	free(image->exports);
	free(image->imports);
	free(image->by_name);
	free(image->symbols);
	free(image->elf);
	free(image);
}

void husk_sandbox_image_free(struct husk_sandbox_image *image)
{
	image_unref(image);
}

static void cleanup_image(struct husk_sandbox_image **image)
{
	image_unref(*image);
}

/* ---- from the file to the memfd ---- */

static void describe_segments(const struct elf *elf, struct husk_sandbox_image *image)
{
	for (unsigned i = 0; i < elf->n_segments; i++) {
		const struct elf_segment *segment = &elf->segments[i];
		uint64_t at = segment->vaddr & ~(SANDBOX_PAGE - 1);
		image->segments[i] = (struct image_segment){
			.at = SANDBOX_PROGRAM + at,
			.size = page_up(segment->vaddr + segment->memsz) - at,
			.write = segment->write,
			.execute = segment->execute,
		};
	}
	image->n_segments = elf->n_segments;
	image->entry = SANDBOX_PROGRAM + elf->entry;
	image->ro_size = SANDBOX_SUPPORT_SIZE + elf->ro_size;
	image->data_size = elf->data_size;
}

/** Write the memfd, whose pages are zeroes, and read what the program says of itself out of it. */
static int fill(const struct elf *elf, struct husk_sandbox_image *image, struct husk_error *err)
{
	const size_t size = image->ro_size + image->data_size;
	uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, image->fd, 0);

	if (memory == MAP_FAILED)
		return error_errno(err, "map its %zu bytes", size);
	cpu_write_support(memory);
	int rc = elf_lay_out(elf, memory + SANDBOX_SUPPORT_SIZE, SANDBOX_PROGRAM, err);
	if (rc == 0)
		rc = program_read(elf, memory + SANDBOX_SUPPORT_SIZE, image, err);
	munmap(memory, size);
	return rc;
}

/** From here on nobody can change the memfd, and sandboxes can map it copy-on-write. */
static int seal(struct husk_sandbox_image *image, struct husk_error *err)
{
	if (fcntl(image->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return error_errno(err, "seal its memory");
	/* Kernels before 6.7 refuse MAP_SHARED of a memfd that is sealed against writing, even for reading. A private mapping
	 * that is never written shows the same pages. */
	uint8_t *ro = mmap(NULL, image->ro_size, PROT_READ, MAP_PRIVATE, image->fd, 0);
	if (ro == MAP_FAILED)
		return error_errno(err, "map its %zu read-only bytes", (size_t)image->ro_size);
	image->ro = ro;
	return 0;
}

/** Make an image of @bytes, which is taken, also on failure. */
static int build(uint8_t *bytes, size_t n, struct husk_sandbox_image **out, struct husk_error *err)
{
	CLEANUP(cleanup_image) struct husk_sandbox_image *image = image_new();
	struct elf elf;

	if (!image) {
		free(bytes);
		return error_set(err, -ENOMEM, "no memory");
	}
	image->elf = bytes;
	image->elf_size = n;
	int rc = elf_parse(bytes, n, &elf, err);
	if (rc < 0)
		return rc;
	describe_segments(&elf, image);
	image->fd = memfd_create("husk-sandbox-program", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (image->fd < 0 || ftruncate(image->fd, (off_t)(image->ro_size + image->data_size)) < 0)
		return error_errno(err, "make a memfd for it");
	rc = fill(&elf, image, err);
	if (rc == 0)
		rc = program_read_symbols(&elf, image, err);
	if (rc == 0)
		rc = seal(image, err);
	if (rc == 0)
		*out = steal_pointer(&image);
	return rc;
}

static int too_large(size_t n, struct husk_error *err)
{
	return error_set(err, -EFBIG, "it has %zu bytes; %llu MiB are the most", n, IMAGE_FILE_MAX >> 20);
}

int husk_sandbox_image_load_bytes(const void *elf, size_t n, struct husk_sandbox_image **out, struct husk_error *err)
{
	int rc = n > IMAGE_FILE_MAX ? too_large(n, err) : 0;
	uint8_t *copy = rc == 0 ? malloc(n ? n : 1) : NULL;

	if (rc == 0 && !copy)
		rc = error_set(err, -ENOMEM, "no memory for its %zu bytes", n);
	if (rc == 0) {
		if (n)
			memcpy(copy, elf, n);
		rc = build(copy, n, out, err);
	}
	if (rc < 0)
		error_prefix(err, rc, "load a program from memory");
	return rc;
}

static int read_file(const char *path, struct buffer *bytes, struct husk_error *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return error_errno(err, "open it");
	int rc = fd_read_to_end(fd, bytes, IMAGE_FILE_MAX);
	if (rc == -EFBIG)
		return too_large(IMAGE_FILE_MAX + 1, err);
	if (rc < 0)
		return error_set(err, rc, "read it: %s", strerror(-rc));
	return 0;
}

int husk_sandbox_image_load(const char *path, struct husk_sandbox_image **out, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer bytes = {0};
	int rc = read_file(path, &bytes, err);

	if (rc == 0 && bytes.size == 0)
		rc = error_set(err, -ENOEXEC, "it is empty");
	if (rc == 0) {
		size_t n = bytes.size;
		rc = build(steal_pointer(&bytes.data), n, out, err);
	}
	if (rc < 0)
		error_prefix(err, rc, "load the program %s", path);
	return rc;
}

/* ---- what it has ---- */

int husk_sandbox_image_function(const struct husk_sandbox_image *image, size_t index,
	struct husk_sandbox_signature *function, struct husk_error *err)
{
	if (index >= image->n_exports)
		return error_set(
			err, -ENOENT, "the program has no function number %zu, it has %u", index, image->n_exports);
	signature_show(&image->exports[index], function);
	return 0;
}

int husk_sandbox_image_import(const struct husk_sandbox_image *image, size_t index,
	struct husk_sandbox_signature *function, struct husk_error *err)
{
	if (index >= image->n_imports)
		return error_set(err, -ENOENT, "the program needs no function number %zu of the host's, it needs %u",
			index, image->n_imports);
	signature_show(&image->imports[index], function);
	return 0;
}

int image_find_export(const struct husk_sandbox_image *image, const char *name)
{
	unsigned low = 0, high = image->n_exports;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		int order = strcmp(image->exports[image->by_name[middle]].name, name);
		if (order == 0)
			return (int)image->by_name[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return -ENOENT;
}

/* ---- /dev/kvm ---- */

/** Why /dev/kvm did not open, and what helps. */
static const struct {
	int code, as;
	const char *why;
} no_kvm[] = {
	{ENOENT, -ENODEV,
		"there is no /dev/kvm: sandboxes need KVM. Load kvm_intel or kvm_amd; when that fails, switch "
		"virtualisation on in "
		"the firmware, or nested virtualisation when this is a VM itself"},
	{ENODEV, -ENODEV, "/dev/kvm has no KVM behind it: load kvm_intel or kvm_amd"},
	{ENXIO, -ENODEV, "/dev/kvm has no KVM behind it: load kvm_intel or kvm_amd"},
	{EACCES, -EACCES, "/dev/kvm is not for this user: join its group (usually kvm) and log in again"},
	{EPERM, -EACCES,
		"/dev/kvm is not allowed here: let the container or service have this device, readable and writable"},
};

static int open_kvm(struct kvm *kvm, struct husk_error *err)
{
	CLEANUP_FD int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		for (size_t i = 0; i < ARRAY_SIZE(no_kvm); i++)
			if (no_kvm[i].code == errno)
				return error_set(err, no_kvm[i].as, "%s", no_kvm[i].why);
		return error_errno(err, "open /dev/kvm");
	}
	int rc = kvm_open(fd, kvm, err);
	if (rc == 0)
		steal_fd(&fd);
	return rc;
}

int image_kvm(struct husk_sandbox_image *image, const struct kvm **kvm, struct husk_error *err)
{
	int rc = 0;

	pthread_mutex_lock(&image->lock);
	if (image->kvm.fd < 0)
		rc = open_kvm(&image->kvm, err);
	pthread_mutex_unlock(&image->lock);
	if (rc == 0)
		*kvm = &image->kvm;
	return rc;
}
