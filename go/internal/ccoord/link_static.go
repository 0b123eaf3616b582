//go:build cgo && linux && coord_static

package ccoord

// The archive comes before -lcoord of pkg-config and satisfies everything, and --as-needed then leaves the shared
// library out of the program.

// #cgo pkg-config: coord
// #cgo LDFLAGS: -l:libcoord.a -Wl,--as-needed -lgcc_s -lutil -lrt -lpthread -lm -ldl
import "C"

// LinkMode says how this program got the library.
const LinkMode = "static"
