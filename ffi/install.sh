#!/usr/bin/env bash
# Builds the C library and installs it: install.sh PREFIX [release|dev]. With DESTDIR, below that directory, as
# packagers want it. A `dev` build is for this repository's tests: it is quicker to make, and exports their hooks.
set -euo pipefail

usage() {
    echo "usage: install.sh PREFIX [release|dev]" >&2
    exit 2
}

[ $# -ge 1 ] && [ $# -le 2 ] && [ -n "$1" ] || usage
prefix=$1
profile=${2:-release}
case $prefix in /*) ;; *) echo "install.sh: PREFIX is an absolute path, not '$prefix'" >&2; exit 2 ;; esac
case $profile in
    release) built=release options=(--release) ;;
    dev) built=debug options=(--features test-panic) ;;
    *) usage ;;
esac

top=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$top/target}
root=${DESTDIR:-}$prefix

# The system libraries that a program with libcoord.a links, as rustc names them for this target.
cd "$top"
cargo build --locked --quiet -p coord-ffi "${options[@]}" ${COORD_BUILD_OPTIONS:-}
private_libs="-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
soname=$(sed -n 's/^const SONAME: &str = "\(.*\)";/\1/p' ffi/build.rs)
soversion=${soname#libcoord.so.}

# Replaced whole, never written into: a program that runs with the old library keeps it.
place() { # place MODE SOURCE DESTINATION
    install -D -m "$1" "$2" "$3.new"
    mv -f "$3.new" "$3"
}

fill_in() { # fill_in TEMPLATE DESTINATION
    local filled
    filled=$(mktemp)
    sed -e "s|@VERSION@|$version|g" -e "s|@SOVERSION@|$soversion|g" -e "s|@PRIVATE_LIBS@|$private_libs|g" \
        "$1" > "$filled"
    place 644 "$filled" "$2"
    rm -f "$filled"
}

place 644 include/coord.h "$root/include/coord.h"
place 755 "$target/$built/libcoord.so" "$root/lib/libcoord.so.$version"
ln -sfn "libcoord.so.$version" "$root/lib/$soname"
ln -sfn "$soname" "$root/lib/libcoord.so"
place 644 "$target/$built/libcoord.a" "$root/lib/libcoord.a"
fill_in ffi/coord.pc.in "$root/lib/pkgconfig/coord.pc"
fill_in ffi/cmake/coord-config.cmake.in "$root/lib/cmake/coord/coord-config.cmake"
fill_in ffi/cmake/coord-config-version.cmake.in "$root/lib/cmake/coord/coord-config-version.cmake"
echo "coord $version is installed in $root"
