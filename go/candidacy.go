package coord

import (
	"context"
	"fmt"
	"runtime/debug"

	"coord/internal/ccoord"
)

// Candidacy is a function that is called in every term of this client, until Close.
type Candidacy struct {
	core *core
	op   string
	// stop begins the end.
	stop      context.CancelFunc
	candidacy ccoord.Candidacy
	// ended is closed when the last call has returned and the candidacy is over.
	ended chan struct{}
	err   error
}

// CandidacyOption changes how a function is called. [Backoff] and [Priority] are, too; the highest of one client's counts.
type CandidacyOption interface{ change(*[]ccoord.Setting) }

func (o CampaignOption) change(set *[]ccoord.Setting) { o(set) }

type candidacyOption func(*[]ccoord.Setting)

func (o candidacyOption) change(set *[]ccoord.Setting) { o(set) }

// KeepOnError says whether a call that fails leaves the term as it is. It does not by default.
func KeepOnError(keep bool) CandidacyOption {
	return candidacyOption(func(set *[]ccoord.Setting) {
		*set = append(*set, ccoord.Setting{Name: "keep_on_error", Number: number(keep)})
	})
}

// WhenElected has f called, on a goroutine of its own, whenever this client leads. It campaigns by itself until Close or
// until ctx ends: again after every term, through lost sessions and outages of the store. It does not wait.
//
// The context of f comes from ctx, and is cancelled when the term is over, before anybody else can lead; then f is to
// return. Calls never overlap: the next comes only after f has returned, in a later term, and until then the store keeps
// the term for this client's session. When f returns nil, the term goes on until it is lost, resigned, or the candidacy
// closed. An error or a panic of f is logged, ends the term unless KeepOnError, and makes this client pause before it
// campaigns again.
//
// All candidacies of one election in one client share one campaign, hence one place in the queue and one term; the value
// that is published is that of the oldest of them. One that is registered while this client leads by such a campaign is
// called at once.
func (l *Election) WhenElected(
	ctx context.Context, value string, f func(ctx context.Context, term *Term) error, options ...CandidacyOption,
) (*Candidacy, error) {
	op := l.op("take part in")
	if f == nil {
		return nil, &Error{Code: ErrInvalidArgument, Op: op, Message: "there is no function"}
	}
	if ctx.Err() != nil {
		return nil, interrupted(ctx, op, "was not begun")
	}
	var set []ccoord.Setting
	for _, option := range options {
		if option != nil {
			option.change(&set)
		}
	}
	core := l.client.inner()
	candidacy, failed := l.election.WhenElected(value, set)
	if failed != nil {
		return nil, core.newError(op, failed)
	}
	waiting, stop := context.WithCancel(ctx)
	c := &Candidacy{core: core, op: op, stop: stop, candidacy: candidacy, ended: make(chan struct{})}
	closed := make(chan error, 1)
	// At once, also while f runs: its context is cancelled by it.
	context.AfterFunc(waiting, func() { closed <- c.close() })
	go c.run(ctx, waiting, closed, l.client, f)
	return c, nil
}

// Run campaigns, and calls f in every term as WhenElected does, until f returns nil during one: then it resigns and
// returns nil. It fails when ctx ends and with ErrClosed when the client is closed, and waits for f first.
func (l *Election) Run(
	ctx context.Context, value string, f func(ctx context.Context, term *Term) error, options ...CandidacyOption,
) error {
	if f == nil {
		return &Error{Code: ErrInvalidArgument, Op: l.op("take part in"), Message: "there is no function"}
	}
	made := make(chan *Candidacy, 1)
	finished := false
	c, err := l.WhenElected(ctx, value, func(ctx context.Context, term *Term) error {
		if err := f(ctx, term); err != nil {
			return err
		}
		if loss := term.Loss(); loss == LossNone || loss == LossResigned {
			finished = true
			c := <-made
			made <- c
			c.stop()
		}
		return nil
	}, options...)
	if err != nil {
		return err
	}
	made <- c
	<-c.ended
	switch {
	case finished:
		return c.err
	case ctx.Err() != nil:
		return interrupted(ctx, c.op, "was given up")
	default:
		return &Error{Code: ErrClosed, Op: c.op, Message: "the client is closed"}
	}
}

