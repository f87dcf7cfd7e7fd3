#!/usr/bin/env bash
# run.sh: checks what no compiler reads: the Dockerfile, the Compose file, the event schema, the AsyncAPI document, the
# CI workflow and issue forms, links in the documents, and facts that stand in several places.
# Needs cargo, Go, Node with npm, and Python 3 with venv; what they fetch is kept in their caches.
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

# The image is built from a few files: what Cargo.toml names beside them must not be asked for.
dockerfile_copies_enough() {
  local copy
  copy=$(mktemp -d) || return 1
  # The lines of the first stage; the other copies from there.
  # shellcheck disable=SC2046
  cp -r $(sed -n 's/^COPY \([^-].*\) [^ ]*$/\1/p' Dockerfile) "$copy" && (cd "$copy" && cargo fetch --locked --quiet)
  local status=$?
  rm -rf "$copy"
  return $status
}

# compose-go is what `docker compose` reads its file with: the official JSON schema, then what the file refers to.
compose() { GOTOOLCHAIN=local GOFLAGS='' go run -C "$(dirname "$1")" github.com/compose-spec/compose-go/v2/cmd@v2.1.3 "$(basename "$1")"; }

only_the_broker_differs() {
  local copy
  for copy in compose/components/kafka-pubsub.yaml kubernetes/kafka-pubsub.yaml kubernetes/resiliency.yaml; do
    diff <(grep -v '^#' "components/${copy##*/}" | sed 's/"localhost:9092"/"BROKER"/') \
      <(grep -v '^#' "deploy/$copy" | sed 's/"kafka:9092"\|"kafka.kafka:9092"/"BROKER"/') || return 1
  done
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

# The anchors that GitHub gives to a document's headings.
anchors() {
  grep -E '^#+ ' "$1" | sed -E 's/^#+ +//; s/[^[:alnum:] _-]//g; s/ /-/g' | tr '[:upper:]' '[:lower:]'
}

links() { # that files and headings which the documents point to are there
  local file target anchor missing=0
  while IFS=: read -r file target; do
    target=${target#*](} target=${target%)}
    anchor="" && [[ $target != *'#'* ]] || anchor=${target#*#}
    target=${target%%#*}
    case $target in
      '') target=$file ;;
      ../blob/HEAD/*) target=${target#../blob/HEAD/} ;; # as seen from GitHub's page for a new issue
      *) target=$(dirname "$file")/$target ;;
    esac
    [ -e "$target" ] || { echo "$file: $target"; missing=1; continue; }
    [ -z "$anchor" ] || anchors "$target" | grep -Fxq -- "$anchor" || { echo "$file: $target#$anchor"; missing=1; }
  done < <(git ls-files '*.md' '.github/*.yml' ':!tests/e2e' | xargs grep -Ho '\]([^)]*)' | grep -v '](https\?:')
  return $missing
}

# The same everywhere: actionlint would also run shellcheck where it is installed.
workflows() {
  GOTOOLCHAIN=local GOFLAGS='' go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 -shellcheck= -pyflakes=
}

# GitHub ignores forms and a dependabot.yml that it can't read, without a word to contributors.
forms() {
  local schema="${python%/*}/check-jsonschema"
  "$schema" --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml &&
    "$schema" --builtin-schema vendor.dependabot .github/dependabot.yml
}

# GitHub's own actions by their major version, others by the commit: their tags can be moved.
pinned_actions() {
  ! grep -n 'uses:' .github/workflows/*.yml | grep -vE 'uses: (actions/[a-z-]+@v[0-9]+|[^ @]+@[0-9a-f]{40}( #.*)?)$'
}

# One that is not passed on would be ignored without a word. Left out: what the file itself decides.
settings_are_passed_on() { # settings_are_passed_on FILE FROM TO: those of the service between two lines of FILE
  local own='HOST|PORT|DATABASE_PASSWORD_FILE|DAPR_HTTP_ENDPOINT|DAPR_HOST|DAPR_HTTP_PORT|DAPR_PORT|DAPR_PUBSUB_NAME|ADMIN_PASSWORD_FILE'
  diff <(sed -n '/^## Settings/,/^## /s/^| `\([A-Z_]*\)`.*/\1/p' README.md | grep -vxE "$own" | sort) \
    <(sed -n "/^$2:/,/^$3:/s/^ *\\([A-Z_]*\\): .*/\\1/p" "$1" | sort)
}

make_targets() { # that targets which CI runs and documents name are in the Makefile
  local file target missing=0
  local files=(.github/workflows/*.yml .ci/run ./*.md .github/*.md docs/*.md docs/adr/*.md)
  while IFS=: read -r file target; do
    target=${target##* }
    grep -q "^$target:" Makefile || { echo "$file: make $target"; missing=1; }
  done < <(grep -HoE '(run:|"|`) *make [a-z-]+' "${files[@]}")
  return $missing
}

cargo_toml() { sed -n "s/^$1 = \"\(.*\)\"$/\1/p" Cargo.toml; } # cargo_toml KEY: its value in Cargo.toml

oldest_rust() { # README.md and the Dockerfile name the one that Cargo.toml does
  local rust
  rust=$(cargo_toml rust-version)
  grep -qF "[Rust](https://rustup.rs) $rust or newer" README.md && grep -q "^FROM rust:$rust\.[0-9]*-" Dockerfile
}

# docs/openapi.json is compared by tests/it.
event_version() { grep -qFx "  version: $(cargo_toml version)" docs/asyncapi.yaml; }

# `## Unreleased`, then releases with dates, of which the first is Cargo.toml's; the headings of keepachangelog.com.
changelog() {
  local releases version
  releases=$(grep '^## ' CHANGELOG.md)
  version=$(cargo_toml version)
  [ "$(head -n 1 <<<"$releases")" = "## Unreleased" ] || { echo "the first heading is not Unreleased"; return 1; }
  [[ $(sed -n 2p <<<"$releases") == "## $version - "* ]] || { echo "the newest release is not $version"; return 1; }
  ! sed 1d <<<"$releases" | grep -vE '^## [0-9]+\.[0-9]+\.[0-9]+ - [0-9]{4}-[0-9]{2}-[0-9]{2}$' || return 1
  ! grep '^### ' CHANGELOG.md | grep -vE '^### (Added|Changed|Deprecated|Removed|Fixed|Security)$'
}

decisions() { # each has its number, its date and its status, and says what else was considered
  local file number=0 wrong=0
  for file in docs/adr/*.md; do
    number=$((number + 1))
    { [[ $file == docs/adr/$(printf %04d $number)-* ]] && grep -q "^# $number\. " "$file" &&
      grep -qE '^Date: [0-9]{4}-[0-9]{2}-[0-9]{2}\. Status: ' "$file" && grep -q '^\*\*Considered\.\*\*' "$file" &&
      grep -q '^\*\*Decision\.\*\*' "$file"; } || { echo "$file"; wrong=1; }
  done
  return $wrong
}

check "Dockerfile: hadolint" dockerfile
check "Dockerfile: what it copies is a package" dockerfile_copies_enough
check "docker-compose.yml: the Compose specification" compose docker-compose.yml
check "deploy/compose/replicas.yml: the Compose specification" compose deploy/compose/replicas.yml
check "docker-compose.yml: it passes on every setting of README.md" settings_are_passed_on docker-compose.yml "  todo-backend" "  dapr"
check "deploy/compose/replicas.yml: it passes on every setting of README.md" settings_are_passed_on deploy/compose/replicas.yml \
  x-replica x-sidecar
check "deploy: as components, with another broker" only_the_broker_differs
check "docs/events.schema.json: valid, and fits the example in docs/events.md" example_event
check "docs/asyncapi.yaml: AsyncAPI 3.0, and its examples fit the event schema" asyncapi
check ".github/workflows: actionlint" workflows
check ".github/workflows: actions are pinned" pinned_actions
check ".github: issue forms and dependabot.yml, by GitHub's schemas" forms
check "make targets that CI and the documents name" make_targets
check "the oldest Rust: Cargo.toml, README.md, Dockerfile" oldest_rust
check "docs/asyncapi.yaml: the version is Cargo.toml's" event_version
check "CHANGELOG.md: releases, dates, headings" changelog
check "docs/adr: numbers, dates, considered options" decisions
check "links between documents" links
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
