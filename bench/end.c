/* SPDX-License-Identifier: Apache-2.0 */
/* end.c - an init that restarts the machine at once: where a boot to init ends, on machines with and without ACPI */
#include <sys/reboot.h>
#include <unistd.h>

int main(void)
{
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
