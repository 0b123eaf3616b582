package coord

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"coord/internal/ccoord"
)

// Source is where the keys of a reconciler come from.
type Source struct {
	make func(*core) (ccoord.Source, *ccoord.Error)
}

// SourceTable are the documents of a table that match: their keys, at the start and whenever one changes or is deleted.
// The filter is a document (a bson.D, a bson.M, a struct); nil for all documents.
func SourceTable(name string, filter any) Source {
	return Source{func(c *core) (ccoord.Source, *ccoord.Error) {
		var which []byte
		if filter != nil {
			var err error
			if which, err = bson.Marshal(filter); err != nil {
				return ccoord.Source{}, &ccoord.Error{
					Code: int32(ErrInvalidArgument), Message: "the filter is no document of BSON: " + err.Error(),
				}
			}
		}
		return c.client.SourceTable(name, which)
	}}
}

// SourceObserver are the services that an observer of this pattern sees, "name", "scope/name" or "scope/*": their full
// names, at the start those that somebody provides, and then whenever a provider comes, goes or changes.
func SourceObserver(pattern string) Source {
	return Source{func(*core) (ccoord.Source, *ccoord.Error) { return ccoord.SourceObserver(pattern) }}
}

// SourceReleasedLocks are the locks that became free: their full names. At the start every free lock that the store
// remembers, and again after an interruption; then each that is released while nobody waits for it. prefix is what their
// names begin with, of which the client fills in namespace and scope as of every name: "order-", "scope/", "scope/order-",
// "namespace/scope/". It is empty for all of the client's namespace; one that no name begins with is ErrInvalidArgument.
func SourceReleasedLocks(prefix string) Source {
	return Source{func(*core) (ccoord.Source, *ccoord.Error) { return ccoord.SourceReleasedLocks(prefix) }}
}

// SourceManual are the keys that are added with [Reconciler.Add].
func SourceManual() Source {
	return Source{func(*core) (ccoord.Source, *ccoord.Error) { return ccoord.SourceManual() }}
}

// Reconciler is a function that is called for every key of a source, and again for every key that changes, until Close.
// Its methods may be called from any goroutine.
type Reconciler struct {
	core       *core
	op         string
	name       string
	reconciler ccoord.Reconciler
	// stop begins the end.
	stop context.CancelFunc
	// ended is closed when the last run has ended and the reconciler is over.
	ended chan struct{}

	mu  sync.Mutex
	err error
}

// Reconcile starts a reconciler of this name, "name", "scope/name" or "namespace/scope/name". It returns when it follows
// its source: f is called, on goroutines of its own, for every key that is there, and again for every key that changes, is
// deleted, or is added by hand, until Close or until ctx ends.
//
// Within one reconciler a key is never run by two at once; changes during a run lead to exactly one more. f returns nil,
// nil when nothing is to be done until the key changes, or [RequeueAfter]. After an error or a panic, which is logged with
// its stack, it is called again after a growing pause ([Backoff]), or that of [ErrorAfter]; [Terminal] parks the key until
// it changes.
//
// The context of f comes from ctx. It is cancelled when the run is asked to stop, with the cause: [ErrFenced] when the
// shard or the leadership is lost, [ErrCancelled] when the key was cancelled, its shard is to move, or the reconciler is
// being closed. What is returned after a loss does not count: the next holder runs the key.
//
// Reconcilers of one source have each a queue of their own; the name tells which are replicas of each other, which
// matters in [ModeLeader] and [ModeSharded]. It fails with ErrInvalidArgument for the name and the options, for another
// number of shards than this reconciler began with, and for [SourceManual] in another mode than [ModeAll]; with
// ErrUnsupported if the store cannot watch; with ErrClosed; and with the store's errors.
func (c *Client) Reconcile(
	ctx context.Context, name string, source Source, f func(ctx context.Context, work *Work) (Outcome, error),
	options ...ReconcileOption,
) (*Reconciler, error) {
	defer runtime.KeepAlive(c)
	op := "run reconciler '" + name + "'"
	if f == nil || source.make == nil {
		return nil, &Error{Code: ErrInvalidArgument, Op: op, Message: "there is no function, or no source"}
	}
	var set []ccoord.Setting
	workers := int64(1)
	for _, option := range options {
		if option != nil {
			option.reconcile(&set)
		}
	}
	for _, setting := range set {
		if setting.Name == "workers" {
			workers = setting.Number
		}
	}
	core := c.inner()
	from, failed := source.make(core)
	if failed != nil {
		return nil, core.newError(op, failed)
	}
	defer from.Destroy()
	event, err := core.pump.await(ctx, op, true, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return core.client.Reconcile(name, from, set, timeLimit(ctx), to)
	})
	if err != nil {
		return nil, err
	}
	defer event.Destroy()
	reconciler, failed := event.TakeReconciler()
	if failed != nil {
		return nil, newError(op, failed)
	}
	waiting, stop := context.WithCancel(ctx)
	r := &Reconciler{
		core: core, op: op, name: reconciler.Name(), reconciler: reconciler, stop: stop, ended: make(chan struct{}),
	}
	// The handle goes with r: what it has done can still be asked.
	runtime.AddCleanup(r, ccoord.Reconciler.Destroy, reconciler)
	go r.run(ctx, waiting, c, int(workers), f)
	return r, nil
}

