#!/usr/bin/env bash
# stage.sh NAME COMMAND…: runs one stage of the tests and says how long it took.
# SIGTERM, which make passes on, ends what the stage has started, too.
set -uo pipefail
# shellcheck source=tests/stack/processes.sh
source "$(dirname "${BASH_SOURCE[0]}")/stack/processes.sh"
name=$1
shift
printf '\n==> %s\n' "$name"
started=$SECONDS
attend "$@"
status=$?
if [ $status -eq 0 ]; then result=done; else result="FAILED (status $status)"; fi
printf '==> %s: %s in %d s\n' "$name" "$result" $((SECONDS - started))
exit $status
