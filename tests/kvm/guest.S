/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest.S - a guest with no OS, whose first command line letter says what it does; guest-test.c runs it
 *
 * Built twice, as an ELF kernel with a 64-bit entry (-DGUEST_LONG: rsi leads to boot_params) and as one with a PVH entry (32-bit,
 * ebx leads to hvm_start_info). General registers only: it also runs where guest code is interpreted.
 */
#ifdef GUEST_LONG
#define A %rax
#define B %rbx
#define S %rsi
#define D %rdi
	.code64
#else
#define A %eax
#define B %ebx
#define S %esi
#define D %edi
	.section .note.Xen, "a", @note
	.long 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long _start
	.code32
#endif

	.text
	.globl _start
_start:
	cld
#ifdef GUEST_LONG
	mov	0x228(S), %eax /* boot_params.hdr.cmd_line_ptr */
	mov	$stack, %rsp
#else
	mov	24(B), %eax /* hvm_start_info.cmdline_paddr */
	mov	$stack, %esp
#endif
	movb	(A), %al
	cmpb	$'p', %al
	je	say_and_off
	cmpb	$'k', %al
	je	reset_by_keyboard
	cmpb	$'a', %al
	je	reset_by_acpi
	cmpb	$'t', %al
	je	triple_fault
	cmpb	$'h', %al
	je	halt
	cmpb	$'l', %al
	je	loop
	cmpb	$'u', %al
	je	touch_unclaimed
	cmpb	$'v', %al
	je	look_at_slot
	cmpb	$'b', %al
	je	break_device
	cmpb	$'e', %al
	je	echo
	ud2

/* say: the string at S, a byte at a time */
say:
	mov	$0x3f8, %edx
1:	lodsb
	testb	%al, %al
	jz	2f
	outb	%al, %dx
	jmp	1b
2:	ret

say_and_off:
	mov	$hello, S
	call	say
power_off:
	mov	$0x600, %edx
	movb	$0x34, %al /* SLP_EN | S5 << 2 */
	outb	%al, %dx
	jmp	halt

reset_by_keyboard:
	movb	$0xfe, %al
	outb	%al, $0x64
	jmp	halt

reset_by_acpi:
	mov	$0x602, %edx
	movb	$1, %al
	outb	%al, %dx
	jmp	halt

triple_fault:
	lidt	no_idt
	ud2

halt:
	cli
	hlt
	jmp	halt

loop:
	mov	$ready, S
	call	say
1:	jmp	1b

/* Every port that is nobody's, byte, word and long, and addresses all over the hole. */
touch_unclaimed:
	mov	$0x700, %edx
1:	inb	%dx, %al
	outb	%al, %dx
	inw	%dx, %ax
	outw	%ax, %dx
	inl	%dx, %eax
	outl	%eax, %dx
	add	$0x101, %edx
	cmp	$0xff00, %edx
	jb	1b
	mov	$0xc0000000, %edi
1:	movb	(D), %al
	movb	%al, (D)
	movl	(D), %eax
	movl	%eax, 0xffd(D)
	add	$0x1000001, %edi
	cmp	$0xfe000000, %edi
	jb	1b
	jmp	say_and_off

/* Slot 0's magic value and device id; then a slot with no device. */
look_at_slot:
	mov	$0xd0000000, %edi
	cmpl	$0x74726976, (D)
	jne	bad
	cmpl	$2, 4(D)
	jne	bad
	cmpl	$4, 8(D) /* an entropy device */
	jne	bad
	cmpl	$0, 0x1008(D)
	jne	bad
	jmp	say_and_off
bad:
	mov	$wrong, S
	call	say
	jmp	power_off

/* Drive slot 0's queue 0 onto memory that is none. */
break_device:
	mov	$0xd0000000, %edi
	movl	$1, 0x70(D)
	movl	$3, 0x70(D)
	movl	$1, 0x24(D)
	movl	$1, 0x20(D) /* VERSION_1 */
	movl	$11, 0x70(D)
	movl	$0, 0x30(D)
	movl	$16, 0x38(D)
	movl	$0xf0000000, 0x80(D)
	movl	$0xf0001000, 0x90(D)
	movl	$0xf0002000, 0xa0(D)
	movl	$1, 0x44(D)
	movl	$15, 0x70(D)
	testl	$64, 0x70(D) /* DEVICE_NEEDS_RESET */
	jz	bad
	movl	$0, 0x70(D)
	cmpl	$0, 0x70(D)
	jne	bad
	jmp	say_and_off

/* What arrives on the serial port goes back, until a '.'. */
echo:
	mov	$ready, S
	call	say
1:	mov	$0x3fd, %edx
	inb	%dx, %al
	testb	$1, %al
	jz	1b
	mov	$0x3f8, %edx
	inb	%dx, %al
	outb	%al, %dx
	cmpb	$'.', %al
	jne	1b
	jmp	power_off

	.data
hello:	.asciz "hello from the guest\n"
ready:	.asciz "ready\n"
wrong:	.asciz "wrong\n"
no_idt:	.word 0
	.quad 0
	.bss
	.space 4096
stack:
