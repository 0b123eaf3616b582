#!/usr/bin/env bash
# Runs targets of the Makefile: suites.sh FIRST… -- SUITE…. The first ones one after the other, then the suites side
# by side, COORD_TEST_JOBS (3) at a time: most of them use one core, or wait. All are run, also after one that fails,
# and the end is a table of them.
set -uo pipefail
cd "$(dirname "$0")/../.."

jobs=${COORD_TEST_JOBS:-3}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# What runs in the background does not hear Ctrl-C.
trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT TERM
table= failed=0

note() { # target, status, seconds
    local result=ok
    [ "$2" = 0 ] || result=FAILED failed=1
    table+=$(printf '%-16s %-8s %4d s' "$1" "$result" "$3")$'\n'
}

while [ $# -gt 0 ] && [ "$1" != -- ]; do
    printf '\n=== %s\n' "$1"
    SECONDS=0
    make "$1"
    note "$1" $? "$SECONDS"
    shift
done
shift

# What is built stays as it is while several use it.
export BUILT=1
declare -A names begun
running=0

# Prints what one that has ended said.
reap() {
    local pid status
    wait -n -p pid
    status=$?
    running=$((running - 1))
    printf '\n=== %s\n' "${names[$pid]}"
    cat "$logs/${names[$pid]}"
    note "${names[$pid]}" "$status" $((SECONDS - begun[$pid]))
}

for suite in "$@"; do
    [ "$running" -lt "$jobs" ] || reap
    make "$suite" > "$logs/$suite" 2>&1 &
    names[$!]=$suite begun[$!]=$SECONDS
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do reap; done

printf '\n=== all suites\n%s' "$table"
exit "$failed"
