package coord

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"coord/internal/ccoord"
)

// Held is a lock that is held, until Release. Its methods may be called from any goroutine.
type Held struct {
	client  *Client
	held    ccoord.Held
	name    string
	token   int64
	cleanup runtime.Cleanup

	released atomic.Bool
	// final is why it is not held any more, once the handle is gone.
	final atomic.Pointer[Error]

	watch sync.Once
	ctx   context.Context
	// cancel ends ctx, once somebody has asked for that.
	cancel atomic.Pointer[context.CancelCauseFunc]
}

func newHeld(l *Lock, held ccoord.Held) *Held {
	h := &Held{client: l.client, held: held, name: l.name, token: held.Token()}
	h.cleanup = runtime.AddCleanup(h, forgotten.giveBack, forgotten{l.client.inner(), held, h.name, h.token})
	return h
}

// forgotten is what is left of a Held that was collected.
type forgotten struct {
	core  *core
	held  ccoord.Held
	name  string
	token int64
}

func (f forgotten) giveBack() {
	if !f.core.isClosed() {
		f.core.report("a coord lock was garbage-collected without Release; it is released now", "lock", f.name, "token", f.token)
	}
	f.held.Destroy()
}

// Name is the lock's full name, "namespace/scope/name".
func (h *Held) Name() string { return h.name }

// Token is the fencing token, 1 or more: it grows with every grant of this lock. Give it to the resource that the lock
// protects, so that it can refuse a holder from before. Tokens of different locks are not comparable.
func (h *Held) Token() int64 { return h.token }

// Remaining is how long the hold stays valid without another renewal, to the millisecond; 0 when it is lost or
// released. It does not wait.
func (h *Held) Remaining() time.Duration {
	defer runtime.KeepAlive(h)
	if h.final.Load() != nil {
		return 0
	}
	return milliseconds(h.held.RemainingMillis())
}

// Check returns nil if the hold is valid now, ErrLost or ErrNotHeld otherwise. It reads a clock and nothing else: call
// it before each effect.
func (h *Held) Check() error {
	defer runtime.KeepAlive(h)
	if final := h.final.Load(); final != nil {
		return final
	}
	failed := h.held.Check()
	if failed == nil {
		return nil
	}
	return h.newError("check", failed)
}

// Ensure makes sure that the hold stays valid for d from now, by a renewal if that is needed. It fails with
// ErrInvalidArgument if that is more than a renewal can give: the ttl less the stop margin.
func (h *Held) Ensure(ctx context.Context, d time.Duration) error {
	defer runtime.KeepAlive(h)
	if final := h.final.Load(); final != nil {
		return final
	}
	return h.client.inner().pump.finish(ctx, h.op("ensure"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		// Rounded up: a promise may be longer than asked for, never shorter.
		return h.held.Ensure((d + time.Millisecond - 1).Milliseconds(), timeLimit(ctx), to)
	})
}

// Context returns a context that is cancelled when the hold is lost, with a cause that is ErrLost, or released, with
// one that is ErrNotHeld. It comes from no other context, and keeps the hold from being garbage-collected.
func (h *Held) Context() context.Context {
	h.watch.Do(func() {
		ctx, cancel := context.WithCancelCause(context.Background())
		h.ctx = heldContext{ctx, h}
		// Before the look at what the hold has come to: either that sees its end, or the end sees this.
		h.cancel.Store(&cancel)
		h.watchForLoss(cancel)
	})
	return h.ctx
}

// heldContext keeps a hold alive as long as somebody may look at its context. What the pump keeps is only the context
// inside.
type heldContext struct {
	context.Context
	held *Held
}

func (h *Held) watchForLoss(cancel context.CancelCauseFunc) {
	defer runtime.KeepAlive(h)
	// The pump keeps this function: it must not lead to h.
	op, notHeld := h.op("hold"), h.notHeld()
	done := func(event ccoord.Event) {
		defer event.Destroy()
		switch failed := event.Err(); {
		case failed == nil:
			loss := Loss(event.Loss())
			cancel(&Error{Code: ErrLost, Op: op, Message: "the hold is lost (" + loss.String() + ")", Loss: loss})
		case Code(failed.Code) == ErrNotHeld:
			cancel(notHeld)
		default:
			cancel(newError(op, failed))
		}
	}
	if final := h.final.Load(); final != nil {
		cancel(final)
	} else if failed := h.client.inner().pump.start(done, h.held.WaitLost); failed != nil {
		// The client's end was the hold's; its own words are better.
		if own := h.held.Check(); own != nil {
			failed = own
		}
		cancel(h.newError("hold", failed))
	}
}

// Release releases the lock and hands it to the next waiter, in one write. Whatever it returns, the lock is not held
// any more: when ctx ends first, also before the call, the release goes on in the background.
//
// It fails with ErrLost if the hold was lost before; nothing of a later holder is touched then. It fails with
// ErrNotHeld when it was released before.
func (h *Held) Release(ctx context.Context) error {
	defer runtime.KeepAlive(h)
	if h.released.Swap(true) {
		return h.notHeld()
	}
	h.cleanup.Stop()
	err := h.client.inner().pump.finish(ctx, h.op("release"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return h.held.Release(timeLimit(ctx), to)
	})
	if CodeOf(err) == ErrClosed {
		// The client's end was the hold's; its own words are better.
		if failed := h.held.Check(); failed != nil {
			err = h.newError("release", failed)
		}
	}
	h.end(err)
	return err
}

// end makes the outcome of the release final. Destroying the handle releases whatever is not released yet.
func (h *Held) end(err error) {
	final := h.notHeld()
	if e, ok := err.(*Error); ok && e.Code == ErrLost {
		final = e
	}
	h.final.Store(final)
	h.held.Destroy()
	if cancel := h.cancel.Load(); cancel != nil {
		(*cancel)(final)
	}
}

func (h *Held) op(verb string) string { return verb + " lock '" + h.name + "'" }

func (h *Held) notHeld() *Error {
	return &Error{Code: ErrNotHeld, Op: h.op("hold"), Message: "the lock is released"}
}

// newError puts an error about this hold into Go's terms: a handle that is gone is a hold that was released.
func (h *Held) newError(verb string, failed *ccoord.Error) *Error {
	e := newError(h.op(verb), failed)
	if Code(failed.Code) == ErrHandle {
		e.Code, e.Message = ErrNotHeld, "the lock is released"
	}
	return e
}
