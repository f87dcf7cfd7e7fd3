#!/usr/bin/env bash
# stage.sh NAME COMMAND…: runs one stage of the tests and says how long it took.
set -uo pipefail
name=$1
shift
printf '\n==> %s\n' "$name"
started=$SECONDS
"$@"
status=$?
if [ $status -eq 0 ]; then result=done; else result="FAILED (status $status)"; fi
printf '==> %s: %s in %d s\n' "$name" "$result" $((SECONDS - started))
exit $status
