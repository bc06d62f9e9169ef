/* SPDX-License-Identifier: Apache-2.0 */
/* config-test.c - the envelope of husk-vmm reads back, owns its descriptors, and refuses what is wrong */
#include "vmm/config.h"

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/tlv.h"
#include "tests/tap.h"

#include <fcntl.h>
#include <sys/mman.h>

static void begin(struct buffer *b)
{
	tlv_begin(b, VMM_MAGIC, VMM_VERSION);
	tlv_put_string(b, VMM_ID, "0123456789ab");
	tlv_put_u32(b, VMM_MACHINE, VMM_MACHINE_QEMU);
	tlv_put_u64(b, VMM_MEMORY, 512 << 20);
	tlv_put_u32(b, VMM_CPUS, 1);
}

static int read_back(struct buffer *b, struct vmm_config *c, struct husk_error *err)
{
	int fd = memfd_create("envelope", MFD_CLOEXEC);
	tlv_seal(b);
	fd_write_all(fd, buffer_bytes(b), b->size);
	int rc = vmm_config_read(fd, c, err);
	buffer_free(b);
	return rc;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static int some_fd(void)
{
	return open("/dev/null", O_RDONLY);
}

static void test_whole(void)
{
	struct buffer b = {0};
	struct vmm_config c;
	struct husk_error err = {0};
	int kernel = some_fd(), low = some_fd(), high = some_fd(), in = some_fd();

	begin(&b);
	tlv_put_u32(&b, VMM_KERNEL_FD, (uint32_t)kernel);
	tlv_put_u32(&b, VMM_LAYER_FD, (uint32_t)low);
	tlv_put_u32(&b, VMM_LAYER_FD, (uint32_t)high);
	tlv_put_u32(&b, VMM_STDIN_FD, (uint32_t)in);
	tlv_put(&b, VMM_EXEC, "exec", 4);
	tlv_put_u64(&b, VMM_TIMEOUT_MS, 1500);
	tlv_put_u32(&b, VMM_LIFETIME, 1);
	CHECK(read_back(&b, &c, &err) == 0, "an envelope is read");
	CHECK_STRING(c.id, "0123456789ab", "strings");
	CHECK(c.memory == 512 << 20 && c.cpus == 1 && c.timeout_ms == 1500 && c.detached, "numbers");
	CHECK(c.kernel_fd == kernel && c.n_layers == 2 && c.layer_fd[0] == low && c.layer_fd[1] == high, "descriptors");
	CHECK(c.stdio_fd[0] == in && c.stdio_fd[1] == -1 && c.qmp_fd == -1, "absent ones are -1");
	CHECK(c.exec_size == 4 && memcmp(c.exec, "exec", 4) == 0, "the workload's description");
	CHECK(fcntl(kernel, F_GETFD) == FD_CLOEXEC, "descriptors are made CLOEXEC");
	vmm_config_free(&c);
	CHECK(!is_open(kernel) && !is_open(low) && !is_open(high) && !is_open(in), "and closed with the struct");
}

static void test_refusals(void)
{
	struct buffer b = {0};
	struct vmm_config c;
	struct husk_error err = {0};

	begin(&b);
	tlv_put_u32(&b, 999, 1);
	CHECK(read_back(&b, &c, &err) == -EINVAL && strstr(err.message, "unknown entry 999"), "an unknown entry");
	begin(&b);
	tlv_put_u32(&b, VMM_CPUS, 2);
	CHECK(read_back(&b, &c, &err) == -EINVAL && strstr(err.message, "twice"), "an entry that occurs twice");
	begin(&b);
	tlv_put_u32(&b, VMM_LOG_FD, 700);
	CHECK(read_back(&b, &c, &err) == -EBADF, "a descriptor that is not open");
	int fd = some_fd();
	begin(&b);
	tlv_put_u32(&b, VMM_LOG_FD, (uint32_t)fd);
	tlv_put_u32(&b, VMM_KERNEL_FD, (uint32_t)fd);
	CHECK(read_back(&b, &c, &err) == -EINVAL && strstr(err.message, "twice"), "a descriptor named twice");
	CHECK(!is_open(fd), "what was taken is closed after a refusal");
	begin(&b);
	tlv_put_u32(&b, VMM_LOG_FD, 1);
	CHECK(read_back(&b, &c, &err) == -EINVAL, "a standard stream");
	begin(&b);
	tlv_put_u32(&b, VMM_TIMEOUT_MS, 1);
	CHECK(read_back(&b, &c, &err) == -EINVAL, "a number of the wrong size");
	begin(&b);
	tlv_put_u32(&b, VMM_LIFETIME, 2);
	CHECK(read_back(&b, &c, &err) == -EINVAL, "an unknown lifetime");
	begin(&b);
	tlv_put(&b, VMM_CMDLINE, "a\0b", 3);
	CHECK(read_back(&b, &c, &err) == -EINVAL, "a string with a NUL");
	tlv_begin(&b, VMM_MAGIC, VMM_VERSION);
	CHECK(read_back(&b, &c, &err) == -EINVAL, "an empty envelope");
	tlv_begin(&b, VMM_MAGIC, VMM_VERSION + 1);
	CHECK(read_back(&b, &c, &err) < 0, "another version");
	begin(&b);
	for (int i = 0; i <= VMM_LAYERS_MAX; i++)
		tlv_put_u32(&b, VMM_LAYER_FD, (uint32_t)some_fd());
	CHECK(read_back(&b, &c, &err) == -E2BIG, "more layers than a disk can have");
}

static void test_disks(void)
{
	struct buffer b = {0};
	struct vmm_config c;
	struct husk_error err = {0};
	struct vmm_disk one = {.fd = some_fd(), .read_only = 1, .serial = "exactly-twenty-bytes"};
	struct vmm_disk two = {.fd = some_fd(), .serial = "two"};
	int scratch = some_fd(), link = some_fd();

	begin(&b);
	tlv_put(&b, VMM_DISK, &one, sizeof(one));
	tlv_put(&b, VMM_DISK, &two, sizeof(two));
	tlv_put_u32(&b, VMM_DEVICE_FD, (uint32_t)link);
	CHECK(read_back(&b, &c, &err) == 0 && c.n_disks == 2, "two disks are read");
	CHECK(c.disks[0].fd == one.fd && c.disks[0].read_only && !c.disks[1].read_only, "in their order");
	CHECK_STRING(c.disks[0].serial, "exactly-twenty-bytes", "with their serial numbers");
	CHECK(vmm_config_devices(&c) == 4, "with root and vsock four devices");
	c.scratch_fd = scratch;
	CHECK(vmm_config_devices(&c) == 5, "and five with a scratch disk");
	CHECK(c.n_devices == 1 && c.device_fd[0] == link, "a device's socket");
	vmm_config_free(&c);
	CHECK(!is_open(one.fd) && !is_open(two.fd) && !is_open(link) && !is_open(scratch),
		"all closed with the struct");

	one = (struct vmm_disk){.fd = some_fd(), .serial = "twenty-one bytes long"};
	begin(&b);
	tlv_put(&b, VMM_DISK, &one, sizeof(one));
	CHECK(read_back(&b, &c, &err) == -EINVAL, "a serial number of 21 bytes");
	begin(&b);
	tlv_put(&b, VMM_DISK, &one, sizeof(one) - 1);
	CHECK(read_back(&b, &c, &err) == -EINVAL, "half a disk");
	begin(&b);
	for (int i = 0; i <= VMM_DISKS_MAX; i++) {
		two.fd = some_fd();
		tlv_put(&b, VMM_DISK, &two, sizeof(two));
	}
	CHECK(read_back(&b, &c, &err) == -E2BIG, "more disks than there are slots");
	two.fd = 1;
	begin(&b);
	tlv_put(&b, VMM_DISK, &two, sizeof(two));
	CHECK(read_back(&b, &c, &err) == -EINVAL, "a disk that is a standard stream");
}

static void test_messages(void)
{
	struct vm_message m = {.kind = VM_MESSAGE_OUTCOME, .end = VM_END_EXITED, .value = 255};

	CHECK(vm_message_check(&m), "an exit status of 255 is in range");
	m.value = 256;
	CHECK(!vm_message_check(&m), "256 is not");
	m = (struct vm_message){.kind = VM_MESSAGE_OUTCOME, .end = VM_END_SIGNALED};
	CHECK(!vm_message_check(&m), "no signal has number 0");
	m = (struct vm_message){.kind = VM_MESSAGE_OUTCOME, .end = VM_END_FAILED + 1};
	CHECK(!vm_message_check(&m), "an unknown end");
	m = (struct vm_message){.kind = 15};
	CHECK(!vm_message_check(&m), "an unknown kind");
	m = (struct vm_message){.kind = VM_CONTROL_SIGNAL, .value = 65};
	CHECK(!vm_message_check(&m), "a signal out of range");
	m = (struct vm_message){.kind = VM_MESSAGE_READY};
	memset(m.text, 'x', sizeof(m.text));
	CHECK(!vm_message_check(&m), "a text that does not end");
	vm_message_text(&m, "a%s", "\033[31m\n");
	CHECK_STRING(m.text, "a?[31m?", "a text is made printable");
	CHECK(vm_message_check(&m), "and then passes");
	m.text[0] = '\n';
	CHECK(!vm_message_check(&m), "an unprintable one does not");
}

int main(void)
{
	test_whole();
	test_refusals();
	test_disks();
	test_messages();
	return tap_done();
}
