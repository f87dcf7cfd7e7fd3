# shellcheck shell=bash disable=SC2154
# Sourced by stack.sh: runs several things together, and stops all of them in their order, however this ends.

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# What `make dapr` starts has sessions of its own, so that a terminal's ctrl-c reaches only this script, which stops
# things in their order. It also carries the run in its environment, as PID, start time, part and checkout: that is how
# it is found again, whoever its parent is by then.
launch() { # launch PART COMMAND…, in the background
  trap - INT QUIT TERM HUP PIPE
  TODO_BACKEND_STACK="$run $1 $root" exec setsid "${@:2}"
}

born() { cut -d ' ' -f 22 "/proc/$1/stat" 2>/dev/null || true; } # born PID: its start time

part_of() { # part_of RUN PART: the processes of that part
  grep -lzsxF "TODO_BACKEND_STACK=$1 $2 $root" /proc/[0-9]*/environ | cut -d / -f 3 || true
}

# services_of RUN: the processes of the part `dapr` that are neither the CLI nor the sidecar.
services_of() {
  local pid name
  for pid in $(part_of "$1" dapr); do
    if IFS= read -r -d '' name 2>/dev/null <"/proc/$pid/cmdline" && [[ ${name##*/} != dapr && ${name##*/} != daprd ]]; then
      echo "$pid"
    fi
  done
}

# wait_while SECOND COMMAND…: returns when COMMAND lists no process, when stop_run is SECOND seconds old, or in a hurry.
wait_while() {
  local limit=$1
  shift
  while ((!hurry && SECONDS < limit)) && [ -n "$("$@")" ]; do sleep 0.1; done
}

stop_processes() { # stop_processes SECOND COMMAND…: SIGTERM to the processes that COMMAND lists, and the same
  local pids
  pids=$("${@:2}")
  # shellcheck disable=SC2086
  [ -z "$pids" ] || kill -TERM $pids 2>/dev/null
  wait_while "$@"
}

# What there is besides the services and their sidecars, in the order in which it is stopped.
others=(nginx Kafka PostgreSQL)

left_of() { # left_of RUN: all its processes
  local part
  for part in dapr "${others[@]}"; do part_of "$1" "$part"; done
}

# stop_run RUN: the services first, which finish their requests (10 s at most), then what they use. `dapr run` would not: it
# kills the service. SIGKILL to what is left after 14 s.
stop_run() {
  local part pids
  SECONDS=0
  stop_processes 12 services_of "$1"
  # By itself the CLI shows the service's last lines and stops the sidecar.
  wait_while $((SECONDS < 11 ? SECONDS + 2 : 12)) part_of "$1" dapr
  stop_processes 13 part_of "$1" dapr
  for part in "${others[@]}"; do
    [ -z "$(part_of "$1" "$part")" ] || say "stopping $part"
    stop_processes 14 part_of "$1" "$part"
  done
  while pids=$(left_of "$1") && [ -n "$pids" ] && ((SECONDS < 20)); do
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null
    sleep 0.1
  done
}

# The EXIT trap of what is run. Nothing here may end it early: not a terminal that is gone, and not a second SIGTERM, which
# this script gets when its group was sent one, because make passes its own on.
stop_all() {
  set +e
  trap 'hurry=1; say "at once"' INT
  trap '' TERM HUP PIPE QUIT
  say "stopping the service and the sidecar (ctrl-c again: at once)"
  # What was just forked does not carry the run yet.
  local pid tries=0
  for pid in $(jobs -p); do
    while kill -0 "$pid" 2>/dev/null && ! grep -qzs '^TODO_BACKEND_STACK=' "/proc/$pid/environ" && ((tries < 20)); do
      sleep 0.1
      ((tries += 1))
    done
  done
  stop_run "$run"
  say "stopped"
}

# leave STATUS: what a signal does, once. A second one that comes before stop_all has begun to ignore it must not end that.
leave() {
  if [ -z "${leaving:-}" ]; then
    leaving=1
    exit "$1"
  fi
}

# What runs of this checkout have left behind whose script was killed.
stop_leftovers() {
  local file owner since part directory
  for file in $(grep -lzs '^TODO_BACKEND_STACK=' /proc/[0-9]*/environ || true); do
    read -r owner since part directory < <(grep -ahzs '^TODO_BACKEND_STACK=' "$file" | tr '\0' '\n' | cut -d = -f 2-) || continue
    if [ "$directory" = "$root" ] && [ "$(born "$owner")" != "$since" ]; then
      say "an earlier run was killed and has left its $part behind, process $(cut -d / -f 3 <<<"$file"): stopping all of that run"
      stop_run "$owner $since" || true
    fi
  done
}

# prepare BINARY: what both need, and the traps: from here on, stop_all stops what was launched. What is built above ends by
# itself.
prepare() {
  binary=$1
  [ -x "$binary" ] || die "$binary is not there: cargo build --release"
  need setsid "it keeps ctrl-c from Kafka and the sidecar, which are stopped in their order (Debian: apt-get install util-linux)"
  [ -r /proc/self/environ ] || die "there is no /proc, where processes are found again: on other systems than Linux, start Kafka and 'dapr run' yourself (README.md)"
  find_daprd
  find_dapr_cli
  say "daprd: $DAPRD ($("$DAPRD" --version))"
  [[ $binary = /* ]] || binary=$PWD/$binary
  cd "$root"
  mkdir -p data

  # Global, because traps use them.
  run="$$ $(born $$)" hurry=0 launched=() replicas=()
  stop_leftovers
  listening 9092 || find_kafka
  trap stop_all EXIT
  trap 'leave 129' HUP
  trap 'leave 130' INT
  trap 'leave 131' QUIT
  trap 'leave 141' PIPE
  trap 'leave 143' TERM
}

# keep NAME LOG: the last thing that was launched; without it, everything ends.
keep() { launched+=("$!" "$1" "$2"); }

# await NAME PID LOG COMMAND…: waits until COMMAND succeeds.
await() {
  local name=$1 pid=$2 log=$3 waited=0
  shift 3
  until "$@" >/dev/null 2>&1; do
    kill -0 "$pid" 2>/dev/null || { tail -n 20 "$log" >&2; die "$name did not start; see $log"; }
    ((waited += 1))
    ((waited < 300)) || die "$name was not ready within 60 s; see $log"
    sleep 0.2
  done
}

# Waits until something that was launched has ended: without it the others are of no use. Of replicas, one must be left. Not
# `wait -n`, which may miss who is gone already.
wait_for_an_end() {
  local index n status=0
  while :; do
    for ((index = 0; index < ${#launched[@]}; index += 3)); do
      kill -0 "${launched[index]}" 2>/dev/null || break 2
    done
    for n in "${!replicas[@]}"; do
      kill -0 "${replicas[n]}" 2>/dev/null && continue
      unset "replicas[n]"
      [ ${#replicas[@]} != 0 ] || die "replica $n has ended, which was the last one; see data/replicas/$n.log"
      say "replica $n has ended, the others go on; see data/replicas/$n.log"
    done
    sleep 0.5
  done
  wait "${launched[index]}" || status=$?
  local name=${launched[index + 1]} log=${launched[index + 2]}
  if [ -n "$log" ]; then
    tail -n 5 "$log" >&2
    die "$name has ended (status $status), so everything ends; see $log"
  fi
  say "error: $name has ended (status $status); it says above whether the service or the sidecar ended first"
  exit $((status ? status : 1))
}

start_kafka() { # the one that listens already, or one with its data in data/kafka
  local own
  if listening 9092; then
    own=$(grep -lzsxF "$root/data/kafka/server.properties" /proc/[0-9]*/cmdline | cut -d / -f 3 || true)
    say "using the Kafka that listens on localhost:9092, which stays${own:+ (process $own, with the data in data/kafka)}"
    return
  fi
  launch Kafka bash "$here/stack.sh" kafka "$root/data/kafka" 9092 >data/kafka.log 2>&1 </dev/null &
  keep Kafka data/kafka.log
  await Kafka $! data/kafka.log listening 9092
  say "Kafka $KAFKA_VERSION is up on localhost:9092 (data in data/kafka, log in data/kafka.log)"
}

# launch_service PORT DAPR_PORT [NAME=VALUE…]: the service with its sidecar, in the background.
launch_service() {
  launch dapr env "${@:3}" "$DAPR" run --app-id todo-backend --app-port "$1" --dapr-http-port "$2" \
    --runtime-path "$DAPR_RUNTIME_PATH" --resources-path "$root/components" --dapr-listen-addresses 127.0.0.1 \
    --log-level warn -- "$binary"
}

run_dapr() { # run_dapr SERVICE_BINARY: what `make dapr` does
  local port=${PORT:-8000} dapr_port=${DAPR_HTTP_PORT:-${DAPR_PORT:-3500}}
  prepare "$1"
  start_kafka
  say "dapr run: service on port $port, sidecar on port $dapr_port; ctrl-c stops everything"
  launch_service "$port" "$dapr_port" &
  keep "'dapr run'" ""
  wait_for_an_end
}

free_ports() { # free_ports COUNT: ports that nobody listens on now
  python3 -c '
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))' "$1"
}

# balancer_settings DIR PORT REPLICA_PORT…: deploy/compose/nginx.conf for this machine.
balancer_settings() {
  local directory=$1 port=$2 replica kind
  shift 2
  printf 'daemon off;\npid %s/pid;\nerror_log stderr;\n' "$directory"
  # Else its workers would be somebody who may not get into the directory.
  [ "$(id -u)" != 0 ] || printf 'user root;\n'
  while IFS= read -r line; do
    case $line in
      'user '* | 'error_log '*) ;;
      *'server 172.29.0.11:'*) for replica; do printf '%s\n' "${line/172.29.0.11:8000/127.0.0.1:$replica}"; done ;;
      *'server 172.29.0.'*) ;;
      *'listen 8000;') printf '%s\n' "${line/8000/127.0.0.1:$port}" ;;
      'http {')
        printf '%s\n' "$line"
        for kind in proxy fastcgi uwsgi scgi; do printf '    %s_temp_path %s/%s;\n' "$kind" "$directory" "$kind"; done
        printf '    client_body_temp_path %s/body;\n' "$directory"
        ;;
      *) printf '%s\n' "$line" ;;
    esac
  done <"$root/deploy/compose/nginx.conf"
}

