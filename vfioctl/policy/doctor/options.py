"""What the kernel command line and modprobe's files say of modules. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from vfioctl.model import Evidence, Readings, Unread
from vfioctl.policy.doctor.findings import CMDLINE, listed

_DIRECTORY = re.compile(r"/(?:etc|run|(?:usr/(?:local/)?)?lib)/modprobe\.d/")


class Rule(NamedTuple):
    """A line of modprobe's: ``command`` (options, blacklist, install, softdep, ...), the module (with _ for -), and the
    rest of the line; or a word of the kernel command line that comes to the same."""

    command: str
    module: str
    words: tuple[str, ...]
    evidence: Evidence


class Option(NamedTuple):
    """A parameter that a module is given when it is loaded."""

    module: str
    name: str
    value: str
    evidence: Evidence


def rules(readings: Readings) -> Iterator[Rule]:
    """All rules, in modprobe's order."""
    for path in readings.texts:
        if _DIRECTORY.match(path):
            text = readings.text(path) or ""
            for line in text.replace("\\\n", " ").split("\n"):
                words = line.split()
                if len(words) > 1 and not words[0].startswith("#"):
                    yield Rule(words[0], canonical(words[1]), tuple(words[2:]), Evidence(path, line.strip()))
    for word in (readings.text(CMDLINE) or "").split():
        name, _, value = word.partition("=")
        if name in ("modprobe.blacklist", "module_blacklist"):
            command = "blacklist" if name == "modprobe.blacklist" else "module_blacklist"
            for module in value.split(","):
                yield Rule(command, canonical(module), (), Evidence(CMDLINE, word))


def unread(readings: Readings) -> str | None:
    """Why some rules are not known; None when all are."""
    forbidden = [p for p in readings.texts if _DIRECTORY.match(p) and readings.why(p) is Unread.FORBIDDEN]
    return f"only root may read {listed(forbidden)}" if forbidden else None


def options(readings: Readings) -> Iterator[Option]:
    """All parameters that some module is to be given."""
    for rule in rules(readings):
        if rule.command == "options":
            for word in rule.words:
                name, _, value = word.partition("=")
                yield Option(rule.module, canonical(name), value.strip('"'), rule.evidence)
    for word in (readings.text(CMDLINE) or "").split():
        name, _, value = word.strip('"').partition("=")
        module, dot, parameter = name.partition(".")
        if dot:
            yield Option(canonical(module), canonical(parameter), value.strip('"'), Evidence(CMDLINE, word))


def is_set(readings: Readings, module: str, parameter: str) -> bool:
    """Whether a boolean parameter of a module is on, or where the module is not there, is to be."""
    now = readings.text(f"/sys/module/{module}/parameters/{parameter}")
    later = (o.value for o in options(readings) if (o.module, o.name) == (module, parameter))
    return is_on(now) if now is not None else any(map(is_on, later))


def is_on(value: str | None) -> bool:
    """A boolean parameter as the kernel takes it (lib/kstrtox.c, kstrtobool); without a value it is on."""
    return value is not None and (value[:1] in ("y", "Y", "1", "t", "T", "") or value[:2].lower() == "on")


def canonical(name: str) -> str:
    """The name of a module or parameter: dashes and underscores are the same in it."""
    return name.replace("-", "_")
