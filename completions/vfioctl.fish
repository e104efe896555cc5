# Made by: python -m vfioctl.cli.completions; do not edit.

function _vfioctl_completion
    set -lx _VFIOCTL_COMPLETE fish_complete
    set -lx COMP_WORDS (commandline -cp)
    set -lx COMP_CWORD (commandline -ct)
    set -l lead (string match -r -- '^-[^=]*=' $COMP_CWORD)
    for line in (vfioctl 2>/dev/null)
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

complete --command vfioctl --no-files --arguments '(_vfioctl_completion)'
