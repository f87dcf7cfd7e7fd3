#!/usr/bin/env bash
# serve.sh [NAME=VALUE…] -- COMMAND…: runs COMMAND against a fresh service on a free port, with a database that goes
# away and no sidecar. COMMAND finds it at $BASE_URL. The service's log is shown when COMMAND fails. Neither outlives
# this script.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=tests/stack/processes.sh
source "$root/tests/stack/processes.sh"
binary=${CARGO_TARGET_DIR:-$root/target}/debug/todo-backend
[ -x "$binary" ] || { echo "serve.sh: $binary is not there: cargo build" >&2; exit 1; }
settings=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do settings+=("$1"); shift; done
shift
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free_port)
directory="" service=""
clean_up() {
  trap '' INT TERM HUP
  # It finishes its requests, for 10 s at most.
  [ -z "$service" ] || end 11 "$service"
  [ -z "$directory" ] || rm -rf "$directory"
}
trap clean_up EXIT
directory=$(mktemp -d)
(cd "$directory" && exec env -i PORT="$port" DAPR_HTTP_PORT="$(free_port)" DATABASE_URL=sqlite::memory: "${settings[@]}" "$binary") \
  >"$directory/log" 2>&1 &
service=$!
export BASE_URL=http://127.0.0.1:$port
for _ in $(seq 300); do
  if curl -sf "$BASE_URL/health/live" >/dev/null; then
    attend "$@" && exit 0
    status=$?
    echo "serve.sh: the service's last lines:" >&2
    tail -n 40 "$directory/log" >&2
    exit $status
  fi
  kill -0 "$service" 2>/dev/null || break
  sleep 0.1
done
cat "$directory/log" >&2
echo "serve.sh: the service did not start" >&2
exit 1
