#!/usr/bin/env bash
# What tests/demo shows. Runs as root in a throw-away virtual machine, where every device's address is a variable
# called by its role: see tests/kernel/testbed/machine.py.
# shellcheck disable=SC2154  # the roles
set -eu

# Show the command as it would be typed, then run it.
run() {
    printf '\n# %s\n' "$*"
    "$@"
}

run uname -r
run ls /sys/kernel/iommu_groups
run lspci -s "$edu"
