# Runs a server for an owner and ends it when the owner dies, even by kill -9: only the owner holds
# the other end of stdin, a pipe, so that it is closed when the owner dies. Prints the server's
# process id on stdout; the server logs to our stderr.
end=$1
shift
"$@" </dev/null >&2 &
server=$!
echo "$server"
exec >/dev/null
read -r end_of_owner
exec 2>/dev/null
children=$(cat "/proc/$server/task/$server/children")
kill -CONT $server $children # a paused server could not end
kill "-$end" $server
(sleep 3; kill -KILL $server $children) &
patience=$!
wait $server
kill $patience
exit 0
