#!/usr/bin/env bash
# The real stack without Docker: finds or builds daprd, the dapr CLI and Kafka, and runs them; finds or fetches and runs
# PostgreSQL; finds or installs the browser of the web tests.
# One script for `make`, the tests and CI. Everything it builds is cached outside the checkout, in
# ${XDG_CACHE_HOME:-~/.cache}/todo-backend, once per version.
#
#   stack.sh build                       everything below, ready to run; prints what was found or built
#   stack.sh env                         the same, as NAME=value lines for a caller to read
#   stack.sh chromium                    the path of Chromium, installed if it has to be
#   stack.sh packages                    the packages of web and tests/web
#   stack.sh python                      the Python with tests/stack/requirements.txt; prints its path
#   stack.sh promtool                    the path of a promtool, for the checks of deploy/
#   stack.sh pocketbase                  the path of PocketBase, which `make bench` compares with
#   stack.sh postgres DIR PORT [OPTION…] one PostgreSQL in the foreground (this process becomes postgres); data in DIR
#   stack.sh standby DIR PORT PRIMARY    the same as a standby of the one on port PRIMARY, which knows it as "standby"
#   stack.sh psql [ARGUMENT…]            the psql that comes with it
#   stack.sh kafka DIR PORT              one broker in the foreground (this process becomes java); data in DIR
#   stack.sh dapr SERVICE_BINARY         Kafka + `dapr run` + the service; ctrl-c stops all of it
#   stack.sh replicas SERVICE_BINARY     Kafka, PostgreSQL, REPLICAS (3) services with their sidecars, and nginx before them, on
#                                        PORT (8000); ctrl-c stops all of it
#
# An installed `dapr`/`daprd` is preferred, except when CI is set (CI tests the pinned versions) or STACK_PINNED=1.
set -euo pipefail

DAPR_VERSION=1.14.0
DAPR_CLI_VERSION=1.12.0
KAFKA_VERSION=4.1.0
# The newest that Go 1.25 builds.
POCKETBASE_VERSION=0.36.8

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=tests/stack/processes.sh
source "$here/processes.sh"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/todo-backend

