package coord

import (
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"coord/internal/ccoord"
)

// Outcome is what a run has come to when it went well: nil when nothing is to be done until the key changes, or
// [RequeueAfter].
type Outcome interface{ afterMillis() int64 }

type requeueAfter time.Duration

func (r requeueAfter) afterMillis() int64 { return max(0, roundedUp(time.Duration(r))) }

// RequeueAfter asks for another run of the key after this time, or earlier if it changes. It counts in whole milliseconds,
// rounded up.
func RequeueAfter(d time.Duration) Outcome { return requeueAfter(d) }

// TerminalError is an error after which a key is not run again before it changes or is added by hand: [Terminal] makes
// one.
type TerminalError struct{ Err error }

// Error returns what the error in it says.
func (e *TerminalError) Error() string { return e.Err.Error() }

// Unwrap returns the error in it.
func (e *TerminalError) Unwrap() error { return e.Err }

// Terminal says that a key cannot be reconciled as it is: it is parked until it changes or is added by hand. Terminal of
// nil is nil.
func Terminal(err error) error {
	if err == nil {
		return nil
	}
	return &TerminalError{err}
}

// DelayedError is an error after which a key is run again after a time of its own: [ErrorAfter] makes one.
type DelayedError struct {
	Err   error
	After time.Duration
}

// Error returns what the error in it says.
func (e *DelayedError) Error() string { return e.Err.Error() }

// Unwrap returns the error in it.
func (e *DelayedError) Unwrap() error { return e.Err }

// ErrorAfter says that the key is to be run again after this time instead of the back-off's, or earlier if it changes: for
// a policy of one's own ([Work.Attempt] counts). ErrorAfter of nil is nil.
func ErrorAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &DelayedError{err, d}
}

// Work is what a function of a reconciler is to work on. Its methods may be called from any goroutine.
type Work struct {
	work ccoord.Work
	info ccoord.WorkInfo
}

// Key is the key as it is in BSON: a string, an int64, a bson.D for a compound one, or whatever else other programs may
// have chosen. Of services and locks it is the full name.
func (w *Work) Key() any { return keyOf(w.info.Key) }

// DecodeKey decodes the key into what into points to, as bson.Unmarshal does with a field.
func (w *Work) DecodeKey(into any) error {
	if err := bson.Raw(w.info.Key).Lookup("_id").Unmarshal(into); err != nil {
		return &Error{Code: ErrInvalidArgument, Op: "decode a key", Message: err.Error()}
	}
	return nil
}

// Exists is whether the key had a document when this run began. It had none if it was deleted or does not match the
// filter any more, and for locks and keys that are added by hand; a service has one while somebody provides it.
func (w *Work) Exists() bool { return w.info.Document != nil }

// Document is the document as it was when this run began, nil if there was none. That of a service has the fields
// service and providers, a list of {instance_id, session, name, host, pid, metadata}.
func (w *Work) Document() bson.Raw { return w.info.Document }

// Decode decodes the document into what into points to, as bson.Unmarshal does. It fails with ErrNotFound if there is none.
func (w *Work) Decode(into any) error {
	const op = "decode a document"
	if w.info.Document == nil {
		return &Error{Code: ErrNotFound, Op: op, Message: "the key has no document"}
	}
	if err := bson.Unmarshal(w.info.Document, into); err != nil {
		return &Error{Code: ErrInvalidArgument, Op: op, Message: err.Error()}
	}
	return nil
}

// Revision is the state of the document, for a table's ReplaceIf and DeleteIf. There is none of a document that another
// program has written, and where there is no document of a table.
func (w *Work) Revision() (revision Revision, ok bool) {
	return Revision(w.info.Revision), w.info.HasRevision
}

// Attempt is 1, and one more for each error of the key in a row before.
func (w *Work) Attempt() int { return int(w.info.Attempt) }

// Token is the fencing token of the key's shard or of the leadership, 0 in ModeAll. Tokens of one key are comparable for
// ever.
func (w *Work) Token() int64 { return w.info.Token }

// Check checks that the key is still this replica's to work on: call it before each effect. It reads a clock, and does
// not wait. It fails with ErrFenced when the shard or the leadership is lost or given up, with ErrCancelled when the run is asked to
// stop for another reason, and with ErrNotHeld when the function has returned.
func (w *Work) Check() error {
	if failed := w.work.Check(); failed != nil {
		return w.newError("work on", failed)
	}
	return nil
}

func (w *Work) newError(verb string, failed *ccoord.Error) *Error {
	e := newError(verb+" a key", failed)
	if Code(failed.Code) == ErrHandle {
		e.Code, e.Message = ErrNotHeld, "the run is over"
	}
	return e
}

// keyOf is the key in its document {_id}; nil for bytes that are none.
func keyOf(document []byte) any {
	var key struct {
		Value any `bson:"_id"`
	}
	if bson.Unmarshal(document, &key) != nil {
		return nil
	}
	return key.Value
}

// completion is a run's result in the library's terms.
func completion(outcome Outcome, err error) (kind int32, afterMillis int64, message string) {
	if err == nil {
		if outcome == nil {
			return ccoord.OutcomeDone, 0, ""
		}
		return ccoord.OutcomeRequeueAfter, outcome.afterMillis(), ""
	}
	message = readable(err.Error())
	if terminal := (*TerminalError)(nil); errors.As(err, &terminal) {
		return ccoord.OutcomeTerminal, 0, message
	}
	if delayed := (*DelayedError)(nil); errors.As(err, &delayed) {
		return ccoord.OutcomeErrorAfter, max(0, roundedUp(delayed.After)), message
	}
	return ccoord.OutcomeError, 0, message
}
