# Sourced by the guest's first process once the host's root file system is its root (see init.sh and guest.py):
# finds the channels to the host, mounts the disk, runs $TESTBED_COMMAND, reports its status and powers off.
for name in /sys/class/virtio-ports/*/name; do
    port=${name%/name}
    ln -s "/dev/${port##*/}" "/run/testbed/$(cat "$name")"
done
if [ -n "${TESTBED_DISK:-}" ]; then
    modprobe -a virtio_blk ext4
    for disk in "/sys/bus/pci/devices/$TESTBED_DISK"/virtio*/block/*; do
        mount "/dev/${disk##*/}" /mnt/disk
    done
fi
# The interpreter and the tree may lie in somebody's private home; here every user is to run them.
for path in "$TESTBED_PYTHON" "$(readlink -f "$TESTBED_PYTHON")" $(echo "$PYTHONPATH" | tr : ' '); do
    while [ "$path" != / ]; do
        path=$(dirname "$path")
        chmod a+x "$path"
    done
done
printf '#!/bin/sh\nexec %s -m vfioctl "$@"\n' "$TESTBED_PYTHON" >/usr/local/bin/vfioctl
chmod 755 /usr/local/bin/vfioctl

sh -c "exec $TESTBED_COMMAND" >/run/testbed/testbed.output 2>&1 </dev/null && status=0 || status=$?
echo "testbed: the command ended with status $status at $(cut -d' ' -f1 /proc/uptime) s"
echo "{\"status\": $status}" >/run/testbed/testbed.results
sync
mkfifo /run/testbed/never
echo o >/proc/sysrq-trigger
# The first process must not end, and the root file system may be gone from here on.
read -r _ </run/testbed/never
