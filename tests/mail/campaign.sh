#!/usr/bin/env bash
# The outbox's campaign with senders in C, Go and Python: campaign [MAILS]. 1,000 mails, unless it is told otherwise; one
# of the four processes is killed every 3 s. The library is found by pkg-config, the Python package in .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD top=$(cd .. && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/coord-mail.XXXXXX")
trap 'rm -rf "$work"' EXIT
pkg-config --exists coord || export PKG_CONFIG_PATH=$top/target/stage/lib/pkgconfig
lib=$(pkg-config --variable=libdir coord)
export LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

read -ra flags <<<"$(pkg-config --cflags --libs coord)"
cc -std=c11 -Wall -Wextra -Werror mail/senders/sender.c -o "$work/c" "${flags[@]}"
go -C mail/senders/go build -o "$work/go" .
export COORD_MAIL_SENDERS="$work/c
$work/go
$top/.venv/bin/python $here/mail/senders/sender.py
$work/c"
export COORD_MAIL_CAMPAIGN=${1:-1000}
cd "$top"
cargo test --quiet --locked -p coord-tests --test mail campaign -- --nocapture
