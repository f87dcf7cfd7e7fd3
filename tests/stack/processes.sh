# shellcheck shell=bash
# Sourced by the other scripts: what a script has started must not outlive it, whichever way it ends.
#
# Bash runs a trap only after the command in the foreground has ended, and without a trap a signal ends the script alone.
# A terminal's ctrl-c reaches everything at once, but SIGTERM (from make, CI, timeout) only the script.

# tree PID…: these processes and all below them, as far as they run. Without /proc (macOS) only the first part.
tree() {
  if [ ! -r /proc/self/stat ]; then
    local pid
    for pid; do if kill -0 "$pid" 2>/dev/null; then echo "$pid"; fi; done
    return 0
  fi
  # A process that ends meanwhile can't be read.
  { cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v roots="$*" '
    BEGIN { split(roots, list, /[ \n]+/); for (i in list) root[list[i]] }
    { pid = $1; sub(/^.*\) /, ""); state[pid] = $1; parent[pid] = $2 }
    END { for (pid in state) if (state[pid] != "Z") for (p = pid; p in state; p = parent[p]) if (p in root) { print pid; break } }'
}

# end SECONDS PID…: SIGTERM to these processes and all below them, SIGKILL to what is left of them after SECONDS.
end() {
  local deadline=$((SECONDS + $1)) pids
  pids=$(tree "${@:2}")
  # shellcheck disable=SC2086
  [ -z "$pids" ] || kill -TERM $pids 2>/dev/null || true
  # Who has lost its parent is still found: it was in the list before.
  # shellcheck disable=SC2086
  while pids=$(tree $pids) && [ -n "$pids" ] && ((SECONDS < deadline + 2)); do
    if ((SECONDS >= deadline)); then kill -KILL $pids 2>/dev/null || true; fi
    sleep 0.1
  done
}

# Bash sets its own handler of signals, which runs the EXIT trap, with the first EXIT trap; if it comes after the first
# trap of a signal, `trap - SIGNAL` takes that handler away again.
[ -n "$(trap -p EXIT)" ] || { trap : EXIT; trap - EXIT; }

# die_of SIGNAL: ends as if it had not been caught, so that callers know; runs the EXIT trap.
die_of() {
  trap - "$1"
  kill "-$1" "$BASHPID"
}

# begin COMMAND…; (while going; do …; done); conclude: runs COMMAND, a function too, and returns its status. A script that
# is told to end meanwhile takes it along. The variables are global because traps use them.
begin() {
  asked="" attended=""
  trap 'asked=INT' INT
  trap 'asked=TERM' TERM
  trap 'asked=HUP' HUP
  # Bash lets background commands ignore ctrl-c and read nothing: not these.
  (
    trap - INT QUIT TERM HUP
    "$@"
  ) <&0 &
  attended=$!
}

going() { [ -z "$asked" ] && kill -0 "$attended" 2>/dev/null; }

conclude() {
  local status=0 waited=0
  # `wait` returns early when a signal arrives.
  [ -n "$asked" ] || wait "$attended" || status=$?
  if [ -n "$asked" ]; then
    # A terminal has sent it to all of them: they are about to end, each in its way. A second signal would disturb them.
    while [ "$asked" != TERM ] && ((waited < 30)) && [ -n "$(tree "$attended")" ]; do
      sleep 0.1
      ((waited += 1))
    done
    end 11 "$attended"
    die_of "$asked"
  fi
  trap - INT TERM HUP
  return $status
}

attend() { # attend COMMAND…
  begin "$@"
  conclude
}
