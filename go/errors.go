package coord

import (
	"context"
	"errors"
	"fmt"

	"coord/internal/ccoord"
)

// Code says what kind of error it is. The numbers are the same in every language and in every version; new ones may be
// added at any time. A Code is an error, so that it can be the target of errors.Is.
type Code int32

// Loss says why a hold or a session is lost.
type Loss int32

// Error is what every function of this package returns when it fails.
type Error struct {
	// Code is the kind of error.
	Code Code
	// Op is what was attempted, e.g. "acquire lock 'default/default/a'".
	Op string
	// Message says what was wrong and what to do. It never contains a secret.
	Message string
	// Retryable is whether trying again can help. It does not say that nothing was done: after ErrUnavailable and
	// ErrOutcomeUnknown, and after the ErrTimeout of a write, it may have been. After ErrLost acquire anew, after
	// ErrConflict read anew. A mail whose outcome is unknown may be sent twice.
	Retryable bool
	// Loss is why something is lost, for ErrLost and ErrForked.
	Loss Loss
	// Holder is who holds the lock, for ErrContended and wherever else it is known.
	Holder *Holder
	// the causes that the context gave, if it ended the operation
	causes []error
}

// Error returns the operation and the message.
func (e *Error) Error() string {
	text := "coord: " + e.Op + ": " + e.Message
	if len(e.causes) > 0 {
		text += ": " + e.causes[0].Error()
	}
	return text
}

// Unwrap returns the code, and what ended the context if that was the reason.
func (e *Error) Unwrap() []error { return append([]error{e.Code}, e.causes...) }

// Timeout is whether a time limit was the reason.
func (e *Error) Timeout() bool { return e.Code == ErrTimeout }

// Error returns what the code means.
func (c Code) Error() string {
	if text, ok := codeTexts[c]; ok {
		return "coord: " + text
	}
	return fmt.Sprintf("coord: error %d, which this version does not know", int32(c))
}

// String returns the name of the code as all languages spell it, e.g. "Contended".
func (c Code) String() string {
	if name, ok := codeNames[c]; ok {
		return name
	}
	return fmt.Sprintf("Code(%d)", int32(c))
}

// String returns the name of the reason, e.g. "Expired".
func (l Loss) String() string {
	if name, ok := lossNames[l]; ok {
		return name
	}
	return fmt.Sprintf("Loss(%d)", int32(l))
}

// CodeOf returns the code of an error: 0 for nil, ErrUnknown for an error that is not of this package.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	var code Code
	if errors.As(err, &code) {
		return code
	}
	return ErrUnknown
}

// newError puts an error of the library into Go's terms: a handle that is gone is something that was closed.
func newError(op string, e *ccoord.Error) *Error {
	code, message := Code(e.Code), e.Message
	if code == ErrHandle {
		code, message = ErrClosed, "it is closed"
	}
	return &Error{
		Code:      code,
		Op:        op,
		Message:   message,
		Retryable: e.Retryable,
		Loss:      Loss(e.Loss),
		Holder:    newHolder(e.Holder),
	}
}

// interrupted is the error of an operation that its context has ended.
func interrupted(ctx context.Context, op, message string) *Error {
	e := &Error{Code: ErrCancelled, Op: op, Message: message}
	e.blame(ctx, ctx.Err())
	return e
}

// blame names the context's end as the cause of an error; err stands for it where a clock was faster than the context.
func (e *Error) blame(ctx context.Context, err error) {
	if errors.Is(err, context.DeadlineExceeded) {
		e.Code, e.Retryable = ErrTimeout, true
	}
	e.causes = []error{err}
	if cause := context.Cause(ctx); cause != nil && cause != err {
		e.causes = []error{cause, err}
	}
}
