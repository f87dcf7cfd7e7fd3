#!/usr/bin/env bash
# run.sh: the web tests against the service at $BASE_URL, which has the demo users (DEBUG=True):
#
#   bash tests/stack/serve.sh -- bash tests/web/run.sh
#
# Swagger UI, ReDoc and CORS in Chromium; the OpenAPI document in Redocly, Spectral and TypeScript; web/client in Node.js and
# Chromium, the page. Screenshots are written to target/web. Arguments go to `node --test`: --test-name-pattern=ReDoc.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
stack=$root/tests/stack
# shellcheck source=tests/stack/processes.sh
source "$stack/processes.sh"
# The script is a child of itself: whatever ends this one ends all that runs below it.
if [ "${1:-}" != --attended ]; then attend bash "$0" --attended "$@"; exit; fi
shift
[ -n "${BASE_URL:-}" ] || { echo "run.sh: BASE_URL is not set: bash tests/stack/serve.sh -- bash tests/web/run.sh" >&2; exit 1; }
started=$SECONDS

bash "$stack/stack.sh" packages
CHROMIUM=${CHROMIUM:-$(bash "$stack/stack.sh" chromium)}
export CHROMIUM
# Debian's wrapper script complains about machines with more memory than it can count.
"$CHROMIUM" --version 2>/dev/null

# What is committed is what the sources build to.
npm run --silent --prefix "$root/web" types >/dev/null
npm run --silent --prefix "$root/web" check
cd "$here"

export SCREENSHOTS=${SCREENSHOTS:-${CARGO_TARGET_DIR:-$root/target}/web}
# A name that only the browser resolves, to the tests' own page.
export ALLOWED_ORIGIN=http://app.test
export DEBUG_URL=$BASE_URL
results=$(mktemp)
# Files run side by side, since most tests wait. Of one file, in ms: what never ends is named, such as a client that a test has not closed.
limit=900000
# Once begun, no second signal ends it.
trap 'trap "" INT TERM HUP; rm -f "$results"' EXIT
status=0
# The second service is as in production: no demo users, one listed origin.
bash "$stack/serve.sh" DEBUG=False SECRET_KEY=web-tests-web-tests-web-tests-web-tests APP_API_TOKEN=web-tests \
  CORS_ALLOWED_ORIGINS="$ALLOWED_ORIGIN" -- \
  bash -c 'STRICT_URL=$BASE_URL BASE_URL=$DEBUG_URL exec "$@"' _ \
  node --test --test-concurrency=2 --test-timeout="$limit" --test-reporter=spec --test-reporter-destination=stdout --test-reporter=tap \
  --test-reporter-destination="$results" "$@" browser.test.mjs contract.test.mjs follow.test.mjs client.test.mjs offline.test.mjs \
  page.test.mjs || status=$?

count() { awk -v name="$1" '$1 == "#" && $2 == name { n = $3 } END { print n + 0 }' "$results"; }
passed=$(count pass)
# A test that is cut off, skipped or left for later has not passed, unless the caller chose among them.
failed=$(($(count tests) - passed))
if [ $# -gt 0 ]; then failed=$((failed - $(count skipped))); fi
if [ "$status" -eq 0 ] && { [ "$failed" -ne 0 ] || [ "$passed" -eq 0 ]; }; then status=1; fi
echo "screenshots: $SCREENSHOTS"
echo "web tests: $passed passed, $failed failed in $((SECONDS - started)) s"
exit "$status"
