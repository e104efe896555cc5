"""The words that people see: commands and options that are named exist, and messages have one form."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from vfioctl import errors
from vfioctl.cli import manual
from vfioctl.cli.app import vfioctl
from vfioctl.cli.registry import FAMILIES
from vfioctl.errors import VfioctlError
from vfioctl.policy.guards import GUARDS

REPOSITORY = Path(__file__).resolve().parents[2]
ERRORS = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, VfioctlError)
}
#: What else takes a message for people first.
SPEAKERS = {"note", "warn", "tell", "Problem", "Use", "says"}
#: Options of other programs (modprobe, setfacl, prlimit).
OTHERS = {"--showconfig", "--resolve-alias", "--set", "--pid"}
#: They have a command line of their own.
TOOLS = {"vfioctl/cli/completions.py", "vfioctl/cli/manual.py"}
#: Names that begin a message, and keep their capitals.
NAMES = re.compile(r"[A-Z0-9_]{2}|Proxmox ")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


COMMANDS = {name: options_of(command) | {"--help"} for name, command in manual.commands()}
ALL = options_of(vfioctl).union(*COMMANDS.values()) | {"--version"}


def wording(node: ast.expr) -> str | None:
    """A string as it stands in the source, with {} for what is filled in."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return (wording(left) or "{}") + (wording(right) or "{}")
    return None


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((REPOSITORY / "vfioctl").rglob("*.py")):
        yield str(path.relative_to(REPOSITORY)), ast.parse(path.read_text(encoding="utf-8"))


def strings() -> Iterator[tuple[str, str]]:
    """Every string of the program but for docstrings: those that are help are in the manual."""
    for path, tree in trees():
        if path in TOOLS:
            continue
        silent = set()
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
                silent.add(body[0].value)
            if isinstance(node, ast.JoinedStr | ast.BinOp):
                silent.update(part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr))
        for node in ast.walk(tree):
            if isinstance(node, ast.expr) and node not in silent and (text := wording(node)):
                yield path, text


def messages() -> Iterator[tuple[str, str]]:
    """Messages, hints, details and cures."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            said = node.args[-1:] if name == "Use" else node.args[:1] if name in ERRORS | SPEAKERS else []
            said += [word.value for word in node.keywords if word.arg in ("hint", "detail", "cure")]
            yield from ((path, text) for argument in said if (text := wording(argument)))
    yield from (("guards", guard.cure) for guard in GUARDS.values() if guard.cure)


def unknown(text: str) -> Iterator[str]:
    """What a text calls by a name that there is not: a command of vfioctl, or an option of the one that it names."""
    calls = re.split(r"\bvfioctl ", text)
    for call in calls[1:]:
        name = re.match(r"(?:(?:-v|--timeout \S+|--root \S+) )*([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", call)
        if name is None:
            continue
        word, end = name[1], name.end(1)
        if word in FAMILIES and name[2]:
            word, end = f"{word} {name[2]}", name.end(2)
        if word not in COMMANDS:
            # In a sentence there is a verb.
            if word in FAMILIES or "-" in word or difflib.get_close_matches(word, COMMANDS, cutoff=0.75):
                yield f"vfioctl {word}"
            continue
        line = re.split(r"[;,(|\n]|&&|: | -- ", call[end:])[0]
        yield from (
            f"vfioctl {word} {option}" for option in OPTION.findall(line) if option not in COMMANDS[word]
        )
    yield from (option for option in OPTION.findall(text) if option not in ALL | OTHERS)


def test_what_the_program_names_exists() -> None:
    found = list(strings())
    assert sum("vfioctl bind" in text for _, text in found) >= 5
    assert [(path, what) for path, text in found for what in unknown(text)] == []


@pytest.mark.parametrize("name", ["man/vfioctl.1", "README.md"])
def test_what_the_documents_name_exists(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    if name.startswith("man/"):
        text = re.sub(r"^\.[A-Z]+ |\\f[BIR]|\\%", "", text.replace("\\-", "-"), flags=re.MULTILINE)
    lines = [line for line in text.splitlines() if "vfioctl " in line and not line.startswith('.\\"')]
    assert len(lines) > 10
    assert [what for line in lines for what in unknown(line)] == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("look again: vfioctl lst-groups", ["vfioctl lst-groups"]),
        ("vfioctl -v unbind 26 --method new-id", ["vfioctl unbind --method"]),
        ("try --no-such", ["--no-such"]),
        ("vfioctl chooses one; vfioctl bind 26 --group, or --to NAME", []),
    ],
)
def test_a_name_that_is_not_there_would_be_noticed(text: str, what: list[str]) -> None:
    assert list(unknown(text)) == what


def test_messages_have_one_form() -> None:
    """Lower case and without a stop, as sentences inside a line are parted by semicolons."""
    found = list(messages())
    assert len(found) > 150
    wrong = [
        (path, text)
        for path, text in found
        if (text[0].isupper() and not NAMES.match(text)) or re.search(r"(?<!\.\.)\.(\s+[A-Z]|\s*$)", text)
    ]
    assert wrong == []
