#!/usr/bin/env bash
# tool.sh CRATE VERSION BINARY [ARGUMENT…]: runs a tool that cargo installs, from the cache outside the checkout;
# installs it there the first time.
set -euo pipefail
# shellcheck source=tests/stack/processes.sh
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"
crate=$1 version=$2 binary=$3
shift 3
root=${XDG_CACHE_HOME:-$HOME/.cache}/todo-backend/$crate-$version
if [ ! -x "$root/bin/$binary" ]; then
  echo "installing $crate $version (some minutes, once) …" >&2
  mkdir -p "$(dirname "$root")"
  if ! attend cargo install --quiet --locked --root "$root" --version "$version" "$crate" >"$root.log" 2>&1; then
    tail -n 30 "$root.log" >&2
    echo "cargo install $crate failed; the whole output is in $root.log" >&2
    exit 1
  fi
fi
exec "$root/bin/$binary" "$@"
