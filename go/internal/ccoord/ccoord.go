//go:build cgo && linux

package ccoord

/*
#include <coord.h>

#if !defined(COORD_ABI_VERSION) || (COORD_ABI_VERSION >> 16) != 1
#error "package coord needs a coord.h of interface version 1; install the library that belongs to it"
#endif

#cgo nocallback coord_name_sanitize
#cgo noescape coord_name_sanitize
*/
import "C"

import "unsafe"

// HeaderVersion is the release whose header this package was compiled with: major << 16 | minor << 8 | patch.
const HeaderVersion = uint32(C.COORD_VERSION)

// Version is the release of the library that is loaded, e.g. "0.1.0".
func Version() string { return C.GoString(C.coord_version_string()) }

// LibraryVersion is the release of the library that is loaded, as a number like HeaderVersion.
func LibraryVersion() uint32 { return uint32(C.coord_version()) }

// ThreadCount is how many threads the library has now.
func ThreadCount() int { return int(C.coord_debug_thread_count()) }

// Sanitize makes a valid part of a name from any text.
func Sanitize(text string) (string, *Error) {
	var buffer [C.COORD_NAME_SIZE]C.char
	var e *C.coord_error_t
	at, length := lend(text)
	status := C.coord_name_sanitize(at, length, &buffer[0], C.COORD_NAME_SIZE, &e)
	if err := failure(status, e); err != nil {
		return "", err
	}
	return C.GoString(&buffer[0]), nil
}

// lend gives C a text for the length of one call. An empty one has an address too: NULL means "none given".
func lend(text string) (*C.char, C.size_t) {
	if text == "" {
		return (*C.char)(unsafe.Pointer(&nothing)), 0
	}
	return (*C.char)(unsafe.Pointer(unsafe.StringData(text))), C.size_t(len(text))
}

var nothing byte
