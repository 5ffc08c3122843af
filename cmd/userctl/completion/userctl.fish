# Completion of userctl for fish.
function __userctl_complete
    set --local words (commandline --current-process --tokenize --cut-at-cursor)
    set --local word (commandline --current-token --cut-at-cursor)
    set --local candidates (userctl __complete $words[2..] "$word" 2>/dev/null)
    if test "$candidates" = :file
        __fish_complete_path "$word"
    else
        printf '%s\n' $candidates
    end
end
complete --command userctl --no-files --arguments '(__userctl_complete)'
