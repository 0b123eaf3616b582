package coord

import (
	"context"
	"runtime"
	"sync"
	"time"

	"coord/internal/ccoord"
)

// Term is a term of this client's as the leader of an election, until Resign. Its methods may be called from any
// goroutine.
type Term struct {
	client  *Client
	term    ccoord.Term
	name    string
	token   int64
	cleanup runtime.Cleanup

	watch sync.Once
	ctx   context.Context
}

// newCampaignedTerm is one that is resigned when it is forgotten.
func newCampaignedTerm(client *Client, term ccoord.Term) *Term {
	t := &Term{client: client, term: term, name: term.Name(), token: term.Token()}
	t.cleanup = runtime.AddCleanup(t, forgottenTerm.resign, forgottenTerm{client.inner(), term, t.name, t.token})
	return t
}

// newSharedTerm is one that functions share, and that ends with them.
func newSharedTerm(client *Client, term ccoord.Term) *Term {
	t := &Term{client: client, term: term, name: term.Name(), token: term.Token()}
	t.cleanup = runtime.AddCleanup(t, ccoord.Term.Destroy, term)
	return t
}

// forgottenTerm is what is left of a Term that was collected.
type forgottenTerm struct {
	core  *core
	term  ccoord.Term
	name  string
	token int64
}

func (f forgottenTerm) resign() {
	if !f.core.isClosed() && f.term.Loss() == int32(LossNone) {
		f.core.report("a coord term was garbage-collected without Resign; it is resigned now",
			"election", f.name, "token", f.token)
	}
	f.term.Destroy()
}

// Name is the election's full name, "namespace/scope/name".
func (t *Term) Name() string { return t.name }

// Token is the fencing token, 1 or more: it grows with every term of this election. Give it to the resource that the
// leader works on, so that it can refuse a leader from before. Tokens of different elections are not comparable.
func (t *Term) Token() int64 { return t.token }

// Value is what is published: the value that was given, or the one that was proclaimed last.
func (t *Term) Value() string {
	defer runtime.KeepAlive(t)
	value, _ := t.term.Value()
	return value
}

// Remaining is how long the term stays valid without another renewal, to the millisecond; 0 when it is over. It does
// not wait.
func (t *Term) Remaining() time.Duration {
	defer runtime.KeepAlive(t)
	return milliseconds(t.term.RemainingMillis())
}

// Loss is why the term is over, LossResigned when it was this client's own wish; LossNone unless it is. It does not
// wait.
func (t *Term) Loss() Loss {
	defer runtime.KeepAlive(t)
	return Loss(t.term.Loss())
}

// Check returns nil if this client leads now, ErrLost or ErrNotHeld otherwise. It reads a clock and nothing else: call
// it before each effect.
func (t *Term) Check() error {
	defer runtime.KeepAlive(t)
	if failed := t.term.Check(); failed != nil {
		return t.newError("check", failed)
	}
	return nil
}

// Ensure makes sure that the term stays valid for d from now, by a renewal if that is needed. It fails with
// ErrInvalidArgument if that is more than a renewal can give: the ttl less the stop margin.
func (t *Term) Ensure(ctx context.Context, d time.Duration) error {
	defer runtime.KeepAlive(t)
	return t.client.inner().pump.finish(ctx, t.op("ensure"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return t.term.Ensure(roundedUp(d), timeLimit(ctx), to)
	})
}

// Context returns a context that is cancelled when the term is over, before anybody else can lead: with a cause that is
// ErrLost, or ErrNotHeld when it was resigned or handed over. It comes from no other context, and keeps the term from
// being garbage-collected.
func (t *Term) Context() context.Context {
	t.watch.Do(func() {
		ctx, cancel := context.WithCancelCause(context.Background())
		t.ctx = termContext{ctx, t}
		t.watchForLoss(cancel)
	})
	return t.ctx
}

// termContext keeps a term alive as long as somebody may look at its context. What the pump keeps is only the context
// inside.
type termContext struct {
	context.Context
	term *Term
}

func (t *Term) watchForLoss(cancel context.CancelCauseFunc) {
	defer runtime.KeepAlive(t)
	// The pump keeps this function: it must not lead to t.
	op := t.op("hold")
	done := func(event ccoord.Event) {
		defer event.Destroy()
		failed := event.Err()
		if failed != nil {
			cancel(newError(op, failed))
			return
		}
		loss := Loss(event.Loss())
		if loss == LossResigned {
			cancel(&Error{Code: ErrNotHeld, Op: op, Message: "the term was resigned or handed over", Loss: loss})
			return
		}
		cancel(&Error{Code: ErrLost, Op: op, Message: "the term is lost (" + loss.String() + ")", Loss: loss})
	}
	if failed := t.client.inner().pump.start(done, t.term.WaitLost); failed != nil {
		// The client's end was the term's; its own words are better.
		if own := t.term.Check(); own != nil {
			failed = own
		}
		cancel(t.newError("hold", failed))
	}
}

// Proclaim publishes another value, at most 64 KiB. It waits and asks again while the store cannot be reached. It fails
// with ErrLost or ErrNotHeld when the term is over. When ctx ends first, it goes on in the background, so that values
// are published in the order in which they were given.
func (t *Term) Proclaim(ctx context.Context, value string) error {
	defer runtime.KeepAlive(t)
	return t.client.inner().pump.finish(ctx, t.op("proclaim in"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return t.term.Proclaim(value, timeLimit(ctx), to)
	})
}

// Resign ends the term: here at once, then in the store, where the next candidate wins it in the same write. Whatever it
// returns, the term is over: when ctx ends first, also before the call, that goes on in the background.
//
// A term of WhenElected ends for every function of this client, and the store hears of it when all of them have
// returned; Resign does not wait for that. It fails with ErrLost if the term was lost before, and with ErrNotHeld when
// it was resigned before.
func (t *Term) Resign(ctx context.Context) error {
	defer runtime.KeepAlive(t)
	return t.end(ctx, "resign from", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return t.term.Resign(timeLimit(ctx), to)
	})
}

// end begins what ends the term even when ctx has ended: nobody can do it afterwards.
func (t *Term) end(ctx context.Context, verb string, begin begin) error {
	op, pump := t.op(verb), t.client.inner().pump
	err := pump.finish(ctx, op, begin)
	if ctx.Err() != nil && t.Loss() == LossNone {
		_ = pump.start(ccoord.Event.Destroy, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
			return t.term.Resign(-1, to)
		})
	}
	return err
}

// TransferTo hands the term over to a waiting candidate, given by the id of its session (see [Election.Candidates]),
// whatever its priority, in one write. The candidate must be seen to renew its session, which takes up to a third of
// its ttl.
//
// It fails with ErrNotFound if the candidate does not wait, and with ErrUnavailable if it was not seen to renew: this
// client still leads then, as Check says, unless the candidate went away in the very moment of the hand-over.
func (t *Term) TransferTo(ctx context.Context, session string) error {
	defer runtime.KeepAlive(t)
	return t.client.inner().pump.finish(ctx, t.op("hand over"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return t.term.Transfer(session, timeLimit(ctx), to)
	})
}

func (t *Term) op(verb string) string { return verb + " the term of election '" + t.name + "'" }

func (t *Term) newError(verb string, failed *ccoord.Error) *Error {
	return newError(t.op(verb), failed)
}
