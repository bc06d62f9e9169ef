/* SPDX-License-Identifier: Apache-2.0 */
/* poweroff.c - an init that says when it began and ends the machine: the floor that a cold start is measured against */
#include <stdio.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
	struct timespec since_boot;
	clock_gettime(CLOCK_BOOTTIME, &since_boot);
	dprintf(1, "init at %ld.%06ld\n", (long)since_boot.tv_sec, since_boot.tv_nsec / 1000);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
