#compdef userctl
# Completion of userctl for zsh.
_userctl() {
    local line
    local -a candidates
    for line in ${(f)"$(userctl __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"}; do
        if [[ $line == :file ]]; then
            compset -P '*='
            _files
            return
        fi
        line=${line//:/\\:}
        candidates+=("${line/$'\t'/:}")
    done
    _describe userctl candidates
}
compdef _userctl userctl
