//go:build cgo && linux

package ccoord

// #include <coord.h>
import "C"

// Lock is a lock by its name.
type Lock struct{ h *C.coord_lock_t }

// Held is a lock that is held.
type Held struct{ h *C.coord_held_t }

// Lock makes the lock of this name.
func (c Client) Lock(name string) (Lock, *Error) {
	stress()
	var lock Lock
	var e *C.coord_error_t
	at, length := lend(name)
	err := failure(C.coord_lock_new(c.h, at, length, &lock.h, &e), e)
	return lock, err
}

// Name is the full name.
func (l Lock) Name() string { return C.GoString(C.coord_lock_name(l.h)) }

// Acquire starts acquiring. A time limit of 0 does not wait its turn.
func (l Lock) Acquire(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_lock_acquire_start(l.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Destroy destroys the handle.
func (l Lock) Destroy() { C.coord_lock_destroy(l.h) }

// Token is the fencing token.
func (h Held) Token() int64 {
	stress()
	return int64(C.coord_held_token(h.h))
}

// RemainingMillis is how long the hold stays valid without another renewal.
func (h Held) RemainingMillis() int64 {
	stress()
	return int64(C.coord_held_remaining_ms(h.h))
}

// Check checks that the hold is valid now.
func (h Held) Check() *Error {
	stress()
	// Without an error to fill, a check that succeeds allocates nothing.
	if C.coord_held_check(h.h, nil) == C.COORD_OK {
		return nil
	}
	var e *C.coord_error_t
	return failure(C.coord_held_check(h.h, &e), e)
}

// Manage says that code runs under the hold until its release.
func (h Held) Manage() *Error {
	var e *C.coord_error_t
	return failure(C.coord_held_manage(h.h, &e), e)
}

// Ensure starts making sure that the hold stays valid.
func (h Held) Ensure(durationMillis, timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_held_ensure_start(h.h, C.int64_t(durationMillis), C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// WaitLost starts waiting for the loss of the hold.
func (h Held) WaitLost(to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_held_wait_lost_start(h.h, q, tag, op, e)
	})
}

// Release starts releasing.
func (h Held) Release(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_held_release_start(h.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Destroy destroys the handle, and releases the lock in the background if it was not.
func (h Held) Destroy() { C.coord_held_destroy(h.h) }
