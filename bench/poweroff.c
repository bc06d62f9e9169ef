/* SPDX-License-Identifier: Apache-2.0 */
/* poweroff.c - an init that does nothing but end the machine: the floor that a cold start is measured against */
#include <sys/reboot.h>
#include <unistd.h>

int main(void)
{
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
