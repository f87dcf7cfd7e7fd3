#!/usr/bin/env bash
# with_postgres.sh [OPTION…] -- COMMAND…: runs COMMAND beside a fresh PostgreSQL on a free port, which forgets everything
# and flushes nothing. COMMAND finds it at $TEST_POSTGRES. The server's log is shown when COMMAND fails. Neither
# outlives this script. OPTIONs are the server's.
set -euo pipefail
stack=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/stack/processes.sh
source "$stack/processes.sh"
options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
[ $# -ge 2 ] || { echo "usage: with_postgres.sh [OPTION…] -- COMMAND…" >&2; exit 2; }
shift
# It finds or fetches PostgreSQL, which may take longer than a server to start.
attend bash "$stack/stack.sh" psql --version >/dev/null
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
directory="" server=""
clean_up() {
  trap '' INT TERM HUP
  [ -z "$server" ] || end 11 "$server"
  [ -z "$directory" ] || rm -rf "$directory"
}
trap clean_up EXIT
directory=$(mktemp -d)
# Tests run side by side, each with connections of its own.
bash "$stack/stack.sh" postgres "$directory/server" "$port" -c fsync=off -c synchronous_commit=off -c full_page_writes=off \
  -c max_connections=200 "${options[@]}" >"$directory/log" 2>&1 </dev/null &
server=$!
export TEST_POSTGRES=postgres://todo@127.0.0.1:$port/postgres
for _ in $(seq 300); do
  kill -0 "$server" 2>/dev/null || break
  if bash "$stack/stack.sh" psql --no-psqlrc --quiet --command '' "$TEST_POSTGRES" >/dev/null 2>&1; then
    attend "$@" && exit 0
    status=$?
    echo "with_postgres.sh: the server's last lines:" >&2
    tail -n 40 "$directory/log" >&2
    exit $status
  fi
  sleep 0.1
done
cat "$directory/log" >&2
echo "with_postgres.sh: the server did not start" >&2
exit 1
