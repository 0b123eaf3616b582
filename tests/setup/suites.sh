#!/usr/bin/env bash
# Runs targets of the Makefile one after the other, also after one that fails, and ends with a table of them.
set -uo pipefail
cd "$(dirname "$0")/../.."

table= failed=0
for suite in "$@"; do
    printf '\n=== %s\n' "$suite"
    SECONDS=0
    if make "$suite"; then result=ok; else result=FAILED failed=1; fi
    table+=$(printf '%-16s %-8s %4d s' "$suite" "$result" "$SECONDS")$'\n'
done
printf '\n=== all suites\n%s' "$table"
exit "$failed"
