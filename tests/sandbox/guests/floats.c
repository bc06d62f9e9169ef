/* SPDX-License-Identifier: Apache-2.0 */
/* floats.c - a sandbox program for the tests: floating point, and the state of the vector registers. Not for hosts
 * that interpret guest code. */
#include <husk/sandbox.h>

static float echo_f32(float value)
{
	return value;
}
HUSK_EXPORT(f32, echo_f32, f32);

static double echo_f64(double value)
{
	return value;
}
HUSK_EXPORT(f64, echo_f64, f64);

/** a * b + c */
static double fused(double a, double b, double c)
{
	return a * b + c;
}
HUSK_EXPORT(f64, fused, f64, f64, f64);

/** More than the vector registers for arguments: the sum. */
static double sum_of_ten(
	double a, double b, double c, double d, double e, double f, double g, double h, double i, float j)
{
	return a + b + c + d + e + f + g + h + i + (double)j;
}
HUSK_EXPORT(f64, sum_of_ten, f64, f64, f64, f64, f64, f64, f64, f64, f64, f32);

/** "%.3f" of the value. */
static const char *text_of(double value)
{
	static char text[400];

	husk_snprintf(text, sizeof(text), "%.3f", value);
	return text;
}
HUSK_EXPORT(string, text_of, f64);

/** Divide: infinite for b = 0, no fault, while the exception is masked. */
static double divide(double a, double b)
{
	return a / b;
}
HUSK_EXPORT(f64, divide, f64, f64);

/** Unmask the exceptions of SSE and divide by zero: vector 19, but on emulated CPUs without such exceptions (QEMU TCG). */
static double divide_unmasked(double a)
{
	uint32_t mxcsr = 0;
	double zero = 0;

	__asm__ volatile("ldmxcsr %1; divsd %2, %0" : "+x"(a) : "m"(mxcsr), "m"(zero));
	return a;
}
HUSK_EXPORT(f64, divide_unmasked, f64);

/** Leave @value in xmm15 and in the x87's first register, and set the rounding of both units: state that a restore takes back.
 *  The functions in between must not use them, and do not. */
static void set_state(double value, uint32_t mxcsr, uint32_t x87_control)
{
	uint16_t control = (uint16_t)x87_control;

	__asm__ volatile("movsd %0, %%xmm15; fninit; fldl %0; ldmxcsr %1; fldcw %2"
			 :
			 : "m"(value), "m"(mxcsr), "m"(control)
			 : "memory");
}
HUSK_EXPORT(void, set_state, f64, u32, u32);

static double xmm15(void)
{
	double value;

	__asm__ volatile("movsd %%xmm15, %0" : "=m"(value));
	return value;
}
HUSK_EXPORT(f64, xmm15);

static double x87_top(void)
{
	double value;

	__asm__ volatile("fstl %0" : "=m"(value));
	return value;
}
HUSK_EXPORT(f64, x87_top);

/** mxcsr, and the x87's control word in the upper half. */
static uint64_t controls(void)
{
	uint32_t mxcsr;
	uint16_t control;

	__asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(mxcsr), "=m"(control));
	return (uint64_t)control << 32 | mxcsr;
}
HUSK_EXPORT(u64, controls);
