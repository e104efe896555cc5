#!/bin/busybox sh
# First process of a test guest: make the host's root file system, or a directory of it for another architecture, with
# a writable layer in memory the root, and hand over to /testbed/job (put here by guest.py beside this file).
/bin/busybox mkdir -p /bin /proc /sys /dev /host /layer /root
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

for module in /modules/*; do
    insmod "$module" || echo "testbed: cannot load $module"
done

mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=524288,ro host /host || echo "testbed: no host root"
mount -t tmpfs -o mode=755 layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o "lowerdir=/host$(cat /testbed/root),upperdir=/layer/upper,workdir=/layer/work" overlay /root || echo "testbed: no root"

[ -e /root/bin/sh ] || chroot /root /bin/busybox --install -s /bin

mount --move /proc /root/proc
mount --move /sys /root/sys
mount --move /dev /root/dev
mount -t tmpfs -o mode=755 run /root/run
mkdir -p /root/dev/pts /root/dev/shm /root/run/lock /root/run/tmp
chmod 1777 /root/run/tmp
mount -t devpts -o mode=620,gid=5,ptmxmode=666 devpts /root/dev/pts
mount -t tmpfs -o mode=1777 shm /root/dev/shm
ln -sf /proc/self/fd /root/dev/fd
ln -sf fd/0 /root/dev/stdin
ln -sf fd/1 /root/dev/stdout
ln -sf fd/2 /root/dev/stderr
cp -r /testbed /root/run/testbed
. /testbed/place

ip link set lo up
hostname guest
echo "testbed: root ready at $(cut -d' ' -f1 /proc/uptime 2>/dev/null || cut -d' ' -f1 /root/proc/uptime) s"
exec switch_root /root /bin/sh /run/testbed/job
