/* SPDX-License-Identifier: Apache-2.0 */
/*
 * basic_faults.c - the part of basic.c that goes wrong: faults, privileged instructions, ports, endless loops
 *
 * Each function says what it does; what comes of it is for the tests to know. They run at privilege level 0 of a CPU
 * that they have to themselves, so much of what they do is allowed.
 */
#include <husk/sandbox.h>

/** Call itself without end, until the stack is used up: a page fault in the guard. */
static uint64_t recurse(uint64_t n)
{
	volatile char here[256];

	here[n % sizeof(here)] = (char)n;
	if (n == UINT64_MAX) /* keeps the compiler from a warning, and is out of reach */
		return 0;
	return recurse(n + 1) + (uint64_t)here[0];
}
HUSK_EXPORT(u64, recurse, u64);

/** a / b: vector 0 for b = 0. */
static int32_t divide(int32_t a, int32_t b)
{
	int32_t quotient, rest;

	__asm__ volatile("cltd; idivl %3" : "=a"(quotient), "=&d"(rest) : "a"(a), "rm"(b));
	return quotient + (rest & 0);
}
HUSK_EXPORT(i32, divide, i32, i32);

/** An invalid opcode: vector 6. */
static void ud2(void)
{
	__builtin_trap();
}
HUSK_EXPORT(void, ud2);

/** Read 8 bytes at an address. */
static uint64_t peek(uint64_t at)
{
	return *(volatile uint64_t *)at;
}
HUSK_EXPORT(u64, peek, u64);

/** Write 8 bytes at an address: 0 for a null write. */
static void poke(uint64_t at, uint64_t value)
{
	*(volatile uint64_t *)at = value;
}
HUSK_EXPORT(void, poke, u64, u64);

static const uint64_t constant = 42;

/** Write to the program's code. */
static void write_code(void)
{
	void (*volatile code)(void) = ud2;

	*(volatile unsigned char *)(uintptr_t)code = 0x90;
}
HUSK_EXPORT(void, write_code);

/** Write to a constant. */
static void write_constant(void)
{
	*(volatile uint64_t *)(uintptr_t)&constant = 43;
}
HUSK_EXPORT(void, write_constant);

/** Run an instruction that lies in data: page fault, error code 0x11. */
static void run_data(void)
{
	static unsigned char code[] = {0xc3};

	((void (*)(void))(uintptr_t)code)();
}
HUSK_EXPORT(void, run_data);

/** Run an instruction that lies on the stack. */
static void run_stack(void)
{
	volatile unsigned char code[16] = {0xc3};

	((void (*)(void))(uintptr_t)code)();
}
HUSK_EXPORT(void, run_stack);

/** Smash the stack: aborts. */
static void smash_stack(uint64_t n)
{
	char here[16];

	memset((void *)(uintptr_t)(volatile char *)here, 'x', n);
	__asm__ volatile("" : : "r"(here) : "memory");
}
HUSK_EXPORT(void, smash_stack, u64);

/** Read a control register, which is allowed at privilege level 0: 0, 3 or 4. */
static uint64_t read_cr(uint32_t which)
{
	uint64_t value = 0;

	if (which == 0)
		__asm__ volatile("mov %%cr0, %0" : "=r"(value));
	else if (which == 3)
		__asm__ volatile("mov %%cr3, %0" : "=r"(value));
	else
		__asm__ volatile("mov %%cr4, %0" : "=r"(value));
	return value;
}
HUSK_EXPORT(u64, read_cr, u32);

/** Write the same three, or 8. */
static void write_cr(uint32_t which, uint64_t value)
{
	if (which == 0)
		__asm__ volatile("mov %0, %%cr0" : : "r"(value) : "memory");
	else if (which == 3)
		__asm__ volatile("mov %0, %%cr3" : : "r"(value) : "memory");
	else if (which == 8)
		__asm__ volatile("mov %0, %%cr8" : : "r"(value) : "memory");
	else
		__asm__ volatile("mov %0, %%cr4" : : "r"(value) : "memory");
}
HUSK_EXPORT(void, write_cr, u32, u64);

