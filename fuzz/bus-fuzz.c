/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bus-fuzz.c - libFuzzer target: bytes as windows on a bus and accesses to it, and to the machine's own ports
 *
 * Theory of operation: one bus gets windows wherever the program says; each remembers what it was asked, and every access is held
 * against a search through a plain list. Another bus is the machine's ports, with its serial port and its power registers, that
 * the program drives as a guest does, while the host's side sends bytes and events.
 *
 * Without libFuzzer: replay.c. With it, in bash:
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Iinclude -o bus-fuzz fuzz/bus-fuzz.c \
 *     vmm/machine/kvm/{bus,power,serial}.c base/error.c && ./bus-fuzz -max_len=512 fuzz/corpus/bus
 */
#include "base/cleanup.h"
#include "fuzz/fuzz.h"
#include "vmm/machine/arch/x86_64/layout.h"
#include "vmm/machine/kvm/bus.h"
#include "vmm/machine/kvm/power.h"
#include "vmm/machine/kvm/serial.h"

#include <string.h>

#define STEPS 256

static struct {
	struct program program;
	struct bus bus, ports;
	struct serial serial;
	struct power power;
	unsigned n;
	struct {
		uint64_t base, size;
	} windows[BUS_WINDOWS_MAX]; /* as they were added */
	void *asked; /* the window that answered, or NULL */
	uint64_t offset;
	unsigned width;
	uint64_t taken; /* bytes that the serial port let out */
} f;

static void on_access(void *data, uint64_t offset, unsigned n)
{
	must(!f.asked, "two windows for one access");
	f.asked = data;
	f.offset = offset;
	f.width = n;
}

static void window_read(void *data, uint64_t offset, void *bytes, unsigned n)
{
	on_access(data, offset, n);
	memset(bytes, 0x5a, n);
}

static void window_write(void *data, uint64_t offset, const void *bytes, unsigned n)
{
	on_access(data, offset, n);
}

static const struct bus_ops window_ops = {.read = window_read, .write = window_write};

/** An address near something: small, near 4 GiB, near the end, or any. */
static uint64_t take_address(void)
{
	uint8_t how = program_byte(&f.program);
	uint64_t low = program_take(&f.program, 1 + (how >> 2 & 1));
	static const uint64_t bases[] = {0, 0xfffffff0u, UINT64_MAX - 0xff};
	return (how & 3) == 3 ? program_take(&f.program, 8) : bases[how & 3] + low;
}

static void add_window(void)
{
	struct husk_error err;
	uint64_t base = take_address(), size = take_address(), last = base + (size - 1);
	bool fits = size && last >= base && f.n < BUS_WINDOWS_MAX;
	for (unsigned i = 0; i < f.n; i++)
		if (base <= f.windows[i].base + (f.windows[i].size - 1) && f.windows[i].base <= last)
			fits = false;
	int rc = bus_add(&f.bus, base, size, &window_ops, &f.windows[f.n % BUS_WINDOWS_MAX], &err);
	must((rc == 0) == fits, "a window that is taken, or not, and should not, or should");
	if (fits) {
		f.windows[f.n].base = base;
		f.windows[f.n].size = size;
		f.n++;
	}
}

static void access_bus(void)
{
	uint64_t address = take_address(), unclaimed = f.bus.unclaimed;
	unsigned how = program_byte(&f.program), n = how % 16;
	uint8_t bytes[17];
	void *expected = NULL;
	for (unsigned i = 0; i < f.n && n && n <= BUS_ACCESS_MAX; i++)
		if (address >= f.windows[i].base && address - f.windows[i].base < f.windows[i].size &&
			f.windows[i].size - (address - f.windows[i].base) >= n)
			expected = &f.windows[i];
	memset(bytes, 0x77, sizeof(bytes));
	f.asked = NULL;
	if (how & 0x80)
		bus_write(&f.bus, address, bytes, n);
	else
		bus_read(&f.bus, address, bytes, n);
	must(f.asked == expected && bytes[n] == 0x77, "the wrong window");
	must(f.bus.unclaimed == unclaimed + !expected, "accesses to nobody are counted");
	if (!expected) {
		for (unsigned i = 0; i < n && !(how & 0x80); i++)
			must(bytes[i] == 0xff, "nobody reads as ones");
		return;
	}
	must(f.width == n && f.offset == address - ((uint64_t *)expected)[0], "an access at another place");
	for (unsigned i = 0; i < n && !(how & 0x80); i++)
		must(bytes[i] == 0x5a, "a read that does not fill all of it");
}

/** A guest's access to a port; a read fills every byte. */
static void access_ports(void)
{
	static const uint16_t ports[] = {X86_PORT_SERIAL, X86_PORT_I8042, X86_PORT_SLEEP_CONTROL};
	uint8_t how = program_byte(&f.program);
	uint16_t port =
		how & 0x40 ? (uint16_t)program_take(&f.program, 2) : (uint16_t)(ports[how % 3] + (how >> 2 & 7));
	unsigned n = 1u << program_byte(&f.program) % 4;
	uint8_t first[9], second[9];
	memset(first, 0, sizeof(first));
	memset(second, 0xff, sizeof(second));
	for (unsigned i = 0; i < n && how & 0x80; i++)
		first[i] = program_byte(&f.program);
	if (how & 0x80)
		bus_write(&f.ports, port, first, n);
	else {
		struct serial serial = f.serial; /* a read may change what the next one gives */
		struct power power = f.power;
		bus_read(&f.ports, port, first, n);
		f.serial = serial;
		f.power = power;
		bus_read(&f.ports, port, second, n);
		must(memcmp(first, second, n) == 0, "a read that leaves bytes as they were");
		must(first[n] == 0 && second[n] == 0xff, "a read of more than was asked");
	}
	must(f.serial.n <= SERIAL_FIFO && f.serial.first < SERIAL_FIFO, "a FIFO out of its bounds");
}

static void from_host(void)
{
	uint8_t bytes[2 * SERIAL_FIFO] = {0}, n = program_byte(&f.program) % sizeof(bytes);
	unsigned before = f.serial.n;
	size_t taken = serial_input(&f.serial, bytes, n);
	must(taken <= n && f.serial.n == before + taken && f.serial.n <= SERIAL_FIFO, "input beyond the FIFO");
}

static void event(void)
{
	power_raise(&f.power, program_byte(&f.program));
}

static void take_output(void *data, const void *bytes, size_t n)
{
	volatile uint8_t sum = 0;
	for (size_t i = 0; i < n; i++)
		sum = (uint8_t)(sum + ((const uint8_t *)bytes)[i]);
	f.taken += n;
}

static void nothing(void *data)
{
}

static void (*const steps[])(void) = {add_window, access_bus, access_bus, access_ports, access_ports, from_host, event};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct husk_error err;
	memset(&f, 0, sizeof(f));
	f.program = (struct program){data, data + size};
	serial_init(&f.serial, take_output, nothing, NULL);
	f.power = (struct power){.off = nothing, .reset = nothing, .interrupt = nothing};
	must(bus_add(&f.ports, X86_PORT_SERIAL, SERIAL_PORTS, &serial_ops, &f.serial, &err) == 0 &&
			power_connect(&f.power, &f.ports, &err) == 0,
		"no ports");
	for (unsigned i = 0; i < STEPS && f.program.at < f.program.end; i++)
		steps[program_byte(&f.program) % ARRAY_SIZE(steps)]();
	return 0;
}
