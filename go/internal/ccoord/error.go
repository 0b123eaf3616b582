//go:build cgo && linux

package ccoord

// #include <coord.h>
import "C"

// Error is what went wrong in one call.
type Error struct {
	Code      int32
	Message   string
	Retryable bool
	Loss      int32
	Holder    *Holder
}

// Why something is lost.
const (
	LossNone   = C.COORD_LOSS_NONE
	LossClosed = C.COORD_LOSS_CLOSED
)

// failure takes over the error of a call: nil if it went well.
func failure(status C.coord_status_t, e *C.coord_error_t) *Error {
	if status == C.COORD_OK {
		return nil
	}
	if e == nil {
		return &Error{
			Code:      int32(status),
			Message:   C.GoString(C.coord_status_name(status)),
			Retryable: C.coord_status_is_retryable(status) != 0,
		}
	}
	defer C.coord_error_destroy(e)
	return copyError(e)
}

func copyError(e *C.coord_error_t) *Error {
	return &Error{
		Code:      int32(C.coord_error_code(e)),
		Message:   C.GoString(C.coord_error_message(e)),
		Retryable: C.coord_error_is_retryable(e) != 0,
		Loss:      int32(C.coord_error_loss(e)),
		Holder:    copyHolder(C.coord_error_holder(e)),
	}
}

// StatusName is the name of a status in the library that is loaded.
func StatusName(code int32) string { return C.GoString(C.coord_status_name(C.coord_status_t(code))) }

// LossName is the name of a loss in the library that is loaded.
func LossName(loss int32) string { return C.GoString(C.coord_loss_name(C.int32_t(loss))) }
