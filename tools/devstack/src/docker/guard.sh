# Removes what its owner has created once the owner is gone, even by kill -9: only the owner holds
# the other end of stdin, a pipe, so that it is closed when the owner dies. $1 lists what is left,
# and $2 removes it ($left); both see the other arguments as $1, $2, and so on. What the engine was
# still creating when the owner died may appear after a list, so two lists in a row must be empty.
read -r end_of_owner
look=$1 remove=$2
shift 2
empty=0 looks=0
while [ "$empty" -lt 2 ] && [ "$looks" -lt 30 ]; do
    [ "$looks" = 0 ] || sleep 1
    looks=$((looks + 1))
    left=$(eval "$look")
    if [ -n "$left" ]; then
        empty=0
        eval "$remove"
    else
        empty=$((empty + 1))
    fi
done
