#!/usr/bin/env bash
# Runs a command beside a real replica set of three members, whose URI it finds in COORD_TEST_MONGODB_URI. Where the
# variable is set already, that set is used; inside of another run of this, too.
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: with-mongodb.sh COMMAND [ARGUMENT…]" >&2 && exit 2; }
[ -z "${COORD_TEST_MONGODB_URI:-}" ] || exec "$@"

# Built, then run by itself: `cargo run` would hand its own environment down to every build inside.
top=$(cd "$(dirname "$0")/../.." && pwd)
(cd "$top" && cargo build --quiet --locked -p coord-tests --bin with-servers)
exec "${CARGO_TARGET_DIR:-$top/target}/debug/with-servers" mongodb3 -- "$@"
