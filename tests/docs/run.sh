#!/usr/bin/env bash
# run.sh: checks what no compiler reads: the Dockerfile, the Compose file, the event schema, the AsyncAPI document and links in the docs.
# Needs Go, Node with npm, and Python 3 with venv; what they fetch is kept in their caches.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/stack/processes.sh
source "$here/../stack/processes.sh"
# The script is a child of itself: whatever ends this one ends all that runs below it.
if [ "${1:-}" != --attended ]; then attend bash "$0" --attended "$@"; exit; fi
shift
cd "$here/../.." || exit
passed=0 failed=0

check() { # check LABEL COMMAND…
  local label=$1 output
  shift
  if output=$("$@" 2>&1); then
    passed=$((passed + 1))
    echo "ok      $label"
  else
    failed=$((failed + 1))
    printf 'FAILED  %s\n%s\n' "$label" "$output"
  fi
}

python=$(bash tests/stack/stack.sh python) || exit 1

dockerfile() { "${python%/*}/hadolint" Dockerfile; }

# compose-go is what `docker compose` reads its file with: the official JSON schema, then what the file refers to.
compose() { GOTOOLCHAIN=local GOFLAGS='' go run github.com/compose-spec/compose-go/v2/cmd@v2.1.3 docker-compose.yml; }

only_the_broker_differs() {
  diff <(grep -v '^#' components/kafka-pubsub.yaml | sed 's/"localhost:9092"/"kafka:9092"/') \
    <(grep -v '^#' deploy/compose/components/kafka-pubsub.yaml)
}

# Reads events, one a line; fails when there is none, or one that is not as the schema says.
all_valid() {
  local verdicts
  verdicts=$("$python" tests/docs/validate.py docs/events.schema.json) && [ -n "$verdicts" ] || return 1
  ! grep -vx valid <<<"$verdicts"
}

example_event() { # the JSON block of docs/events.md
  sed -n '/^```json$/,/^```$/{/^```/d;p}' docs/events.md | tr -d '\n' | all_valid
}

asyncapi() {
  local installed=tests/docs/node_modules/installed
  if ! cmp -s tests/docs/package-lock.json $installed; then
    npm ci --prefix tests/docs --ignore-scripts --no-audit --no-fund && cp tests/docs/package-lock.json $installed || return 1
  fi
  node tests/docs/asyncapi.mjs docs/asyncapi.yaml | all_valid
}

links() { # that files which the documents point to are there
  local file target missing=0
  while IFS=: read -r file target; do
    target=${target#*](} target=${target%)} target=${target%%#*}
    [ -z "$target" ] || [ -e "$(dirname "$file")/$target" ] || { echo "$file: $target"; missing=1; }
  done < <(git ls-files '*.md' ':!tests/e2e' | xargs grep -Ho '\]([^)]*)' | grep -v '](https\?:')
  return $missing
}

check "Dockerfile: hadolint" dockerfile
check "docker-compose.yml: the Compose specification" compose
check "deploy/compose/components: as components, with another broker" only_the_broker_differs
check "docs/events.schema.json: valid, and fits the example in docs/events.md" example_event
check "docs/asyncapi.yaml: AsyncAPI 3.0, and its examples fit the event schema" asyncapi
check "links between documents" links
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
