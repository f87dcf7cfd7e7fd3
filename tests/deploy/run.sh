#!/usr/bin/env bash
# run.sh: checks what deploy/ has for Prometheus and Grafana with promtool, and against the metrics of a running service, and
# what it has for Kubernetes with the types of Kubernetes and Dapr. Needs Go and a built service (cargo build). The last line is `N passed, N failed`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=tests/stack/processes.sh
source "$root/tests/stack/processes.sh"
# The script is a child of itself: whatever ends this one ends all that runs below it.
if [ "${1:-}" != --attended ]; then attend bash "$0" --attended "$@"; exit; fi
shift
cd "$root"
command -v python3 >/dev/null || { echo "run.sh: python3 is not installed (Debian: apt-get install python3)" >&2; exit 1; }
command -v go >/dev/null || { echo "run.sh: go is not installed; it reads manifests as Kubernetes does (https://go.dev/dl)" >&2; exit 1; }
PROMTOOL=$(bash tests/stack/stack.sh promtool)
directory=$(mktemp -d)
# Once begun, no second signal ends it.
trap 'trap "" INT TERM HUP; rm -rf "$directory"' EXIT
passed=0
failed=0

check() { # check NAME COMMAND…: its output is shown when it fails
  local name=$1
  shift
  if "$@" >"$directory/output" 2>&1; then
    passed=$((passed + 1))
    echo "ok      $name"
  else
    failed=$((failed + 1))
    echo "FAILED  $name"
    sed 's/^/        /' "$directory/output"
  fi
}

# promtool says what it does not like about names and help, and ends with status 3.
check_metrics() { "$PROMTOOL" check metrics <"$directory/metrics"; }

manifests() {
  GOTOOLCHAIN=local GOFLAGS='' go run sigs.k8s.io/kustomize/kustomize/v5@v5.4.3 build deploy/kubernetes >"$directory/manifests" &&
    (cd "$here/kubernetes" && GOTOOLCHAIN=local GOFLAGS='' go run . <"$directory/manifests" >"$directory/needed")
}

# A field that is not there, a selector that selects nothing: that the check says so.
manifests_that_are_wrong() {
  local wrong
  for wrong in 's/maxSurge/maxSurges/' 's/^      app.kubernetes.io/      app.kubernetes.oi/' 's/targetPort: http/targetPort: https/' \
    's#dapr.io/app-port#dapr.io/port#' 's/secretKeyRef/secretRef/' 's/initialOffset/&\n    kind: x/'; do
    sed "$wrong" "$directory/manifests" >"$directory/wrong"
    ! cmp -s "$directory/manifests" "$directory/wrong" || { echo "$wrong changes nothing"; return 1; }
    ! (cd "$here/kubernetes" && GOTOOLCHAIN=local GOFLAGS='' go run . <"$directory/wrong") || { echo "$wrong is taken for right"; return 1; }
  done
}

# What pods are given from elsewhere is a setting of README.md, or a Secret that docs/replicas.md creates.
manifests_and_documents() {
  local kind name key missing=0
  while read -r kind name key; do
    case $kind in
      setting) grep -q "^| \`$name\`" README.md ;;
      secret) grep -q "create secret generic $name " docs/replicas.md && grep -q -- "--from-literal=$key=" docs/replicas.md ;;
    esac || { echo "$kind $name $key is in no document"; missing=1; }
  done <"$directory/needed"
  [ -s "$directory/needed" ] && return $missing
}

check "the manifests are what Kubernetes and Dapr understand" manifests
check "manifests that are wrong are refused" manifests_that_are_wrong
check "the manifests and the documents agree" manifests_and_documents
check "the alert rules are valid" "$PROMTOOL" check rules deploy/alerts.yml
check "the scrape configuration is valid" "$PROMTOOL" check config deploy/prometheus.yml
check "the alerts fire when they should" "$PROMTOOL" test rules deploy/alerts_test.yml
# Some requests first, so that every family has a series.
# shellcheck disable=SC2016
check "a service shows its metrics" bash tests/stack/serve.sh -- \
  bash -euo pipefail -c 'curl -sf "$BASE_URL/health" >/dev/null; curl -sf "$BASE_URL/metrics" >"$1"' _ "$directory/metrics"
touch "$directory/metrics"
check "promtool likes the metrics" check_metrics
for subject in dashboard alerts alert-tests runbooks coverage; do
  check "names agree: $subject" python3 "$here/names.py" "$subject" "$directory/metrics"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
