//go:build cgo && linux && !coord_static

package ccoord

// #cgo pkg-config: coord
import "C"

// LinkMode says how this program got the library.
const LinkMode = "dynamic"
