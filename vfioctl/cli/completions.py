"""Writes the shells' completion scripts, which ask vfioctl itself by click's protocol on every TAB.

    python -m vfioctl.cli.completions bash|zsh|fish     prints a script
    python -m vfioctl.cli.completions --write DIR       writes all of them
    python -m vfioctl.cli.completions --check DIR       says which are out of step (status 1)

The protocol is click's (click.shell_completion); the scripts are vfioctl's own, for click's bash script breaks at the
colons of device addresses, and no script of click completes the value of ``--option=value`` in every shell.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from vfioctl.cli.app import vfioctl

PROGRAM = "vfioctl"
_MADE_BY = "# Made by: python -m vfioctl.cli.completions; do not edit."

_BASH = (
    _MADE_BY
    + r"""
# shellcheck shell=bash

%(complete_func)s() {
    local rest=${COMP_LINE:0:COMP_POINT} words=() i current prefix="" lead="" line value

    # bash ends words at the characters of COMP_WORDBREAKS too (":" and "="): join what stands together in the line.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        if ((i == 0)) || [[ $rest == [[:space:]]* ]]; then
            rest=${rest#"${rest%%%%[![:space:]]*}"}
            words+=("")
        fi
        if ((i == COMP_CWORD)); then
            words[-1]+=$rest
        else
            words[-1]+=${COMP_WORDS[i]}
            rest=${rest#"${COMP_WORDS[i]}"}
        fi
    done
    current=${words[-1]}

    # It replaces only what follows the last such character, so candidates must not repeat what stands before it.
    [[ $COMP_WORDBREAKS == *:* ]] && prefix=${current%%"${current##*:}"}
    [[ $COMP_WORDBREAKS != *=* && $current == -*=* ]] && lead=${current%%%%=*}=

    COMPREPLY=()
    while IFS= read -r line; do
        value=${line#*,}
        case $line in
            plain,*)
                printf -v value %%q "${value#"$prefix"}"
                COMPREPLY+=("$lead$value")
                ;;
            dir,*) compopt -o dirnames ;;
            file,*) compopt -o default ;;
        esac
    done < <(
        COMP_WORDS=$(printf '%%s\n' "${words[@]}") COMP_CWORD=$((${#words[@]} - 1)) \
            %(complete_var)s=bash_complete "$1" 2>/dev/null
    )
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""
)

_ZSH = (
    "#compdef %(prog_name)s\n"
    + _MADE_BY
    + r"""

%(complete_func)s() {
    local -a answer plain described
    local kind value help

    answer=("${(@f)$(
        COMP_WORDS="${(F)words}" COMP_CWORD=$((CURRENT - 1)) \
            %(complete_var)s=zsh_complete "${(Q)words[1]}" 2>/dev/null
    )}")
    [[ $words[CURRENT] == -*=* ]] && compset -P '*='
    for kind value help in "${answer[@]}"; do
        case $kind in
            plain) if [[ $help == _ ]]; then plain+=("$value"); else described+=("$value:$help"); fi ;;
            dir) _path_files -/ ;;
            file) _path_files ;;
        esac
    done
    (( $#plain )) && compadd -V plain -a plain
    (( $#described )) && _describe -V '%(prog_name)s' described
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""
)

_FISH = (
    _MADE_BY
    + r"""

function %(complete_func)s
    set -lx %(complete_var)s fish_complete
    set -lx COMP_WORDS (commandline -cp)
    set -lx COMP_CWORD (commandline -ct)
    set -l lead (string match -r -- '^-[^=]*=' $COMP_CWORD)
    for line in (%(prog_name)s 2>/dev/null)
        set -l part (string split -m 1 -- , $line)
        switch $part[1]
            case plain
                echo "$lead$part[2]"
            case dir
                __fish_complete_directories $part[2]
            case file
                __fish_complete_path $part[2]
        end
    end
end

complete --command %(prog_name)s --no-files --arguments '(%(complete_func)s)'
"""
)


class Bash(BashComplete):
    """click's protocol for bash, with a script that copes with colons."""

    source_template = _BASH


class Zsh(ZshComplete):
    """click's protocol for zsh."""

    source_template = _ZSH


class Fish(FishComplete):
    """click's protocol for fish."""

    source_template = _FISH


#: Shell -> (file name where that shell looks for it, class).
SHELLS: dict[str, tuple[str, type[ShellComplete]]] = {
    "bash": ("vfioctl.bash", Bash),
    "zsh": ("_vfioctl", Zsh),
    "fish": ("vfioctl.fish", Fish),
}


def script(shell: str) -> str:
    """The completion script for ``shell``."""
    _, kind = SHELLS[shell]
    # The base class's source(): BashComplete's first runs a bash, to look at its version.
    return ShellComplete.source(kind(vfioctl, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE"))


def stale(directory: Path) -> list[str]:
    """The names of the scripts in ``directory`` that are missing or differ from what would be written."""
    return [
        name
        for shell, (name, _) in SHELLS.items()
        if not (directory / name).exists() or (directory / name).read_text() != script(shell)
    ]


def main(args: Sequence[str]) -> int:
    """The command line of this module."""
    match args:
        case [shell] if shell in SHELLS:
            sys.stdout.write(script(shell))
        case ["--write", directory]:
            for shell, (name, _) in SHELLS.items():
                Path(directory, name).write_text(script(shell))
        case ["--check", directory]:
            names = stale(Path(directory))
            if names:
                print(f"out of step: {', '.join(names)}", file=sys.stderr)
            return int(bool(names))
        case _:
            print(f"usage: {'|'.join(SHELLS)} | --write DIR | --check DIR", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
