package coord

import (
	"context"
	"errors"
	"runtime"
	"time"

	"coord/internal/ccoord"
)

// Lock is a lock by its name. Nothing is held or asked for before it is acquired, and nothing has to be closed. Its
// methods may be called from any goroutine.
type Lock struct {
	client *Client
	lock   ccoord.Lock
	name   string
}

// Lock returns the lock of this name: "name", "scope/name" or "namespace/scope/name", of ASCII letters, digits and
// . _ - : @ + = ([Sanitize] makes a part of a name from any text). It does not wait.
func (c *Client) Lock(name string) (*Lock, error) {
	defer runtime.KeepAlive(c)
	lock, failed := c.inner().client.Lock(name)
	if failed != nil {
		return nil, c.inner().newError("make a lock", failed)
	}
	l := &Lock{client: c, lock: lock, name: lock.Name()}
	// The handle is a little memory, and no claim to anything.
	runtime.AddCleanup(l, ccoord.Lock.Destroy, lock)
	return l, nil
}

// Name is the lock's full name, "namespace/scope/name".
func (l *Lock) Name() string { return l.name }

// Acquire acquires the lock: waits its turn, also through outages of the store, until ctx ends. It fails with
// ErrQueueFull, ErrLost (the session died while waiting; the next call uses a new one), ErrClosed, and the errors of
// the store that waiting cannot cure. A call that fails leaves nothing behind.
//
// A lock is not re-entrant: a second Acquire waits like anyone's.
func (l *Lock) Acquire(ctx context.Context) (*Held, error) {
	return l.acquire(ctx, timeLimit(ctx))
}

// TryAcquire acquires the lock if it is free and nobody waits for it, and fails with ErrContended otherwise; the error
// names the holder. It fails with ErrUnavailable while the store cannot be reached.
func (l *Lock) TryAcquire(ctx context.Context) (*Held, error) {
	return l.acquire(ctx, 0)
}

func (l *Lock) acquire(ctx context.Context, timeLimit int64) (*Held, error) {
	defer runtime.KeepAlive(l)
	op := "acquire lock '" + l.name + "'"
	core := l.client.inner()
	event, err := core.pump.await(ctx, op, true, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return l.lock.Acquire(timeLimit, to)
	})
	if err != nil {
		return nil, err
	}
	defer event.Destroy()
	held, failed := event.TakeHeld()
	if failed != nil {
		return nil, newError(op, failed)
	}
	return newHeld(l, held), nil
}

// Do acquires the lock, runs f under it, and releases it when f has returned, also by a panic.
//
// The context of f is cancelled with cause ErrLost when the hold is lost; then f is to end. It is not interrupted but
// waited for, and the store keeps the lock for this session until f has returned, unless the session dies. Closing the
// client waits for f, too.
//
// Do returns the errors of f and of the hold, joined: ErrLost if the hold was lost before f had returned. f may release
// the hold itself. The release does not depend on ctx; what takes longer than ten seconds goes on in the background.
func (l *Lock) Do(ctx context.Context, f func(ctx context.Context, held *Held) error) (err error) {
	if f == nil {
		return &Error{Code: ErrInvalidArgument, Op: "run under lock '" + l.name + "'", Message: "there is no function"}
	}
	held, err := l.Acquire(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if failed := held.releaseAfterwards(ctx); failed != nil {
			err = errors.Join(err, failed)
		}
	}()
	if failed := held.held.Manage(); failed != nil {
		return newError("run under lock '"+l.name+"'", failed)
	}
	inside, cancel := context.WithCancelCause(context.WithValue(ctx, runBy{l.client.inner()}, true))
	defer cancel(nil)
	lost := held.Context()
	defer context.AfterFunc(lost, func() { cancel(context.Cause(lost)) })()
	return f(inside, held)
}

func (h *Held) releaseAfterwards(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	err := h.Release(ctx)
	if CodeOf(err) == ErrNotHeld {
		return nil // f has released it
	}
	return err
}

// newError is newError for calls that do not go through the queue: a client that is gone was closed.
func (c *core) newError(op string, failed *ccoord.Error) *Error {
	e := newError(op, failed)
	if e.Code == ErrClosed || c == neverConnected {
		e.Code, e.Message = ErrClosed, "the client is closed"
	}
	return e
}

const releaseLimit = 10 * time.Second