say() { printf 'stack: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

need() { # need COMMAND "what to install"
  command -v "$1" >/dev/null 2>&1 || die "'$1' is not installed: $2"
}

# step LABEL COMMAND…: runs it with its output in a log, a sign of life every 15 s, and the time it took.
step() {
  local label=$1 log started
  shift
  mkdir -p "$cache/log"
  log=$cache/log/${label//[^a-zA-Z0-9.]/-}.log
  started=$SECONDS
  say "$label …"
  begin "$@" >"$log" 2>&1 </dev/null
  while going; do
    sleep 1
    if (((SECONDS - started) % 15 == 14)); then say "$label … $((SECONDS - started)) s"; fi
  done
  if ! conclude; then
    tail -n 30 "$log" >&2
    die "$label failed; the whole output is in $log"
  fi
  say "$label: done in $((SECONDS - started)) s"
}

# One build at a time. Builds inherit the lock: should one outlive a script that was killed, the next waits for it.
lock() {
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  command -v flock >/dev/null 2>&1 || return 0
  flock -n 9 || { say "waiting for another build"; flock 9; }
}
unlock() { exec 9>&-; }

# once TARGET COMMAND…: runs COMMAND with a scratch directory as its last argument and moves that into place,
# so that a half-made target is never seen.
once() {
  local target=$1
  shift
  [ -e "$target" ] && return 0
  lock
  if [ ! -e "$target" ]; then
    partial=$target.partial
    trap 'trap "" INT TERM HUP; rm -rf "$partial"' EXIT
    rm -rf "$partial"
    mkdir -p "$partial"
    # Not in an `if` or with `||`: both would switch `set -e` off inside the function.
    "$@" "$partial"
    mv "$partial" "$target"
    trap - EXIT
  fi
  unlock
}

# Dapr's go.mod has `replace` lines, which `go install MODULE@VERSION` refuses: build it from a scratch module
# that takes over its requirements and checksums.
go_build() { # go_build MODULE VERSION PACKAGE OUTPUT LDFLAGS TAGS SCRATCH
  local module=$1 version=$2 package=$3 output=$4 ldflags=$5 tags=$6 scratch=$7 source
  export GOTOOLCHAIN=local GOFLAGS=-buildvcs=false
  source=$(cd "$scratch" && go mod download -json "$module@v$version" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
  [ -d "$source" ] || { echo "go mod download $module@v$version found nothing"; return 1; }
  mkdir "$scratch/src"
  sed 's#^module .*#module scratch#' "$source/go.mod" >"$scratch/src/go.mod"
  cat "$source/go.sum" >"$scratch/src/go.sum"
  (cd "$scratch/src" &&
    go mod edit -require "$module@v$version" &&
    go build -mod=mod -tags "$tags" -ldflags "-s -w $ldflags" -o "$scratch/$output" "$package")
  rm -rf "$scratch/src"
}

build_daprd() {
  need go "Go 1.22 or newer builds the Dapr sidecar (https://go.dev/dl), or install Dapr itself: https://docs.dapr.io/getting-started/install-dapr-cli"
  step "building daprd $DAPR_VERSION (about 4 minutes, once)" go_build github.com/dapr/dapr "$DAPR_VERSION" \
    github.com/dapr/dapr/cmd/daprd daprd "-X github.com/dapr/dapr/pkg/buildinfo.version=$DAPR_VERSION" stablecomponents "$1"
}

build_dapr_cli() {
  need go "Go 1.22 or newer builds the Dapr CLI (https://go.dev/dl), or install it: https://docs.dapr.io/getting-started/install-dapr-cli"
  step "building the dapr CLI $DAPR_CLI_VERSION (about 2 minutes, once)" go_build github.com/dapr/cli "$DAPR_CLI_VERSION" \
    github.com/dapr/cli dapr "-X main.version=$DAPR_CLI_VERSION -X github.com/dapr/cli/pkg/version.version=$DAPR_CLI_VERSION" "" "$1"
}

fetch_kafka() {
  need java "Kafka needs a Java runtime, version 17 or newer (Debian: apt-get install default-jre-headless)"
  need mvn "Maven fetches Kafka (Debian: apt-get install maven)"
  step "fetching Kafka $KAFKA_VERSION" mvn -q -B -f "$here/pom.xml" -Dkafka.version="$KAFKA_VERSION" \
    dependency:copy-dependencies -DoutputDirectory="$1"
}

installed() { # installed COMMAND: its path, unless the pinned version is asked for
  if [ -z "${CI:-}" ] && [ "${STACK_PINNED:-0}" != 1 ]; then command -v "$1" 2>/dev/null || true; fi
}

# `dapr run` looks for daprd in RUNTIME_PATH/.dapr/bin and for RUNTIME_PATH/.dapr/config.yaml,
# which `dapr init --slim` would make.
make_runtime() {
  mkdir -p "$1/.dapr/bin" "$1/.dapr/components"
  ln -s "$DAPRD" "$1/.dapr/bin/daprd"
  cat >"$1/.dapr/config.yaml" <<'YAML'
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: daprConfig
spec: {}
YAML
}

find_daprd() {
  DAPRD=$(installed daprd)
  if [ -z "$DAPRD" ] && [ -z "${CI:-}" ] && [ "${STACK_PINNED:-0}" != 1 ] && [ -x "$HOME/.dapr/bin/daprd" ]; then
    DAPRD=$HOME/.dapr/bin/daprd
  fi
  if [ -z "$DAPRD" ]; then
    once "$cache/daprd-$DAPR_VERSION" build_daprd
    DAPRD=$cache/daprd-$DAPR_VERSION/daprd
  fi
}

find_dapr_cli() {
  DAPR=$(installed dapr)
  if [ -z "$DAPR" ]; then
    once "$cache/dapr-cli-$DAPR_CLI_VERSION" build_dapr_cli
    DAPR=$cache/dapr-cli-$DAPR_CLI_VERSION/dapr
  fi
  DAPR_RUNTIME_PATH=$cache/runtime-$(printf '%s' "$DAPRD" | cksum | cut -d' ' -f1)
  once "$DAPR_RUNTIME_PATH" make_runtime
}

find_kafka() {
  once "$cache/kafka-$KAFKA_VERSION" fetch_kafka
  KAFKA_LIBS=$cache/kafka-$KAFKA_VERSION
}

make_python() {
  need python3 "the tests run the seed's Python snippet and check events with it (Debian: apt-get install python3 python3-venv)"
  # Virtual environments hold their own path: made in place, and marked as complete by the name of the marker.
  step "installing Python packages" bash -c \
    'python3 -m venv --clear "$1" && "$1/bin/pip" install -q --disable-pip-version-check -r "$2"' _ "$PYTHON_ENV" "$here/requirements.txt"
}

find_python() {
  PYTHON_ENV=$cache/python-$(cksum <"$here/requirements.txt" | cut -d' ' -f1)
  once "$PYTHON_ENV.ready" make_python
}

look_for_chromium() {
  local name
  CHROMIUM=""
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    CHROMIUM=$(command -v "$name" 2>/dev/null) && return 0
  done
  return 1
}

install_chromium() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update
  # Text in screenshots needs a font, which is only recommended.
  apt-get install -y --no-install-recommends chromium fonts-liberation
}

# Chromium is not pinned: a distribution keeps only its newest, and old browsers are not worth testing.
find_chromium() {
  look_for_chromium && return 0
  if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
    die "Chromium is not installed; the web tests need it (Debian: sudo apt-get install chromium; elsewhere Chromium or Google Chrome)"
  fi
  lock
  look_for_chromium || step "installing Chromium (about 400 MB, once)" install_chromium
  unlock
  look_for_chromium || die "apt-get installed no Chromium; install Chromium or Google Chrome"
}

need_node() {
  local version
  need node "the web tests run on Node.js 20.19 or newer (Debian 13: apt-get install nodejs npm; or https://nodejs.org)"
  need npm "it comes with Node.js (Debian: apt-get install npm)"
  version=$(node --version)
  node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' ||
    die "node is $version; the web tests need 20.19 or newer: https://nodejs.org"
}

# npm keeps no record of the lock file that it installed: this one is ours.
find_packages() {
  local directory installed wanted
  need_node
  for directory in "$root/web" "$root/tests/web"; do
    installed=$directory/node_modules/.package-lock.cksum
    wanted=$(cat "$directory/package.json" "$directory/package-lock.json" | cksum)
    [ "$(cat "$installed" 2>/dev/null)" != "$wanted" ] || continue
    lock
    step "installing the packages of ${directory#"$root/"}" npm ci --prefix "$directory" --no-progress
    printf '%s\n' "$wanted" >"$installed"
    unlock
  done
}

fetch_faketime() {
  step "fetching libfaketime" bash -c 'cd "$1" && { apt-get download libfaketime || { apt-get update && apt-get download libfaketime; }; } && dpkg -x libfaketime_*.deb . && rm libfaketime_*.deb' _ "$1"
}

# libfaketime shows one test's service another time. Where it can't be had, FAKETIME is empty, and only that test fails.
find_faketime() {
  FAKETIME=$(compgen -G "/usr/lib*/*/faketime/libfaketimeMT.so.1" | head -n 1 || true)
  if [ -z "$FAKETIME" ] && command -v apt-get >/dev/null 2>&1; then
    attend once "$cache/libfaketime" fetch_faketime || say "no libfaketime: its test will fail"
    FAKETIME=$(compgen -G "$cache/libfaketime/usr/lib/*/faketime/libfaketimeMT.so.1" | head -n 1 || true)
  fi
}

# One program of a Debian package: installing the package would start a service.
unpack_program() { # unpack_program PACKAGE PATH SCRATCH
  # shellcheck disable=SC2016
  step "fetching ${2##*/}" bash -euo pipefail -c '
    cd "$3"
    apt-get download "$1" || { apt-get update && apt-get download "$1"; }
    dpkg -x "$1"_*.deb unpacked
    mv "unpacked/$2" .
    rm -rf unpacked "$1"_*.deb' _ "$@"
}

# find_program PACKAGE PATH ABOUT: prints where the program is that Debian's PACKAGE has at PATH.
find_program() {
  local name=${2##*/}
  PATH=$PATH:/usr/sbin command -v "$name" 2>/dev/null && return 0
  if [ ! -x "$cache/$name/$name" ] && ! { [ "$(id -u)" = 0 ] && command -v apt-get dpkg >/dev/null 2>&1; }; then
    die "'$name' is not installed: $3 (Debian: apt-get install $1)"
  fi
  once "$cache/$name" unpack_program "$1" "$2"
  printf '%s\n' "$cache/$name/$name"
}

find_promtool() {
  PROMTOOL=$(find_program prometheus usr/bin/promtool "it comes with Prometheus (https://prometheus.io/download)")
}

find_nginx() {
  NGINX=$(find_program nginx usr/sbin/nginx "a test puts the service behind it (https://nginx.org)")
}

# The server does not run as root. Root starts it as somebody else.
as_somebody() {
  as_server=()
  [ "$(id -u)" = 0 ] || return 0
  need setpriv "PostgreSQL does not run as root, and setpriv starts it as somebody else (Debian: apt-get install util-linux)"
  account=postgres
  id -u "$account" >/dev/null 2>&1 || account=nobody
  as_server=(setpriv --reuid="$(id -u "$account")" --regid="$(id -g "$account")" --clear-groups)
}

has_postgres() { # has_postgres DIR: all that the tests use is there
  local name
  for name in initdb postgres pg_ctl psql pg_dump pg_basebackup; do [ -x "$1/$name" ] || return 1; done
}

# Distributions keep the server out of PATH, and several of its versions side by side.
look_for_postgres() {
  local program
  POSTGRES_BIN=""
  if program=$(command -v postgres 2>/dev/null); then
    # A link in PATH: the other programs are where it leads.
    POSTGRES_BIN=$(dirname "$(realpath "$program")")
    has_postgres "$POSTGRES_BIN" && return 0
  fi
  # That is where it would be: a package with headers has pg_config, too.
  POSTGRES_BIN=$(pg_config --bindir 2>/dev/null) && has_postgres "$POSTGRES_BIN" && return 0
  while IFS= read -r POSTGRES_BIN; do
    has_postgres "$POSTGRES_BIN" && return 0
  done < <(compgen -G "/usr/lib/postgresql/*/bin" | sort -rV)
  return 1
}

# Debian's server, its client programs and what they need of packages that are not installed.
fetch_postgres() { # fetch_postgres SCRATCH
  # shellcheck disable=SC2016
  step "fetching PostgreSQL (20 to 40 MB, once)" bash -euo pipefail -c '
    cd "$1"
    # The version is the one that `postgresql`, which is empty, depends on.
    newest() {
      apt-cache depends postgresql 2>/dev/null | sed -n "s/^ *Depends: \(postgresql-[0-9]*\)$/\1/p" | head -n 1
    }
    fetch() {
      local server packages package
      server=$(newest) && [ -n "$server" ] || return 1
      packages=("$server" "${server/-/-client-}" libpq5)
      # Each line is a URL and the name of a file, PACKAGE_VERSION_ARCHITECTURE.deb.
      while IFS= read -r package; do
        case $package in
          # LLVM compiles expensive queries and is larger than all the rest; Perl is for the scripts that Debian adds.
          libllvm* | libz3-* | *perl*) ;;
          "$server" | "${server/-/-client-}" | libpq5) ;;
          lib*) dpkg -s "$package" >/dev/null 2>&1 || packages+=("$package") ;;
        esac
      done < <(apt-get install --print-uris -qq --no-install-recommends "$server" |
        sed -n "s/^.* \([^ _]*\)_[^ ]*\.deb .*/\1/p")
      echo "${packages[*]}"
      apt-get download "${packages[@]}"
    }
    fetch || { rm -f -- *.deb; apt-get update; fetch; }
    for package in *.deb; do dpkg -x "$package" .; done
    rm -- *.deb
    # Without it the server does not look for LLVM.
    rm -f usr/lib/postgresql/*/lib/llvmjit.so
    # The server finds its files by where it is itself, but not its libraries. What a program starts, inherits them.
    mkdir bin
    for program in usr/lib/postgresql/*/bin/*; do
      cat >"bin/${program##*/}" <<"SCRIPT"
