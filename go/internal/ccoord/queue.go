//go:build cgo && linux

package ccoord

/*
#include <coord.h>

#cgo nocallback coord_queue_poll_batch
#cgo noescape coord_queue_poll_batch
*/
import "C"

// Queue is where the outcomes of started operations arrive.
type Queue struct{ h *C.coord_queue_t }

// Op is an operation that was started and can be cancelled. The zero value is none.
type Op struct{ h *C.coord_op_t }

// Event is the outcome of an operation. It owns what it carries until that is taken.
type Event struct {
	Tag  uint64
	Code int32
	h    *C.coord_event_t
}

// Report says where the outcome of an operation is to go.
type Report struct {
	Queue Queue
	Tag   uint64
	// Cancellable asks for an Op. Without one, nothing has to be destroyed.
	Cancellable bool
}

// NewQueue makes a queue. The event of an operation with an Op that has ended when it is begun does not come to it, see
// Op.TakeEvent.
func NewQueue() (Queue, *Error) {
	var q Queue
	var e *C.coord_error_t
	err := failure(C.coord_queue_new(&q.h, &e), e)
	C.coord_queue_skip_ended(q.h)
	return q, err
}

// FD is readable exactly when the queue is not empty. It belongs to the queue.
func (q Queue) FD() int { return int(C.coord_queue_fd(q.h)) }

// Poll takes as many events as there are and fit into the buffer, without waiting.
func (q Queue) Poll(into []Event) int {
	var events [64]*C.coord_event_t
	var count C.size_t
	room := C.size_t(min(len(into), len(events)))
	if room == 0 || C.coord_queue_poll_batch(q.h, 0, &events[0], room, &count, nil) != C.COORD_OK {
		return 0
	}
	for i, h := range events[:count] {
		into[i] = Event{Tag: uint64(C.coord_event_tag(h)), Code: int32(C.coord_event_status(h)), h: h}
	}
	return int(count)
}

// Destroy destroys the queue, cancels its operations, and gives back what its events carry.
func (q Queue) Destroy() { C.coord_queue_destroy(q.h) }

// TakeEvent is the event of an operation that had ended when it was begun; if there is none, it comes to the queue.
func (o Op) TakeEvent() (Event, bool) {
	var h *C.coord_event_t
	if C.coord_op_take_event(o.h, &h, nil) != C.COORD_OK {
		return Event{}, false
	}
	return Event{Code: int32(C.coord_event_status(h)), h: h}, true
}

// Cancel cancels the operation unless it has ended. Its event still comes.
func (o Op) Cancel() { C.coord_op_cancel(o.h) }

// Destroy forgets the operation.
func (o Op) Destroy() {
	if o.h != nil {
		C.coord_op_destroy(o.h)
	}
}

// started is how every operation begins.
func (r Report) started(start func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t) (Op, *Error) {
	stress()
	var op Op
	var e *C.coord_error_t
	var wanted **C.coord_op_t
	if r.Cancellable {
		wanted = &op.h
	}
	err := failure(start(r.Queue.h, C.uint64_t(r.Tag), wanted, &e), e)
	return op, err
}

// Err is why the operation failed, nil if it did not.
func (e Event) Err() *Error {
	if e.Code == C.COORD_OK {
		return nil
	}
	if err := C.coord_event_error(e.h); err != nil {
		return copyError(err)
	}
	return failure(C.coord_status_t(e.Code), nil)
}

// Loss is why a hold is lost, for the event of Held.WaitLost.
func (e Event) Loss() int32 { return int32(C.coord_event_loss(e.h)) }

// TakeClient takes the client out of the event.
func (e Event) TakeClient() (Client, *Error) {
	var c Client
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_client(e.h, &c.h, &err), err)
	return c, failed
}

// TakeHeld takes the held lock out of the event.
func (e Event) TakeHeld() (Held, *Error) {
	var held Held
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_held(e.h, &held.h, &err), err)
	return held, failed
}

// TakeLocks copies the list of locks out of the event.
func (e Event) TakeLocks() ([]LockInfo, *Error) {
	var list *C.coord_lock_list_t
	var err *C.coord_error_t
	if failed := failure(C.coord_event_take_locks(e.h, &list, &err), err); failed != nil {
		return nil, failed
	}
	defer C.coord_lock_list_destroy(list)
	return copyLocks(list), nil
}

// TakeSession takes the session out of the event.
func (e Event) TakeSession() (Session, *Error) {
	var session Session
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_session(e.h, &session.h, &err), err)
	return session, failed
}

// Destroy destroys the event, and gives back what it carries and nobody took.
func (e Event) Destroy() { C.coord_event_destroy(e.h) }