/** Write a model-specific register. */
static void write_msr(uint32_t which, uint64_t value)
{
	__asm__ volatile("wrmsr" : : "c"(which), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}
HUSK_EXPORT(void, write_msr, u32, u64);

/** Read one. */
static uint64_t read_msr(uint32_t which)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(which));
	return (uint64_t)high << 32 | low;
}
HUSK_EXPORT(u64, read_msr, u32);

/** Stop the CPU until an interrupt, which never comes. */
static void halt(void)
{
	__asm__ volatile("hlt");
}
HUSK_EXPORT(void, halt);

/** Let interrupts in, of which there are none, and halt. */
static void halt_open(void)
{
	__asm__ volatile("sti; hlt");
}
HUSK_EXPORT(void, halt_open);

/** Load an interrupt descriptor table of nothing and fault: the CPU shuts down. */
static void triple_fault(void)
{
	struct {
		uint16_t limit;
		uint64_t at;
	} __attribute__((packed)) none = {0, 0};

	__asm__ volatile("lidt %0; ud2" : : "m"(none));
}
HUSK_EXPORT(void, triple_fault);

/** A breakpoint: vector 3. */
static void breakpoint(void)
{
	__asm__ volatile("int3");
}
HUSK_EXPORT(void, breakpoint);

/** Write 4 bytes to a port. */
static void port_out(uint32_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"((uint16_t)port));
}
HUSK_EXPORT(void, port_out, u32, u32);

/** Write one byte to a port: 0xf0 is that of the library's exception stubs. */
static void port_out_byte(uint32_t port, uint32_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"((uint8_t)value), "Nd"((uint16_t)port));
}
HUSK_EXPORT(void, port_out_byte, u32, u32);

/** Read 4 bytes from a port. */
static uint32_t port_in(uint32_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"((uint16_t)port));
	return value;
}
HUSK_EXPORT(u32, port_in, u32);

/** Write @n bytes of the program to a port by one string instruction. */
static void port_out_string(uint32_t port, uint64_t n)
{
	const void *from = &constant;

	__asm__ volatile("rep outsb" : "+S"(from), "+c"(n) : "d"((uint16_t)port) : "memory");
}
HUSK_EXPORT(void, port_out_string, u32, u64);

/** Make page tables that map what is no memory, and read @n bytes of that by one string instruction. */
static void read_nowhere(uint64_t n)
{
	static uint64_t tables[3][512] __attribute__((aligned(4096)));
	const uint64_t nowhere = 0x40000000, below = 1, large = 1 << 7, rights = 3;
	const void *from = (const void *)(below << 39);
	uint64_t cr3 = read_cr(3);

	tables[0][0] = (cr3 + 4096) | rights; /* as they were: the host makes this one second */
	tables[0][below] = (uint64_t)(uintptr_t)tables[1] | rights;
	tables[1][0] = (uint64_t)(uintptr_t)tables[2] | rights;
	tables[2][0] = nowhere | large | rights;
	write_cr(3, (uint64_t)(uintptr_t)tables);
	__asm__ volatile("rep lodsb" : "+S"(from), "+c"(n) : : "rax", "memory");
}
HUSK_EXPORT(void, read_nowhere, u64);

/** Never return. */
static void spin(void)
{
	for (;;)
		__asm__ volatile("pause");
}
HUSK_EXPORT(void, spin);

/** Overwrite everything from data's start to the heap's end, its own stack excepted. */
static void scribble(uint32_t value)
{
	const struct sandbox_range data = husk_info()->data, heap = husk_info()->heap;

	for (uint64_t at = heap.at; at < heap.at + heap.size; at += 8)
		*(volatile uint64_t *)at = 0x0101010101010101 * (uint8_t)value;
	for (uint64_t at = data.at; at < data.at + data.size; at += 8)
		*(volatile uint64_t *)at = 0x0101010101010101 * (uint8_t)value;
}
HUSK_EXPORT(void, scribble, u32);
