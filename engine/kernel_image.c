/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_image.c - the ELF kernel inside a bzImage
 *
 * Theory of Operation: a bzImage's header (Linux x86 boot protocol 2.08) says where the compressed kernel lies. Its four
 * last bytes are the unpacked length, which the decompressors do not want to see. The result is of use when it carries the
 * Xen note PHYS32_ENTRY, the PVH entry point that QEMU and other VMMs start such a file at.
 */
#include "base/bytes.h"
#include "base/fd.h"
#include "engine/kernel.h"
#include "engine/tool.h"

#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SETUP_SECTS 0x1f1
#define SETUP_MAGIC 0x202 /* "HdrS" */
#define SETUP_VERSION 0x206
#define PAYLOAD_OFFSET 0x248
#define PAYLOAD_LENGTH 0x24c
#define KERNEL_MAX (256u << 20)
#define XEN_ELFNOTE_PHYS32_ENTRY 18

static const struct compression {
	uint8_t magic[4];
	const char *tool, *package;
} compressions[] = {
	{{0x02, 0x21, 0x4c, 0x18}, "lz4", "lz4"}, /* the legacy frame */
	{{0x28, 0xb5, 0x2f, 0xfd}, "zstd", "zstd"},
	{{0xfd, '7', 'z', 'X'}, "xz", "xz-utils"},
};

/** A gzip stream's first two bytes are its magic, the others vary. */
static const struct compression gzip = {{0}, "gzip", "gzip"};

static int read_file(const char *path, struct buffer *b, struct husk_error *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc = fd < 0 ? -errno : fd_read_to_end(fd, b, KERNEL_MAX);
	return rc < 0 ? error_set(err, rc, "read %s: %s", path, strerror(-rc)) : 0;
}

/** The compressed kernel in the bzImage @b, without the length behind it; NULL when it is none. */
static const uint8_t *find_payload(const struct buffer *b, size_t *size)
{
	const uint8_t *image = buffer_bytes(b);
	if (b->size < 0x250 || memcmp(image + SETUP_MAGIC, "HdrS", 4) != 0 || get_le16(image + SETUP_VERSION) < 0x208)
		return NULL;
	size_t setup = ((image[SETUP_SECTS] ? image[SETUP_SECTS] : 4) + 1u) * 512;
	size_t start = setup + get_le32(image + PAYLOAD_OFFSET), length = get_le32(image + PAYLOAD_LENGTH);
	if (length < 8 || start > b->size || length > b->size - start)
		return NULL;
	*size = length - 4;
	return image + start;
}

static const struct compression *find_compression(const uint8_t *payload)
{
	for (size_t i = 0; i < ARRAY_SIZE(compressions); i++)
		if (memcmp(payload, compressions[i].magic, 4) == 0)
			return &compressions[i];
	return payload[0] == 0x1f && payload[1] == 0x8b ? &gzip : NULL;
}

static size_t align4(size_t n)
{
	return (n + 3) & ~(size_t)3;
}

/** True when the notes [at, end) hold the PVH entry. */
static bool notes_have_pvh(const uint8_t *at, const uint8_t *end)
{
	while ((size_t)(end - at) >= sizeof(Elf64_Nhdr)) {
		size_t name = get_le32(at), descriptor = get_le32(at + 4),
		       left = (size_t)(end - at) - sizeof(Elf64_Nhdr);
		if (name > left || descriptor > left || align4(name) + align4(descriptor) > left)
			return false;
		if (get_le32(at + 8) == XEN_ELFNOTE_PHYS32_ENTRY && name == 4 &&
			memcmp(at + sizeof(Elf64_Nhdr), "Xen", 4) == 0)
			return true;
		at += sizeof(Elf64_Nhdr) + align4(name) + align4(descriptor);
	}
	return false;
}

static bool elf_has_pvh(const uint8_t *elf, size_t size)
{
	Elf64_Ehdr header;
	if (size < sizeof(header) || memcmp(elf, ELFMAG, SELFMAG) != 0 || elf[EI_CLASS] != ELFCLASS64)
		return false;
	memcpy(&header, elf, sizeof(header));
	for (size_t i = 0; i < header.e_phnum; i++) {
		Elf64_Phdr segment;
		uint64_t at = header.e_phoff + i * sizeof(segment);
		if (header.e_phentsize != sizeof(segment) || header.e_phoff > size || at > size - sizeof(segment))
			return false;
		memcpy(&segment, elf + at, sizeof(segment));
		if (segment.p_type != PT_NOTE || segment.p_offset > size || segment.p_filesz > size - segment.p_offset)
			continue;
		if (notes_have_pvh(elf + segment.p_offset, elf + segment.p_offset + segment.p_filesz))
			return true;
	}
	return false;
}

static bool file_has_pvh(int fd)
{
	struct stat st;
	if (fstat(fd, &st) < 0 || st.st_size <= 0)
		return false;
	void *elf = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (elf == MAP_FAILED)
		return false;
	bool has = elf_has_pvh(elf, (size_t)st.st_size);
	munmap(elf, (size_t)st.st_size);
	return has;
}

int kernel_image_unpack(const char *from, const char *to, struct husk_error *err)
{
	CLEANUP_BUFFER struct buffer image = {0};
	int rc = read_file(from, &image, err);
	if (rc < 0)
		return rc;
	size_t size;
	const uint8_t *payload = find_payload(&image, &size);
	const struct compression *how = payload ? find_compression(payload) : NULL;
	if (!how)
		return error_set(err, -ENOTSUP, "%s: not a bzImage of a known compression", from);

	CLEANUP_FD int in = memfd_create("kernel", MFD_CLOEXEC);
	rc = in < 0 ? -errno : fd_write_all(in, payload, size);
	if (rc < 0 || lseek(in, 0, SEEK_SET) < 0)
		return error_set(err, rc < 0 ? rc : -EIO, "copy the compressed kernel of %s", from);
	CLEANUP_FD int out = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (out < 0)
		return error_errno(err, "write %s", to);
	const char *argv[] = {how->tool, "-dc", NULL};
	struct tool tool = {.argv = argv, .package = how->package, .stdin_fd = in, .stdout_fd = out};
	rc = tool_run(&tool, NULL, err);
	if (rc == 0 && !file_has_pvh(out))
		rc = error_set(err, -ENOTSUP, "%s: the kernel in it has no PVH entry", from);
	if (rc < 0)
		unlink(to);
	return rc;
}

int kernel_image_check(const char *path, struct husk_error *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, "open %s", path);
	return file_has_pvh(fd) ? 0 : error_set(err, -ENOTSUP, "%s is no ELF kernel with a PVH entry", path);
}
