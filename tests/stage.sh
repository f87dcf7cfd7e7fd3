#!/usr/bin/env bash
# stage.sh NAME COMMAND…: runs one stage of the tests and says how long it took.
# SIGTERM, which make passes on, ends what the stage has started, too. So does the limit, STAGE_MINUTES: whatever waits for ever
# is named instead of holding up the rest.
set -uo pipefail
# shellcheck source=tests/stack/processes.sh
source "$(dirname "${BASH_SOURCE[0]}")/stack/processes.sh"
name=$1
shift
limit=${STAGE_MINUTES:-40}
printf '\n==> %s\n' "$name"
started=$SECONDS late=
begin "$@"
while going; do
  if ((SECONDS - started >= 60 * limit)); then
    printf '==> %s: no end within %d minutes (STAGE_MINUTES). Still running:\n' "$name" "$limit"
    ps -ww -o pid= -o ppid= -o etime= -o args= -p "$(tree "$attended" | paste -sd, -)"
    end 11 "$attended"
    late=124
    break
  fi
  sleep 0.2
done
conclude
status=${late:-$?}
if [ $status -eq 0 ]; then result=done; else result="FAILED (status $status)"; fi
printf '==> %s: %s in %d s\n' "$name" "$result" $((SECONDS - started))
exit $status
