"""Which limit of locked memory a login or a service gets, from the files that say so. Pure.

Sources: Linux-PAM, modules/pam_limits/pam_limits.c (set_limits, parse_config_file); systemd, man/systemd.exec.xml and
man/systemd.unit.xml.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from vfioctl.errors import UsageError
from vfioctl.model import Evidence, LockLimit, Login, Readings
from vfioctl.policy.sizes import format_size

_UNLIMITED = frozenset({"-1", "unlimited", "infinity"})
#: What systemd 250 and newer give a service that says nothing (man/systemd-system.conf.xml, DefaultLimitMEMLOCK=).
_SYSTEMD_DEFAULT = 8 << 20
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.service", re.ASCII)
_RANGE = re.compile(r"(?P<from>\d{0,10}):(?P<to>\d{0,10})", re.ASCII)
_SYSTEMD_LIMIT = re.compile(r"(infinity|\d{1,20}[KMGTPE]?)(?::(infinity|\d{1,20}[KMGTPE]?))?", re.ASCII)


class _Entry(NamedTuple):
    """A line of limits.conf about memlock: how special it is to the user, which limits it sets, and to what."""

    rank: int
    sets: tuple[str, ...]
    value: int | None
    evidence: Evidence


def of_login(login: Login, readings: Readings, paths: Iterable[str]) -> LockLimit | None:
    """The limit after a login by PAM with pam_limits; None when no line is about the user: then it is inherited.

    A line for the user is stronger than one for a group, that than ``*``; of equals the last one counts. Those for
    groups and ``*`` are not for root. The file's unit is KiB.
    """
    won: dict[str, _Entry] = {}
    for path in paths:
        for entry in _entries(readings.text(path) or "", path, login):
            for which in entry.sets:
                if which not in won or entry.rank <= won[which].rank:
                    won[which] = entry
    if not won:
        return None
    deciding = won.get("soft") or won["hard"]
    soft, hard = (won[which].value if which in won else None for which in ("soft", "hard"))
    if "soft" not in won:
        soft = hard
    if hard is not None and (soft is None or soft > hard):
        soft = hard
    return LockLimit(f"user {login.name}", soft, hard, *deciding.evidence, exempt=login.uid == 0)


def _entries(text: str, path: str, login: Login) -> Iterator[_Entry]:
    for line in text.split("\n"):
        fields = line.partition("#")[0].split()
        if len(fields) != 4 or fields[2].lower() != "memlock":
            continue
        rank = _rank(fields[0], login)
        sets = {"-": ("soft", "hard"), "soft": ("soft",), "hard": ("hard",)}.get(fields[1].lower())
        if rank is None or sets is None:
            continue
        if fields[3].lower() in _UNLIMITED:
            yield _Entry(rank, sets, None, Evidence(path, line.strip()))
        elif fields[3].isdecimal() and len(fields[3]) < 18:
            yield _Entry(rank, sets, int(fields[3]) << 10, Evidence(path, line.strip()))


def _rank(domain: str, login: Login) -> int | None:
    """0 for the user, 1 for one of their groups, 2 for everybody; None when it is not about the user."""
    if domain == login.name or _within(domain, [login.uid]):
        return 0
    if login.uid == 0:
        return None
    if domain.startswith("@"):
        name = domain[1:]
        own = any(name == group for group, _ in login.groups)
        return 1 if own or _within(name, [gid for _, gid in login.groups]) else None
    return 2 if domain == "*" else None


def _within(domain: str, numbers: Sequence[int]) -> bool:
    """``min:max``; ``min:`` is from there on, ``:max`` exactly that one."""
    match = _RANGE.fullmatch(domain)
    if match is None or not (match["from"] or match["to"]):
        return False
    if not match["from"]:
        return int(match["to"]) in numbers
    low, high = int(match["from"]), int(match["to"] or 1 << 32)
    return any(low <= number <= high for number in numbers)


def unit_name(text: str) -> str:
    """The name of a service, with its suffix. Raises UsageError for what can have no limit, or is no name."""
    name = text if "." in text.rpartition("@")[2] else f"{text}.service"
    if not _UNIT.fullmatch(name):
        raise UsageError(
            f"--unit: {text!r} is no service of systemd",
            hint="a service is named as systemctl does (libvirtd.service); of a virtual machine's scope give the "
            "process: --pid",
            subject=text,
        )
    return name


def of_unit(unit: str, readings: Readings, paths: Sequence[str], defaults: Sequence[str]) -> LockLimit:
    """The limit of a service by its files ``paths`` in systemd's order, or by systemd's own, ``defaults``."""
    settings = dict(_settings(readings, paths, "Service"))
    user = settings.get("User")
    dynamic = settings.get("DynamicUser")
    capabilities = settings.get("CapabilityBoundingSet")
    as_root = (user is None or user.value.partition("=")[2].strip() in ("root", "0")) and not (
        dynamic and dynamic.value.partition("=")[2].strip().lower() in ("1", "yes", "true", "on")
    )
    exempt = as_root and (
        capabilities is None or ("CAP_IPC_LOCK" in capabilities.value and "~" not in capabilities.value)
    )
    default = dict(_settings(readings, defaults, "Manager")).get("DefaultLimitMEMLOCK")
    for found in (settings.get("LimitMEMLOCK"), default):
        match = _SYSTEMD_LIMIT.fullmatch(found.value.partition("=")[2].strip()) if found else None
        if found and match:  # systemd passes over what it does not understand
            soft, hard = (_systemd_size(word) for word in (match[1], match[2] or match[1]))
            return LockLimit(f"unit {unit}", soft, hard, *found, exempt=exempt)
    value = f"no LimitMEMLOCK: systemd's default, {format_size(_SYSTEMD_DEFAULT)}"
    return LockLimit(f"unit {unit}", _SYSTEMD_DEFAULT, _SYSTEMD_DEFAULT, paths[0], value, exempt=exempt)


def _settings(readings: Readings, paths: Sequence[str], section: str) -> Iterator[tuple[str, Evidence]]:
    """The settings of a section, in order: of several the last counts, and an empty one takes back those before."""
    found: dict[str, Evidence] = {}
    for path in paths:
        here = ""
        for line in (readings.text(path) or "").replace("\\\n", " ").split("\n"):
            line = line.strip()
            if line.startswith("["):
                here = line.strip("[]")
            elif here == section and "=" in line and line[0] not in "#;":
                key, _, value = line.partition("=")
                if value.strip():
                    found[key.strip()] = Evidence(path, line)
                else:
                    found.pop(key.strip(), None)
    yield from found.items()


def _systemd_size(text: str) -> int | None:
    if text == "infinity":
        return None
    unit = text[-1] if text[-1].isalpha() else " "
    return int(text.rstrip(unit)) << (10 * " KMGTPE".index(unit))
