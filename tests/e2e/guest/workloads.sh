#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# workloads.sh - what programs ask of a guest's kernel, tried inside a guest; a line "ok NAME" or "not ok NAME" for each
#
# Each function is one workload, run in a shell of its own with `set -e`: the first command that fails fails it, and its trace
# follows, behind "# ". With names as arguments only those are run.
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# Wait until a command succeeds, for at most half a minute.
soon() {
	for _ in $(seq 300); do eval "$1" && return; sleep 0.1; done
	return 1
}

# Two networks on both sides of this namespace: a bridge on which `left` is, and a pair to `right`.
networks() {
	ip link add br0 type bridge
	ip link set br0 up
	ip addr add 10.9.1.1/24 dev br0
	ip addr add fd09:1::1/64 dev br0 nodad
	for side in left right; do ip netns add $side; ip -n $side link set lo up; done
	ip link add to-left type veth peer name eth0 netns left
	ip link set to-left master br0 up
	ip -n left link set eth0 up
	ip -n left addr add 10.9.1.2/24 dev eth0
	ip -n left addr add fd09:1::2/64 dev eth0 nodad
	ip -n left route add default via 10.9.1.1
	ip -n left route add default via fd09:1::1
	ip link add to-right type veth peer name eth0 netns right
	ip link set to-right up
	ip addr add 10.9.2.1/24 dev to-right
	ip addr add fd09:2::1/64 dev to-right nodad
	ip -n right link set eth0 up
	ip -n right addr add 10.9.2.2/24 dev eth0
	ip -n right addr add fd09:2::2/64 dev eth0 nodad
	ip -n right route add default via fd09:2::1
	echo 1 >/proc/sys/net/ipv4/ip_forward
	echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
}

# right answers each connection with its client's address.
server() {
	ip netns exec right socat TCP-LISTEN:8000,bind=10.9.2.2,fork,reuseaddr SYSTEM:'echo from $SOCAT_PEERADDR' 2>/tmp/socat &
	soon 'ip netns exec right ss -Hltn | grep -q :8000'
}