run_replicas() { # run_replicas SERVICE_BINARY: what `make replicas` does
  local count=${REPLICAS:-3} port=${PORT:-8000} directory=$root/data/replicas database ports replica first n
  [[ $count =~ ^[1-9]$ ]] || die "REPLICAS is '$count': it can be 1 to 9"
  need python3 "it finds free ports (Debian: apt-get install python3)"
  need curl "it asks replicas whether they are ready (Debian: apt-get install curl)"
  ! listening "$port" || die "port $port is in use: set PORT to another one for the load balancer"
  find_nginx
  find_postgres
  prepare "$1"
  mkdir -p data/replicas
  start_kafka

  read -r -a ports <<<"$(free_ports $((2 * count + 1)))"
  database=postgres://todo@127.0.0.1:${ports[0]}/postgres
  launch PostgreSQL bash "$here/stack.sh" postgres "$directory/postgres" "${ports[0]}" >data/replicas/postgres.log 2>&1 </dev/null &
  keep PostgreSQL data/replicas/postgres.log
  await PostgreSQL $! data/replicas/postgres.log "$POSTGRES_BIN/psql" --no-psqlrc --quiet --command '' "$database"
  say "PostgreSQL is up: $database (data in data/replicas/postgres)"

  for ((n = 1; n <= count; n++)); do
    launch_service "${ports[2 * n - 1]}" "${ports[2 * n]}" PORT="${ports[2 * n - 1]}" DATABASE_URL="$database" \
      HOSTNAME="replica-$n" TRUSTED_PROXIES=127.0.0.1 >"data/replicas/$n.log" 2>&1 </dev/null &
    replicas[n]=$!
    # The first one creates the tables.
    await "replica $n" $! "data/replicas/$n.log" curl -sf "http://127.0.0.1:${ports[2 * n - 1]}/health/ready"
    [ "$n" != 1 ] || first=$(services_of "$run")
    say "replica $n is ready: http://localhost:${ports[2 * n - 1]}, its sidecar on port ${ports[2 * n]}, its log in data/replicas/$n.log"
  done

  local of_replicas=()
  for ((n = 1; n <= count; n++)); do of_replicas+=("${ports[2 * n - 1]}"); done
  balancer_settings "$directory" "$port" "${of_replicas[@]}" >data/replicas/nginx.conf
  # It writes its name over its environment, so it can't be found by that: it ends with this shell, which can.
  # shellcheck disable=SC2016
  launch nginx bash -c 'setpriv --pdeathsig TERM "$@" & wait $!' _ \
    "$NGINX" -e stderr -p "$directory" -c "$directory/nginx.conf" >data/replicas/nginx.log 2>&1 </dev/null &
  keep nginx data/replicas/nginx.log
  await nginx $! data/replicas/nginx.log curl -sf "http://127.0.0.1:$port/health/ready"
  say "all of them behind nginx: http://localhost:$port (Swagger UI: http://localhost:$port/docs); ctrl-c stops everything"
  say "to see that the others go on: kill -9 $first  # replica 1"
  wait_for_an_end
}