// run calls f in every term, until the end has begun. A function that ends its goroutine (runtime.Goexit) has failed, and
// another goroutine goes on: the candidacy is not over, and whoever waits for its end is not to be told so.
func (c *Candidacy) run(
	ctx, waiting context.Context, closed <-chan error, client *Client, f func(context.Context, *Term) error,
) {
	over := false
	defer func() {
		if over {
			close(c.ended)
		} else {
			go c.run(ctx, waiting, closed, client, f)
		}
	}()
	c.lead(ctx, waiting, closed, client, f)
	over = true
}

// lead calls f in one term after another.
func (c *Candidacy) lead(
	ctx, waiting context.Context, closed <-chan error, client *Client, f func(context.Context, *Term) error,
) {
	for {
		elected, err := c.next(waiting)
		switch {
		case err == nil && waiting.Err() == nil:
			c.call(ctx, client, elected, f)
		case err == nil: // won in the moment of the end: nothing is begun
			_ = elected.Complete(false, "")
			elected.Destroy()
		case CodeOf(err) == ErrClosed || waiting.Err() != nil:
			c.stop()
			c.err = <-closed
			c.candidacy.Destroy()
			return
		default: // what waiting cannot cure; the campaign goes on, and tells again
			c.core.report("a coord campaign fails", "error", err)
		}
	}
}

func (c *Candidacy) next(ctx context.Context) (ccoord.Elected, error) {
	return next(ctx, c.core, c.op, c.candidacy.Next, ccoord.Event.TakeElected)
}

// close ends the candidacy in the library, and waits until the term is given back.
func (c *Candidacy) close() error {
	err := c.core.pump.finish(context.Background(), c.op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return c.candidacy.Close(-1, to)
	})
	if CodeOf(err) == ErrClosed {
		return nil // the client's end was the candidacy's
	}
	return err
}

// call calls f in one term, and completes the call with its outcome.
func (c *Candidacy) call(ctx context.Context, client *Client, elected ccoord.Elected, f func(context.Context, *Term) error) {
	defer elected.Destroy()
	handle, failed := elected.Term()
	if failed != nil {
		return
	}
	term := newSharedTerm(client, handle)
	marked := context.WithValue(context.WithValue(ctx, runBy{c.core}, true), calledBy{c}, true)
	inside, cancel := context.WithCancelCause(marked)
	defer cancel(nil)
	over := term.Context()
	defer context.AfterFunc(over, func() { cancel(context.Cause(over)) })()
	// What it is when f ends its goroutine: then nothing below but this is run.
	err := errEndedItsGoroutine
	defer func() { c.complete(term, elected, err) }()
	err = guarded(inside, term, f)
}

// complete says what a call has come to, and reports an error.
func (c *Candidacy) complete(term *Term, elected ccoord.Elected, err error) {
	if err == nil {
		_ = elected.Complete(false, "")
		return
	}
	_ = elected.Complete(true, readable(err.Error()))
	c.core.report("a function that ran as leader has failed", "election", term.Name(), "token", term.Token(), "error", err)
}

// calledBy marks the contexts of a candidacy's function.
type calledBy struct{ candidacy *Candidacy }

// guarded makes an error of a panic: one function must not end the program of all.
func guarded(ctx context.Context, term *Term, f func(context.Context, *Term) error) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("panic: %v\n%s", panicked, debug.Stack())
		}
	}()
	return f(ctx, term)
}

// Close ends the candidacy: no further call begins, the context of one that runs is cancelled, and when it was the last
// candidacy of this client in the election, the term is given back as soon as that call has returned. Close waits for
// that; when ctx ends first, it goes on in the background. Closing again waits for the same end.
//
// Inside the function, with its context, it does not wait: it would wait for itself.
func (c *Candidacy) Close(ctx context.Context) error {
	c.stop()
	if ctx.Value(calledBy{c}) != nil {
		return nil
	}
	select {
	case <-c.ended:
		return c.err
	case <-ctx.Done():
		return interrupted(ctx, c.op, "goes on in the background")
	}
}

// Done is closed when the candidacy is over: closed, its context ended, or its client closed; and its last call has
// returned.
func (c *Candidacy) Done() <-chan struct{} { return c.ended }
