#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Run husk's devices under a real guest: device-guest.sh DEVICE_TOOL KERNEL MODULES_DIR (lib/modules/VERSION of that kernel)
set -eu
tool=$1 kernel=$2 modules=$3
source=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/modules" "$work/root/dev"
gcc -O2 -D_GNU_SOURCE -static -o "$work/root/init" "$source/device-guest.c"
i=0
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk vsock \
	vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport; do
	file=$(find "$modules" -name "$m.ko")
	[ -n "$file" ] || continue
	cp "$file" "$work/root/modules/$(printf %02d $i).ko"
	i=$((i + 1))
done
(cd "$work/root" && find . | cpio -o -H newc --quiet) >"$work/initrd"
truncate -s 64M "$work/scratch"
head -c 5000001 /dev/urandom >"$work/layer1"
head -c 3000000 /dev/urandom >"$work/layer2"
exec_status=0
timeout 90 "$tool" "$kernel" "$work/initrd" "$work/scratch" "$work/layer1" "$work/layer2" </dev/null >"$work/log" 2>&1 ||
	exec_status=$?
tr -d '\r' <"$work/log"
grep -q '^GUEST done' "$work/log" && ! grep -q '^GUEST not ok' "$work/log" && [ $exec_status = 0 ]
