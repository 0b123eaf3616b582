#!/usr/bin/env bash
# Runs the Go suite: format, vet, the tests under the race detector, and again with a collection before each call of C,
# with strict checks of the pointers given to C, and linked statically. `make test-go` has built the library before; by
# itself this builds it into target/stage.
set -euo pipefail
cd "$(dirname "$0")"
top=$(cd .. && pwd)

main() {
    pkg-config --exists coord || stage
    LD_LIBRARY_PATH=$(pkg-config --variable=libdir coord)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH

    run "format" formatted . ../examples/go ../benches/languages/go
    run "the example is the README's" diff <("$top/tests/readme/run" --show go) ../examples/go/lock.go
    run "vet" go vet ./...
    run "vet, example" go -C ../examples/go vet ./...
    run "vet, worker" go -C ../tests/tables/workers/go vet ./...
    run "vet, benchmark" go -C ../benches/languages/go vet ./...
    run "tests under the race detector" go test -race -count=1 ./...
    run "a collection before each call" go test -tags coord_gc -short -count=1 .
    run "strict pointer checks" env GOEXPERIMENT=cgocheck2 go test -short -count=1 .
    run "linked statically" linked_statically
    run "the error without cgo" says_what_is_missing
}

stage() {
    "$top/ffi/install.sh" "$top/target/stage" dev
    export PKG_CONFIG_PATH=$top/target/stage/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
}

run() { # what, command
    echo "go: $1"
    shift
    "$@"
}

formatted() {
    local unformatted
    unformatted=$(gofmt -l "$@")
    [ -z "$unformatted" ] || { echo "not formatted: $unformatted" >&2 && return 1; }
}

# Needs no shared library to run, and does the same.
linked_statically() {
    local program
    program=$(mktemp)
    go test -c -tags coord_static -o "$program" .
    if ldd "$program" | grep libcoord; then
        echo "the static build wants the shared library" >&2
        return 1
    fi
    env -u LD_LIBRARY_PATH "$program" -test.short
    rm -f "$program"
}

says_what_is_missing() {
    local said
    said=$(CGO_ENABLED=0 go build ./... 2>&1) && { echo "it builds without cgo" >&2 && return 1; }
    grep -q "set_CGO_ENABLED_to_1" <<<"$said" || { echo "without cgo, the compiler says: $said" >&2 && return 1; }
}

main "$@"
