"""The floors of the house: a floor imports only from lower ones, and each large or risky library has one home."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "vfioctl"
FLOORS = {"errors": 0, "model": 0, "uapi": 1, "host": 2, "policy": 3, "ops": 4, "cli": 5}
#: Library to the one module that may import it.
HOMES = {
    "pyudev": "host/udev.py",
    "rich": "cli/terminal.py",
    "yaml": "cli/output.py",
    "ctypes": "host/clib.py",
    "fcntl": "host/ioctl.py",
}
#: pyproject.toml names them as dependencies.
THIRD_PARTY = {"click", "pyudev", "rich", "yaml"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all imports, those inside functions and type checks too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor_of(relative: Path) -> int | None:
    """None: the top of the package, which may import anything."""
    first = relative.parts[0].removesuffix(".py")
    return FLOORS.get(first)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_floor_imports_only_from_lower_ones(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    mine = floor_of(relative)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "vfioctl" or len(parts) < 2 or mine is None:
            continue
        if parts[1] not in FLOORS:
            assert parts[1] in ("__version__", "__init__"), f"{relative} imports {name}"
            continue
        theirs = FLOORS[parts[1]]
        same_folder = parts[1] == relative.parts[0].removesuffix(".py") or (mine == theirs == 0)
        assert theirs < mine or same_folder, f"{relative} imports {name}"
        if mine == FLOORS["policy"]:
            assert theirs == 0 or same_folder, f"{relative} decides by {name}: policy is pure"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_library_has_one_home(path: Path) -> None:
    relative = str(path.relative_to(PACKAGE))
    for name in imports(path):
        library = name.split(".")[0]
        assert HOMES.get(library, relative) == relative, f"{relative} imports {library}: see {HOMES[library]}"
        if library == "click":
            assert relative.startswith("cli/"), f"{relative} imports click"


def test_policy_is_pure() -> None:
    """No machine, no clock: of os only the words for an errno."""
    forbidden = {"sys", "subprocess", "pathlib", "socket", "time", "io", "tempfile", "shutil"}
    for path in (PACKAGE / "policy").rglob("*.py"):
        used = {name.split(".")[0] for name in imports(path)}
        assert not used & forbidden, f"{path.name}: {used & forbidden}"
        of_os = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
        }
        assert of_os <= {"strerror"}, f"{path.name}: os.{of_os}"


def test_every_package_is_in_a_floor() -> None:
    found = {
        p.name.removesuffix(".py")
        for p in PACKAGE.iterdir()
        if not p.name.startswith("__") and p.name != "py.typed"
    }
    assert found == set(FLOORS)


def test_homes_exist() -> None:
    for home in HOMES.values():
        assert (PACKAGE / home).is_file()


def test_nothing_else_is_needed() -> None:
    used = {name.split(".")[0] for path in FILES for name in imports(path)}
    assert used - set(sys.stdlib_module_names) == THIRD_PARTY | {"vfioctl"}
