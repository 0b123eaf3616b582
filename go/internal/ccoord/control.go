//go:build cgo && linux

package ccoord

// #include <coord.h>
import "C"

// Control is power over a store in memory.
type Control struct{ h *C.coord_control_t }

// Control makes the control of the client's store.
func (c Client) Control() (Control, *Error) {
	stress()
	var control Control
	var e *C.coord_error_t
	err := failure(C.coord_control_new(c.h, &control.h, &e), e)
	return control, err
}

// ForceLeader starts making a candidate the leader.
func (c Control) ForceLeader(election, session string, timeoutMillis int64, to Report) (Op, *Error) {
	l, electionLength := lend(election)
	s, sessionLength := lend(session)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_control_force_leader_start(
			c.h, l, electionLength, s, sessionLength, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeToken takes the token of the forced term out of the event.
func (e Event) TakeToken() (int64, *Error) {
	var token C.int64_t
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_token(e.h, &token, &err), err)
	return int64(token), failed
}

// ExpireSession starts ending a session.
func (c Control) ExpireSession(session string, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(session)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_control_expire_session_start(c.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Advance starts letting time pass.
func (c Control) Advance(durationMillis, timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_control_advance_start(c.h, C.int64_t(durationMillis), C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Jump moves the clock at once.
func (c Control) Jump(durationMillis int64) *Error {
	stress()
	var e *C.coord_error_t
	return failure(C.coord_control_jump(c.h, C.int64_t(durationMillis), &e), e)
}

// DateMillis is the date of the manual clock.
func (c Control) DateMillis() (int64, *Error) {
	stress()
	var date C.int64_t
	var e *C.coord_error_t
	err := failure(C.coord_control_date_ms(c.h, &date, &e), e)
	return int64(date), err
}

// Destroy destroys the handle.
func (c Control) Destroy() { C.coord_control_destroy(c.h) }
