# shellcheck shell=bash
# Sourced by tests/run and tests/demo: makes this machine able to run the tests.
#
# Sets $repository and $python (an interpreter of a virtual environment with the test dependencies), and exports
# PYTHONPATH so that the package is run from this tree: the environment is shared by all trees with the same
# dependencies, so vfioctl itself is not installed into it.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/vfioctl-tests

# command:package pairs; a package is wanted when its command is missing.
wanted_commands=(
    qemu-system-x86_64:qemu-system-x86
    qemu-system-aarch64:qemu-system-arm
    qemu-system-ppc64:qemu-system-ppc
    qemu-system-s390x:qemu-system-misc
    modprobe:kmod
    udevadm:udev
    mke2fs:e2fsprogs
    xz:xz-utils
    zstd:zstd
    strace:strace
    lspci:pciutils
    ip:iproute2
    dmsetup:dmsetup
    losetup:mount
    man:man-db
    groff:groff
    shellcheck:shellcheck
    zsh:zsh
    fish:fish
    cc:gcc
    make:make
)

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$1"
    exit 1
}

# A python3 that is new enough and can make a virtual environment; prints nothing if there is none. The distribution's
# comes first: it is built to be fast, and half of what an emulated machine does is to run it.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
}

install_packages() {
    local pair missing=()
    # Administrators' commands are not on everybody's PATH.
    local PATH=$PATH:/usr/sbin:/sbin
    for pair in "${wanted_commands[@]}"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ -x /lib/systemd/systemd-udevd ] || missing+=(udev)
    [ -n "$(find_python)" ] || missing+=(python3 python3-venv)
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "These Debian packages are missing: ${missing[*]}; install their like."
    [ "$(id -u)" = 0 ] || die "Packages are missing; as root: apt-get update && apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    local options=(-o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 -q)
    apt-get "${options[@]}" update >&2 || die "apt-get update failed; check the network and apt's sources."
    DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install -y --no-install-recommends "${missing[@]}" >&2 ||
        die "apt-get install failed; its message above says why."
}

# The dependencies of the package and of its tests, as pyproject.toml lists them.
dependencies() {
    "$1" - "$repository/pyproject.toml" <<'PYTHON'
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
print("\n".join(project["dependencies"] + project["optional-dependencies"]["test"]))
PYTHON
}

make_environment() {
    local base needed key environment
    base=$(find_python)
    [ -n "$base" ] || die "No Python 3.11 or newer with the module venv; install python3 and python3-venv."
    needed=$(dependencies "$base") || die "pyproject.toml cannot be read; its dependencies are needed."
    key=$(printf '%s\n' "$base" "$("$base" -VV)" "$needed" | sha256sum | cut -c1-12)
    environment=$cache/python-$key
    mkdir -p "$cache"
    exec 9>"$cache/python.lock"
    flock 9
    if [ ! -e "$environment/complete" ] || ! "$environment/bin/python" -c pass; then
        say "making a virtual environment with: ${needed//$'\n'/ }"
        rm -rf "$environment"
        "$base" -m venv "$environment" || die "The virtual environment could not be made; see the message above."
        printf '%s\n' "$needed" >"$environment/requirements.txt"
        "$environment/bin/python" -m pip install -q --disable-pip-version-check --retries 5 \
            -r "$environment/requirements.txt" >&2 || die "pip install failed; its message above says why."
        touch "$environment/complete"
    fi
    exec 9>&-
    # shellcheck disable=SC2034  # for the script that sources this one
    python=$environment/bin/python
    export PATH=$environment/bin:$PATH PYTHONPATH=$repository
}

set_up() {
    install_packages
    make_environment
}