// runOf marks the contexts of a reconciler's function.
type runOf struct{ reconciler *Reconciler }

// run calls f for every key, until the end has begun.
func (r *Reconciler) run(
	ctx, waiting context.Context, client *Client, workers int, f func(context.Context, *Work) (Outcome, error),
) {
	defer close(r.ended)
	closed := make(chan error, 1)
	// At once, also while f runs: its context is cancelled by it.
	context.AfterFunc(waiting, func() { closed <- r.close() })
	var working sync.WaitGroup
	working.Add(workers)
	for range workers {
		go r.worker(ctx, waiting, f, working.Done)
	}
	working.Wait()
	r.stop()
	r.fail(<-closed)
	runtime.KeepAlive(client)
}

// worker is one worker. A function that ends its goroutine (runtime.Goexit) has failed, and another goroutine goes on.
func (r *Reconciler) worker(
	ctx, waiting context.Context, f func(context.Context, *Work) (Outcome, error), done func(),
) {
	over := false
	defer func() {
		if over {
			done()
		} else {
			go r.worker(ctx, waiting, f, done)
		}
	}()
	r.work(ctx, waiting, f)
	over = true
}

// work takes runs, one after another.
func (r *Reconciler) work(ctx, waiting context.Context, f func(context.Context, *Work) (Outcome, error)) {
	for {
		work, err := next(waiting, r.core, r.op, r.reconciler.Next, ccoord.Event.TakeWork)
		switch {
		case err == nil && waiting.Err() == nil:
			r.call(ctx, work, f)
		case err == nil: // taken in the moment of the end: nothing is begun
			work.Destroy()
			return
		default:
			if CodeOf(err) != ErrClosed && waiting.Err() == nil {
				// The source cannot be followed any more, and no worker gets another key: each hears of it.
				if r.fail(err) {
					r.core.report("a coord reconciler has ended", "reconciler", r.name, "error", err)
				}
			}
			return
		}
	}
}

// call calls f for one key, and completes the run with what it returns.
func (r *Reconciler) call(ctx context.Context, handle ccoord.Work, f func(context.Context, *Work) (Outcome, error)) {
	defer handle.Destroy()
	work := &Work{work: handle, info: handle.Info()}
	marked := context.WithValue(context.WithValue(ctx, runBy{r.core}, true), runOf{r}, true)
	inside, cancel := context.WithCancelCause(marked)
	defer cancel(nil)
	done := func(event ccoord.Event) {
		if event.Err() == nil {
			if err := work.Check(); err != nil {
				cancel(err)
			}
		}
		event.Destroy()
	}
	if failed := r.core.pump.start(done, handle.WaitCancelled); failed != nil {
		cancel(newError(r.op, failed))
	}
	// What it is when f ends its goroutine: then nothing below but this is run.
	outcome, err, stack := Outcome(nil), errEndedItsGoroutine, []byte(nil)
	defer func() { r.complete(work, outcome, err, stack) }()
	outcome, err, stack = called(inside, work, f)
}

var errEndedItsGoroutine = errors.New("it has ended its goroutine (runtime.Goexit)")

// complete says what the run has come to, and reports an error.
func (r *Reconciler) complete(work *Work, outcome Outcome, err error, stack []byte) {
	if err != nil {
		details := []any{"reconciler", r.name, "key", work.Key(), "attempt", work.Attempt(), "error", err}
		if stack != nil {
			details = append(details, "stack", string(stack))
		}
		r.core.report("a function of a coord reconciler has failed", details...)
	}
	if failed := work.work.Complete(completion(outcome, err)); failed != nil {
		r.core.report("a run of a coord reconciler does not count", "reconciler", r.name, "key", work.Key(),
			"error", newError(r.op, failed))
	}
}

// called makes an error of a panic: one function must not end the program of all.
func called(
	ctx context.Context, work *Work, f func(context.Context, *Work) (Outcome, error),
) (outcome Outcome, err error, stack []byte) {
	defer func() {
		if panicked := recover(); panicked != nil {
			outcome, err, stack = nil, fmt.Errorf("panic: %v", panicked), debug.Stack()
		}
	}()
	outcome, err = f(ctx, work)
	return outcome, err, nil
}

// readable makes a text that the library takes as a message.
func readable(text string) string {
	const most = 1 << 14
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") // without the half of its last letter
	}
	return text
}