overlay() {
	mkdir -p /tmp/o && mount -t tmpfs o /tmp/o && cd /tmp/o && mkdir lower upper work merged
	echo below >lower/kept; echo below >lower/gone; mkdir lower/dir; echo x >lower/dir/file
	mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work o merged
	rm merged/gone; echo above >merged/kept; rm -r merged/dir; mkdir merged/dir
	[ "$(cat merged/kept lower/kept)" = "above
below" ]
	[ -c upper/gone ] && [ -z "$(ls merged/dir)" ] && [ ! -e merged/gone ]
}

# An unprivileged overlay in a user namespace, as rootless container engines make it.
user_namespace() {
	setpriv --reuid 1000 --regid 1000 --clear-groups unshare --user --map-root-user --mount --pid --fork --net --uts --ipc --cgroup --time \
		sh -euc 'test $(id -u) = 0 && mount -t tmpfs t /mnt && mkdir /mnt/l /mnt/u /mnt/w /mnt/m
			mount -t overlay -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w,userxattr o /mnt/m && echo hi >/mnt/m/f && hostname inside && test $$ = 1'
}

# crun with overlay, limits, seccomp and a network namespace, in which only the kernel's own tunnels are besides lo: what docker
# and podman do below.
container() {
	rm -rf /tmp/c && mkdir -p /tmp/c && mount -t tmpfs c /tmp/c && cd /tmp/c && mkdir lower lower/bin lower/proc lower/dev lower/sys lower/tmp upper work rootfs
	cp /bin/busybox lower/bin/busybox; ln -s busybox lower/bin/sh
	mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work c rootfs
	cp /test/config.json .
	crun --cgroup-manager=cgroupfs run contained >out
	cat out
	grep -qx 'pid 1' out && grep -qx 'host contained' out && grep -qx 'memory 33554432' out && grep -qx 'pids 16' out
	grep -qx 'seccomp 2' out && grep -Eqx 'links (ip6tnl0 )?lo( sit0)?( tunl0)?' out && grep -qx 'no mkdir' out
}

# Programs beyond memory.max are ended, and beyond pids.max not begun; cpu.max and io.max are taken.
cgroup_limits() {
	mkdir -p /sys/fs/cgroup/limits && cd /sys/fs/cgroup/limits
	echo 24M >memory.max; echo 0 >memory.swap.max; echo '20000 100000' >cpu.max; echo 4 >pids.max
	grep -q '^20000 100000' cpu.max && [ -r io.stat ] && [ -r memory.pressure ]
	! sh -c 'echo $$ >cgroup.procs; exec dd if=/dev/zero of=/dev/null bs=100M count=1' || exit 1
	cat memory.events
	grep -q '^oom_kill [1-9]' memory.events
	echo 100M >memory.max
	! sh -c 'echo $$ >cgroup.procs; for i in 1 2 3 4 5 6; do sleep 30 & done' 2>/tmp/forks || exit 1
	grep -q '^max [1-9]' pids.events
	echo 1 >cgroup.kill
}

nftables_nat() {
	nft -f - <<-'RULES'
	table inet guard {
		chain forward {
			type filter hook forward priority filter; policy accept;
			ct state established,related accept
			ip daddr 10.9.2.2 tcp dport 8001 counter reject with tcp reset
			ip daddr 10.9.2.2 tcp dport 8000 meta l4proto tcp counter log prefix "seen " accept
		}
	}
	table ip nat {
		chain pre { type nat hook prerouting priority dstnat; ip daddr 10.9.1.1 tcp dport 80 dnat to 10.9.2.2:8000; }
		chain post { type nat hook postrouting priority srcnat; oifname "to-right" masquerade; }
	}
	table bridge seen {
		chain in { type filter hook prerouting priority filter; ether type ip counter; }
	}
	RULES
	[ "$(ip netns exec left busybox nc 10.9.1.1 80)" = "from 10.9.2.1" ]
	! ip netns exec left busybox nc 10.9.2.2 8001 || exit 1
	nft list table inet guard
	nft list table inet guard | grep -q 'dport 8001 counter packets [1-9]'
	nft list table bridge seen | grep -q 'counter packets [1-9]'
	# Without masquerade right has no way back to left, and none is found.
	nft delete table ip nat
	! ip netns exec left busybox timeout 1 busybox nc 10.9.2.2 8000 || exit 1
	nft flush ruleset
}

# iptables on nftables with the matches of docker's and of kube-proxy's rules, and the old back end.
iptables_rules() {
	for iptables in iptables-nft iptables-legacy; do
		$iptables -w -t nat -A POSTROUTING -s 10.9.1.0/24 ! -o br0 -m comment --comment x -j MASQUERADE
		$iptables -w -t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 81 -j DNAT --to-destination 10.9.2.2:8000
		$iptables -w -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		$iptables -w -A FORWARD -p tcp -m multiport --dports 22,23 -m limit --limit 1/s -j REJECT --reject-with tcp-reset
		$iptables -w -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
		$iptables -w -A FORWARD -m mark --mark 0x4000/0x4000 -m statistic --mode random --probability 0.5 -j DROP
		[ "$(ip netns exec left busybox nc 10.9.1.1 81)" = "from 10.9.2.1" ]
		$iptables -w -t nat -F; $iptables -w -t mangle -F; $iptables -w -F
	done
	ip6tables-nft -w -t nat -A POSTROUTING -s fd09:1::/64 -j MASQUERADE
	ip6tables-nft -w -t nat -F
	nft flush ruleset
}

ipv6() {
	ip netns exec left ping -6 -c 2 -i 0.2 -W 5 fd09:2::2
	nft add table ip6 nat6
	nft 'add chain ip6 nat6 post { type nat hook postrouting priority srcnat; oifname "to-right" masquerade; }'
	ip netns exec left ping -6 -c 1 -W 5 fd09:2::2
	nft delete table ip6 nat6
}

bpf_programs() {
	bpf load
	mkdir -p /sys/fs/cgroup/mute
	mkfifo /tmp/hold
	bpf deny /sys/fs/cgroup/mute </tmp/hold >/tmp/attached &
	exec 7>/tmp/hold
	soon 'grep -q attached /tmp/attached'
	ping -c 1 -W 5 10.9.2.2
	! sh -c 'echo $$ >/sys/fs/cgroup/mute/cgroup.procs; exec ping -c 1 -W 1 10.9.2.2' || exit 1
}

tunnels() {
	ip tuntap add tap0 mode tap
	ip link add v0 type vxlan id 7 dev br0 dstport 4789 remote 10.9.1.2
	ip link add m0 link to-right type macvlan mode bridge
	ip link add i0 link br0 type ipvlan mode l2
	ip link add link br0 name br0.5 type vlan id 5
	ip link add w0 type wireguard
	ip link add d0 type dummy
	tc qdisc add dev to-right root handle 1: htb default 1
	tc class add dev to-right parent 1: classid 1:1 htb rate 100mbit
	tc qdisc add dev to-left clsact
	tc filter add dev to-left ingress protocol ip u32 match ip dst 10.9.9.9/32 action drop
	tc qdisc del dev to-right root
	ss -tlnp >/dev/null
	for link in tap0 v0 m0 i0 br0.5 w0 d0; do ip link del $link; done
}

fuse() {
	rm -rf /tmp/tree /tmp/tree.sq && mkdir -p /tmp/tree /tmp/fused && cp -a /etc /tmp/tree/
	mksquashfs /tmp/tree /tmp/tree.sq -comp zstd -quiet -no-progress
	squashfuse /tmp/tree.sq /tmp/fused
	diff -r --no-dereference /etc /tmp/fused/etc
	grep -q 'fuse.squashfuse' /proc/mounts
	umount /tmp/fused
}

# Images inside the image: loop devices, and every file system and compression that a layer or a disk may have.
file_systems() {
	cd /tmp && mkdir -p tree/dir mnt && head -c 300000 /bin/bash >tree/dir/file
	for comp in gzip lz4 lzo xz zstd; do
		rm -f image.sq; mksquashfs tree image.sq -comp $comp -quiet -no-progress
		mount -o loop image.sq mnt; cmp tree/dir/file mnt/dir/file; umount mnt
	done
	for comp in '' -zlz4 ; do
		rm -f image.erofs; mkfs.erofs $comp image.erofs tree >/dev/null
		mount -t erofs -o loop image.erofs mnt; cmp tree/dir/file mnt/dir/file; umount mnt
	done
	for type in ext2 ext4; do
		rm -f image.ext; mke2fs -q -t $type -d tree image.ext 32m
		mount -t $type -o loop image.ext mnt; cmp tree/dir/file mnt/dir/file; echo more >mnt/dir/more; umount mnt
	done
	mount -t mqueue mqueue mnt && umount mnt
	mount -t bpf bpf mnt && umount mnt
	mount -t tracefs tracefs mnt && umount mnt
	mount -t hugetlbfs hugetlbfs mnt && umount mnt
}

binaries() {
	mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
	printf ':test:E::huskx::/bin/cat:' >/proc/sys/fs/binfmt_misc/register
	echo hello >/tmp/x.huskx; chmod 755 /tmp/x.huskx
	[ "$(/tmp/x.huskx)" = hello ]
	echo -1 >/proc/sys/fs/binfmt_misc/test
	grep -q . /proc/keys || [ -e /proc/keys ]
	[ -e /proc/sys/kernel/io_uring_disabled ] && [ -e /proc/pressure/memory ]
}

# Every device of the kernel, where a workload has a few. This shell's own cgroup must hold no process before its children's controllers can be switched on.
prepare() {
	mount -t devtmpfs dev /dev
	mkdir -p /sys/fs/cgroup/shell && echo $$ >/sys/fs/cgroup/shell/cgroup.procs
	for controller in memory pids cpu io; do echo +$controller >/sys/fs/cgroup/cgroup.subtree_control; done
}

all='networks server overlay user_namespace container cgroup_limits nftables_nat iptables_rules ipv6 bpf_programs tunnels fuse file_systems binaries'
prepare || echo "not ok prepare"
for name in ${*:-$all}; do
	# Not as the condition itself: there `set -e` would not hold.
	(set -ex; $name) >/tmp/trace 2>&1 &
	if wait $!; then
		echo "ok $name"
	else
		echo "not ok $name"
		tail -15 /tmp/trace | sed 's/^/# /'
	fi
done
