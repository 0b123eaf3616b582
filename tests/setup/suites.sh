#!/usr/bin/env bash
# Runs targets of the Makefile: suites.sh FIRST… -- SUITE…. The first ones one after the other, then the suites side
# by side, COORD_TEST_JOBS (3) at a time: most of them use one core, or wait. All are run, also after one that fails,
# and at the end is what those that failed said last, and a table of all.
set -uo pipefail
cd "$(dirname "$0")/../.."

jobs=${COORD_TEST_JOBS:-3}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# What runs in the background does not hear Ctrl-C: it is told, with all that it has begun.
trap 'for group in $(jobs -p); do kill -- "-$group"; done 2>/dev/null; exit 130' INT TERM
table= failed=()

# Of the cores' time, what is shared by all, such as the database, is not in it.
TIMEFORMAT='%0U %0S'

note() { # target, status, seconds
    local result=ok user system
    [ "$2" = 0 ] || { result=FAILED && failed+=("$1"); }
    read -r user system < "$logs/$1.cores"
    table+=$(printf '%-16s %-8s %4d s  %4d s' "$1" "$result" "$3" $((user + system)))$'\n'
}

while [ $# -gt 0 ] && [ "$1" != -- ]; do
    printf '\n=== %s\n' "$1"
    SECONDS=0
    { time make "$1" 2>&3; } 3>&2 2> "$logs/$1.cores"
    note "$1" $? "$SECONDS"
    shift
done
shift

# What is built stays as it is while several use it.
export BUILT=1
# Each suite is a group of processes. The first ones are not: they hear Ctrl-C themselves.
set -m
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
    { time make "$suite" < /dev/null > "$logs/$suite" 2>&1; } 2> "$logs/$suite.cores" &
    names[$!]=$suite begun[$!]=$SECONDS
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do reap; done

for suite in "${failed[@]}"; do
    # What comes first is seen as it runs.
    [ -f "$logs/$suite" ] || continue
    printf '\n=== the end of %s\n' "$suite"
    tail -n 25 "$logs/$suite"
done
printf '\n=== all suites, how long they took, and of the time of cores\n%s' "$table"
[ ${#failed[@]} = 0 ]