// close ends the reconciler in the library, and waits until its runs are completed and what it held is given back.
func (r *Reconciler) close() error {
	err := r.core.pump.finish(context.Background(), r.op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return r.reconciler.Close(-1, to)
	})
	if CodeOf(err) == ErrClosed {
		return nil // the client's end was the reconciler's
	}
	return err
}

// fail keeps the first error, and returns whether this is it.
func (r *Reconciler) fail(err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil || r.err != nil {
		return false
	}
	r.err = err
	return true
}

// Name is the reconciler's full name, "namespace/scope/name".
func (r *Reconciler) Name() string { return r.name }

// Add has a key run as soon as a worker is free, as if it had changed; also a parked one. A key is a string, an integer,
// or a document (a struct, a bson.D). Add returns whether that was news. It fails with ErrNotHeld if another replica runs
// the key, and with ErrClosed also while it drains.
func (r *Reconciler) Add(key any) (bool, error) {
	return r.about("add a key", key, r.reconciler.Add)
}

// AddAfter has a key run after this time, or earlier if that is planned already. It returns whether that was news, and
// fails as Add does, and with ErrInvalidArgument for a negative time. The time counts in whole milliseconds, rounded up.
func (r *Reconciler) AddAfter(key any, d time.Duration) (bool, error) {
	return r.about("plan a key", key, func(key []byte) (bool, *ccoord.Error) {
		return r.reconciler.AddAfter(key, roundedUp(d))
	})
}

// Cancel forgets what is planned for a key, its errors included, and cancels the context of its run. The key is run again
// when it changes; until then WaitUntilReconciled says that it was cancelled. Cancel returns whether there was anything.
func (r *Reconciler) Cancel(key any) (bool, error) {
	return r.about("cancel a key", key, r.reconciler.Cancel)
}

func (r *Reconciler) about(op string, key any, call func([]byte) (bool, *ccoord.Error)) (bool, error) {
	document, err := keyBytes(op, key)
	if err != nil {
		return false, err
	}
	defer runtime.KeepAlive(r)
	was, failed := call(document)
	if failed != nil {
		return false, newError(op, failed)
	}
	return was, nil
}

// Pause begins no run until Resume; keys are still taken in, and shards and leadership kept.
func (r *Reconciler) Pause() {
	_ = r.reconciler.Pause()
	runtime.KeepAlive(r)
}

// Resume ends a pause.
func (r *Reconciler) Resume() {
	_ = r.reconciler.Resume()
	runtime.KeepAlive(r)
}

// WaitUntilReconciled waits until every change of a key up to this position, that of a write, has been run, the last time
// without an error. It fails with ErrConflict if the key is parked, or was cancelled before that and has neither changed
// nor been added since, with ErrNotHeld if another replica runs it, with ErrClosed, also for a change after a drain has begun,
// and with what ended the source.
func (r *Reconciler) WaitUntilReconciled(ctx context.Context, key any, position Position) error {
	const op = "wait until a key is reconciled"
	document, err := keyBytes(op, key)
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(r)
	return r.core.pump.finish(ctx, op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return r.reconciler.WaitUntilReconciled(document, uint64(position), timeLimit(ctx), to)
	})
}

// Drain takes in no more keys, has those run that are due now, and waits until these runs have ended; then the reconciler
// is closed. What is due later is not waited for. When ctx ends first, also before the call, it goes on in the background.
//
// Inside the function, with its context, it fails with ErrReentrant: it would wait for itself.
func (r *Reconciler) Drain(ctx context.Context) error {
	const op = "drain a reconciler"
	if ctx.Value(runOf{r}) != nil {
		return &Error{Code: ErrReentrant, Op: op, Message: "its own function cannot drain a reconciler; return from it first"}
	}
	defer runtime.KeepAlive(r)
	err := r.core.pump.finishAnyway(ctx, op, r.reconciler.Drain)
	if err != nil && CodeOf(err) != ErrClosed {
		return err
	}
	return r.Close(ctx)
}

// Close ends the reconciler: no further run begins, the contexts of those that go on are cancelled, and when they have
// ended, shards and leadership are given up. Close waits for that; when ctx ends first, it goes on in the background.
// Closing again waits for the same end. It returns what ended the source if that ended the reconciler before.
//
// Inside the function, with its context, it does not wait: it would wait for itself.
func (r *Reconciler) Close(ctx context.Context) error {
	r.stop()
	if ctx.Value(runOf{r}) != nil {
		return nil
	}
	select {
	case <-r.ended:
		return r.Err()
	case <-ctx.Done():
		return interrupted(ctx, r.op, "goes on in the background")
	}
}

// Done is closed when the reconciler is over: closed, drained, its context or its source ended, or its client closed; and
// its last run has ended.
func (r *Reconciler) Done() <-chan struct{} { return r.ended }

// Err is what ended the source, if that ended the reconciler; nil otherwise.
func (r *Reconciler) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}
