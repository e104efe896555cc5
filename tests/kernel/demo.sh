#!/usr/bin/env bash
# What tests/demo shows: the main job from beginning to end, on the edu device of a throw-away virtual machine.
# Runs there as root; each device of the machine is a variable by its role (tests/kernel/testbed/machine.py).
set -eu

if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi

say() { printf '\n%s\n' "$bold$*$plain"; }

# Show the command as it would be typed, then run it.
run() {
    printf '\n%s# %s%s\n' "$bold" "$*" "$plain"
    "$@"
}

# The same, for a command whose answer is its exit status.
ask() {
    printf '\n%s# %s%s\n' "$bold" "$*" "$plain"
    "$@" || printf '(exit status %s)\n' "$?"
}

# The same, as the user nobody: without privileges, and with a small limit of locked memory.
nobody() {
    printf '\n%s$ %s%s\n' "$bold" "$*" "$plain"
    (ulimit -l 8192 && exec setpriv --reuid nobody --regid nogroup --clear-groups "$@")
}

say "== Linux $(uname -r): which IOMMU groups are there?"
run vfioctl list-groups
group=$(vfioctl show "$edu" -P group --value)

say "== A group with a bridge that blocks, and one that is fine but has no VFIO driver yet"
ask vfioctl check-viable "$conv_nic"
ask vfioctl check-viable "$edu"

say "== Bind: first only show what would be done, then do it and permit a user"
run vfioctl bind "$edu" --dry-run
run vfioctl bind "$edu"
run vfioctl permit "$group" --user nobody
ask vfioctl check-viable --live "$group"

say "== Map 1 MiB for DMA, as that user"
nobody vfioctl map "$group" --size 1M

say "== Give it back"
run vfioctl unbind "$edu"
run vfioctl list-devices "$edu"
say "== A driver in vfioctl commands: DMA between two buffers, interrupts, and what the IOMMU refuses"
run sh "$(dirname "$0")/dma.sh" "$edu"
say "== The whole chain worked: list, check, bind, permit, map, DMA, interrupts, unbind"
