#!/bin/sh
# dma DEVICE [BACKEND]: a user-space driver for QEMU's edu device, of vfioctl commands alone. The device copies a block
# between two buffers; then one of them is unmapped, and what the device writes there does not arrive.
set -eu
device=$1
work=$(mktemp -d /dev/shm/dma.XXXXXX)
cd "$work"

vfioctl bind "$device"
trap 'vfioctl unbind "$device"; rm -r "$work"' EXIT
vfioctl container open dma "$device" --backend "${2:-auto}"
trap 'vfioctl container close dma; vfioctl unbind "$device"; rm -r "$work"' EXIT

# A buffer to read from at IOVA 1M, and a file to write to at 2M.
head -c 2048 /dev/urandom > block
truncate -s 64K result
vfioctl map -c dma --iova 0x100000 --size 64K --prot r --fill block
vfioctl map -c dma --iova 0x200000 --file result

# Memory decoding and bus mastering on; interrupts to be counted from here on.
vfioctl region write "$device" config COMMAND 0x6 --mask 0x6 --check
vfioctl irq enable "$device" msi

# copy FROM TO COMMAND: a DMA of the device's engine; it raises an interrupt at the end, which is acknowledged.
copy() {
    vfioctl region write "$device" bar0 0x80="$1" 0x88="$2" 0x90=2048 0x98="$3"
    vfioctl irq wait "$device" msi --timeout 30
    vfioctl region write "$device" bar0 0x64 0x100
}
buffer=0x40000          # the device's own memory
to_device=5 to_host=7   # start, and interrupt at the end; for the host also the direction

copy 0x100000 $buffer $to_device
copy $buffer 0x200000 $to_host
cmp -n 2048 block result
echo "== copied by the device: the bytes are equal"

vfioctl unmap -c dma --iova 0x200000
cp result before
head -c 2048 /dev/urandom | vfioctl memory write -c dma --iova 0x100000
copy 0x100000 $buffer $to_device
copy $buffer 0x200000 $to_host
cmp result before
echo "== not mapped any more: the IOMMU has refused it, and the memory is untouched"
