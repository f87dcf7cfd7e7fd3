#!/usr/bin/env bash
# The contract, from outside: the service answers as FastAPI did except where it says why (differential), what the OpenAPI
# document says is true of it (schemathesis), and a client generated from the document can work with it (client).
# Each part has a fresh service of its own. Needs a debug build: cargo build.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tests=$here/..
# shellcheck source=tests/stack/processes.sh
source "$tests/stack/processes.sh"
# The script is a child of itself: whatever ends this one ends all that runs below it.
if [ "${1:-}" != --attended ]; then attend bash "$0" --attended "$@"; exit; fi
shift
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

stack=$(bash "$tests/stack/stack.sh" env)
python=$(sed -n 's/^PYTHON=//p' <<<"$stack")
passed=0 failed=0

# More requests than one person sends, and more passwords than one has.
part() { # part NAME COMMAND…: COMMAND finds the service at $BASE_URL
  if bash "$tests/stage.sh" "contract: $1" bash "$tests/stack/serve.sh" RUST_LOG=warn RATE_LIMIT_USER=0 LOGIN_LIMITS=False -- "${@:2}"; then
    ((passed += 1))
  else
    ((failed += 1))
  fi
}

# schemathesis checks the document as it is in the repository; the client's part compares that with the one that is served.
schemathesis() { # schemathesis SERVER OPTION…
  (
    cd "$here/schemathesis"
    export BASE_URL=$BASE_URL$1
    exec "$python" -m schemathesis.cli --config-file schemathesis.toml run ../../../docs/openapi.json --no-color "${@:2}"
  )
}
export -f schemathesis
export here python

part "differential, the reference is FastAPI" "$python" "$here/differential/differential.py"
part "schemathesis" bash -c 'schemathesis ""'
# The second server of the document. Its routes are the same; that they are there needs no fuzzing.
part "schemathesis under /v1" bash -c 'schemathesis /v1 --exclude-tag health --phases examples,coverage'
part "client made by openapi-python-client" "$python" "$here/client/walkthrough.py"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
