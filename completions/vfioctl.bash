# Made by: python -m vfioctl.cli.completions; do not edit.
# shellcheck shell=bash

_vfioctl_completion() {
    local rest=${COMP_LINE:0:COMP_POINT} words=() i current prefix="" lead="" line value

    # bash ends words at the characters of COMP_WORDBREAKS too (":" and "="): join what stands together in the line.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        if ((i == 0)) || [[ $rest == [[:space:]]* ]]; then
            rest=${rest#"${rest%%[![:space:]]*}"}
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
    [[ $COMP_WORDBREAKS == *:* ]] && prefix=${current%"${current##*:}"}
    [[ $COMP_WORDBREAKS != *=* && $current == -*=* ]] && lead=${current%%=*}=

    COMPREPLY=()
    while IFS= read -r line; do
        value=${line#*,}
        case $line in
            plain,*)
                printf -v value %q "${value#"$prefix"}"
                COMPREPLY+=("$lead$value")
                ;;
            dir,*) compopt -o dirnames ;;
            file,*) compopt -o default ;;
        esac
    done < <(
        COMP_WORDS=$(printf '%s\n' "${words[@]}") COMP_CWORD=$((${#words[@]} - 1)) \
            _VFIOCTL_COMPLETE=bash_complete "$1" 2>/dev/null
    )
}

complete -o nosort -F _vfioctl_completion vfioctl
