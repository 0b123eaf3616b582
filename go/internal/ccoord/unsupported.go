//go:build !cgo || !linux

package ccoord

// The name is the message: the compiler prints it when the package is built where it cannot work.
var _ = coord_needs_linux_and_cgo__set_CGO_ENABLED_to_1_and_install_a_C_compiler