#!/usr/bin/env bash
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
libraries=$(echo "$root"/usr/lib/*-linux-*)
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec "$root"/usr/lib/postgresql/*/bin/"${0##*/}" "$@"
SCRIPT
      chmod 755 "bin/${program##*/}"
    done
    # The last line of what is shown when it fails.
    missing=$(LD_LIBRARY_PATH=$(echo "$PWD"/usr/lib/*-linux-*) ldd usr/lib/postgresql/*/{bin/*,lib/*.so} |
      awk "/not found/ { print \$1 }" | sort -u)
    [ -z "$missing" ] || { echo "libraries that no package had: $missing"; exit 1; }' _ "$1"
}

# Not installed: that would start a server, and keep it.
find_postgres() {
  local target
  look_for_postgres && return 0
  target=$cache/postgresql
  if [ "$(id -u)" = 0 ]; then
    # Who runs the server must reach it, and root's home is mostly closed.
    as_somebody
    mkdir -p "$cache"
    "${as_server[@]}" test -x "$cache" || target=/var/cache/todo-backend/postgresql
  fi
  if [ ! -x "$target/bin/postgres" ] && ! { [ "$(id -u)" = 0 ] && command -v apt-get dpkg >/dev/null 2>&1; }; then
    die "PostgreSQL is not installed: tests store todos in it (Debian: apt-get install postgresql; elsewhere https://postgresql.org/download)"
  fi
  once "$target" fetch_postgres
  POSTGRES_BIN=$target/bin
}

build_pocketbase() {
  need go "Go 1.25 or newer builds PocketBase, which 'make bench' compares with (https://go.dev/dl)"
  # The program that PocketBase is released as; its folder is called base.
  step "building PocketBase $POCKETBASE_VERSION (about 2 minutes, once)" env GOBIN="$1" \
    go install "github.com/pocketbase/pocketbase/examples/base@v$POCKETBASE_VERSION"
}

find_pocketbase() {
  once "$cache/pocketbase-$POCKETBASE_VERSION" build_pocketbase
  POCKETBASE=$cache/pocketbase-$POCKETBASE_VERSION/base
}

find_all() {
  need curl "the stack and the seed's examples use curl (Debian: apt-get install curl)"
  find_packages
  find_daprd
  find_dapr_cli
  find_kafka
  find_python
  find_chromium
  find_faketime
  find_promtool
  find_nginx
  find_postgres
}

# run_postgres DIR PORT PRIMARY OPTION…: initializes DIR on first use, as a copy of the server on port PRIMARY if that is not empty;
# nothing but 127.0.0.1:PORT reaches it.
run_postgres() {
  local dir=$1 port=$2 primary=$3 above closed
  shift 3
  find_postgres
  as_somebody
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  # What `mktemp -d` makes is closed to all others; to pass through is all that the server's user gets.
  while [ ${#as_server[@]} -gt 0 ] && ! "${as_server[@]}" test -x "$dir"; do
    above=$dir closed=""
    while ! "${as_server[@]}" test -x "$above"; do closed=$above above=$(dirname "$above"); done
    [ "$closed" != "$HOME" ] ||
      die "$dir is in $HOME, which '$account', who runs the server for root, can't enter: take one that is not"
    chmod o+x "$closed"
  done
  if [ ! -d "$dir/data" ]; then
    # Under its name only when it is complete: who is stopped in between begins again.
    rm -rf "$dir/data.partial"
    mkdir -m 700 "$dir/data.partial"
    [ ${#as_server[@]} = 0 ] || chown "$(id -u "$account"):$(id -g "$account")" "$dir/data.partial"
    # Not flushed to the disk: tests kill processes, not machines.
    local initialize=("$POSTGRES_BIN/initdb" -D "$dir/data.partial" -U todo --auth=trust --encoding=UTF8 --locale=C.UTF-8
      --no-sync --no-instructions)
    [ -z "$primary" ] || initialize=("$POSTGRES_BIN/pg_basebackup" -D "$dir/data.partial" --write-recovery-conf --checkpoint=fast
      --no-sync -d "host=127.0.0.1 port=$primary user=todo application_name=standby")
    (cd / && "${as_server[@]}" "${initialize[@]}") >"$dir/initdb.log" 2>&1 ||
      { cat "$dir/initdb.log" >&2; die "PostgreSQL can't be initialized in $dir"; }
    mv "$dir/data.partial" "$dir/data"
  fi
  cd /
  exec "${as_server[@]}" "$POSTGRES_BIN/postgres" -D "$dir/data" -p "$port" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= "$@"
}

run_kafka() { # run_kafka DIR PORT: formats DIR on first use; the controller listens on an ephemeral port
  local dir=$1 port=$2 controller
  find_kafka
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  if [ ! -f "$dir/server.properties" ]; then
    # A port that nobody listens on now.
    controller=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    # Under its name only when the storage is ready, too: who is stopped in between begins again.
    cat >"$dir/server.properties.partial" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://localhost:$port
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/log
num.partitions=4
auto.create.topics.enable=true
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES
    java -cp "$KAFKA_LIBS/*" kafka.tools.StorageTool format --ignore-formatted -t 4L6g3nShT-eMCtK--X86sw \
      -c "$dir/server.properties.partial" >"$dir/format.log" 2>&1 ||
      { cat "$dir/format.log" >&2; die "Kafka's storage can't be formatted in $dir"; }
    mv "$dir/server.properties.partial" "$dir/server.properties"
  fi
  exec java -Xmx512m -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    -cp "$KAFKA_LIBS/*" kafka.Kafka "$dir/server.properties"
}

# shellcheck source=tests/stack/running.sh
source "$here/running.sh"

case ${1:-} in
  build)
    find_all
    say "daprd   $DAPRD ($("$DAPRD" --version))"
    say "dapr    $DAPR ($("$DAPR" --version | head -n 1))"
    say "kafka   $KAFKA_LIBS ($KAFKA_VERSION)"
    say "python  $PYTHON_ENV"
    say "promtool $PROMTOOL"
    say "nginx   $NGINX ($("$NGINX" -v 2>&1))"
    say "postgres $POSTGRES_BIN ($("$POSTGRES_BIN/postgres" --version))"
    say "browser $CHROMIUM ($("$CHROMIUM" --version 2>/dev/null))"
    ;;
  env)
    find_all
    printf '%s=%s\n' DAPRD "$DAPRD" DAPR "$DAPR" DAPR_RUNTIME_PATH "$DAPR_RUNTIME_PATH" KAFKA_LIBS "$KAFKA_LIBS" \
      PYTHON "$PYTHON_ENV/bin/python" CHROMIUM "$CHROMIUM" FAKETIME "$FAKETIME" NGINX "$NGINX" \
      POSTGRES_BIN "$POSTGRES_BIN"
    ;;
  packages)
    find_packages
    ;;
  pocketbase)
    find_pocketbase
    printf '%s\n' "$POCKETBASE"
    ;;
  chromium)
    find_chromium
    printf '%s\n' "$CHROMIUM"
    ;;
  python)
    find_python
    printf '%s\n' "$PYTHON_ENV/bin/python"
    ;;
  promtool)
    find_promtool
    printf '%s\n' "$PROMTOOL"
    ;;
  postgres)
    [ $# -ge 3 ] || die "usage: stack.sh postgres DIR PORT [OPTION…]"
    run_postgres "$2" "$3" "" "${@:4}"
    ;;
  standby)
    [ $# -eq 4 ] || die "usage: stack.sh standby DIR PORT PRIMARY"
    run_postgres "${@:2}"
    ;;
  psql)
    find_postgres
    exec "$POSTGRES_BIN/psql" "${@:2}"
    ;;
  kafka)
    [ $# -eq 3 ] || die "usage: stack.sh kafka DIR PORT"
    run_kafka "$2" "$3"
    ;;
  dapr)
    [ $# -eq 2 ] || die "usage: stack.sh dapr SERVICE_BINARY"
    run_dapr "$2"
    ;;
  replicas)
    [ $# -eq 2 ] || die "usage: stack.sh replicas SERVICE_BINARY"
    run_replicas "$2"
    ;;
  *)
    sed -n '2,22s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
