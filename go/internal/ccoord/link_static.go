//go:build cgo && linux && coord_static

package ccoord

// Before -lcoord of pkg-config is looked at, the archive has satisfied everything, and --as-needed leaves libcoord.so
// out of the program.
//
// #cgo pkg-config: coord
// #cgo LDFLAGS: -l:libcoord.a -Wl,--as-needed -lgcc_s -lutil -lrt -lpthread -lm -ldl
import "C"

// LinkMode says how this program got the library.
const LinkMode = "static"
