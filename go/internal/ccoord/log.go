//go:build cgo && linux

package ccoord

// #include "log.h"
import "C"

// The levels of the log.
const (
	LogError = C.COORD_LOG_ERROR
	LogWarn  = C.COORD_LOG_WARN
	LogInfo  = C.COORD_LOG_INFO
	LogDebug = C.COORD_LOG_DEBUG
	LogTrace = C.COORD_LOG_TRACE
)

// LogTo sends every line of the library's log up to this level as one packet to a socket: a byte with the level, the
// target, a zero byte, the message. The library owns the socket from now on, also when this fails.
func LogTo(level int32, socket int) *Error {
	var e *C.coord_error_t
	return failure(C.coord_go_log_to(C.int32_t(level), C.int(socket), &e), e)
}

// LogOff ends the log.
func LogOff() *Error {
	var e *C.coord_error_t
	return failure(C.coord_go_log_to(C.COORD_LOG_OFF, -1, &e), e)
}
