# Removes what its owner has made once the owner is gone, even by kill -9: stdin is a pipe whose other end only the owner holds, so
# that it ends with the owner. $1 looks for what is left, and $2 removes it, which is $left; both see the further arguments as $1, $2.
# What the engine was still making when the owner died may appear after a look: so two looks in a row must find nothing.
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
