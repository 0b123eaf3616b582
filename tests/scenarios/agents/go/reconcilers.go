package main

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"coord"
)

// runner is a reconciler. Each call of its function waits to be told what to return, unless it is served.
type runner struct {
	*coord.Reconciler
	calls chan *run
	serve bool
	over  <-chan struct{} // closed at the end of the agent

	mu   sync.Mutex
	ran  map[string]any // the keys by their JSON
	runs int
}

// run is one call of the function.
type run struct {
	ctx     context.Context
	work    *coord.Work
	returns chan returned
}

type returned struct {
	outcome coord.Outcome
	err     error
	panics  bool
}

// call is the function.
func (r *runner) call(ctx context.Context, work *coord.Work) (coord.Outcome, error) {
	if r.serve {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ran[keyText(work.Key())] = work.Key()
		r.runs++
		return nil, nil
	}
	call := &run{ctx, work, make(chan returned, 1)}
	select {
	case r.calls <- call:
	case <-ctx.Done(): // nobody has asked for it before the end
		return nil, ctx.Err()
	}
	select {
	case given := <-call.returns:
		if given.panics {
			panic("dropped")
		}
		return given.outcome, given.err
	case <-r.over:
		return nil, nil
	}
}

func (a *agent) reconcile(w words, client *coord.Client) error {
	source, err := sourceOf(w)
	if err != nil {
		return err
	}
	options, err := reconcileOptions(w)
	if err != nil {
		return err
	}
	r := &runner{calls: make(chan *run), serve: w.values["serve"] == "true", over: a.over, ran: map[string]any{}}
	// Its context is its life.
	r.Reconciler, err = client.Reconcile(context.Background(), w.values["name"], source, r.call, options...)
	if err == nil {
		a.runners[w.values["as"]] = r
	}
	return err
}

func sourceOf(w words) (coord.Source, error) {
	kind, name, _ := strings.Cut(w.values["source"], ":")
	switch kind {
	case "table":
		text, ok := w.values["filter"]
		if !ok {
			return coord.SourceTable(name, nil), nil
		}
		var filter bson.D
		err := bson.UnmarshalExtJSON([]byte(text), false, &filter)
		return coord.SourceTable(name, filter), err
	case "observer":
		return coord.SourceObserver(name), nil
	case "locks":
		return coord.SourceReleasedLocks(name), nil
	case "manual":
		return coord.SourceManual(), nil
	}
	return coord.Source{}, fmt.Errorf("there is no source '%s'", w.values["source"])
}

func reconcileOptions(w words) ([]coord.ReconcileOption, error) {
	var options []coord.ReconcileOption
	if mode, ok := w.values["mode"]; ok {
		options = append(options, coord.InMode(coord.Mode(mode)))
	}
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for name, option := range map[string]func(int) coord.ReconcileOption{
		"workers":       coord.Workers,
		"shards":        coord.Shards,
		"backoff_ms":    func(n int) coord.ReconcileOption { return coord.Backoff(ms(n), ms(n)) },
		"resync_ms":     func(n int) coord.ReconcileOption { return coord.Resync(ms(n)) },
		"move_grace_ms": func(n int) coord.ReconcileOption { return coord.MoveGrace(ms(n)) },
	} {
		if text, ok := w.values[name]; ok {
			number, err := strconv.Atoi(text)
			if err != nil {
				return nil, err
			}
			options = append(options, option(number))
		}
	}
	return options, nil
}

func (a *agent) withRunner(w words, r *runner) (*answer, error) {
	ctx, cancel, err := limited(w, bound)
	if err != nil {
		return nil, err
	}
	defer cancel()
	switch w.verb {
	case "work":
		return a.takeWork(ctx, w, r)
	case "ran":
		return r.sayRan()
	case "reconciler":
		return sayReconciler(r)
	case "add", "cancel_key", "reconciled":
		return withKey(ctx, w, r)
	case "pause":
		r.Pause()
		return nil, nil
	case "resume":
		r.Resume()
		return nil, nil
	case "drain":
		return nil, r.Drain(ctx)
	case "parked":
		return sayParked(r)
	case "end":
		return nil, r.Close(ctx)
	}
	return nil, fmt.Errorf("a reconciler cannot '%s'", w.verb)
}

func (a *agent) takeWork(ctx context.Context, w words, r *runner) (*answer, error) {
	var call *run
	select {
	case call = <-r.calls:
	case <-r.Done():
		if err := r.Err(); err != nil {
			return nil, err
		}
		return nil, &coord.Error{Code: coord.ErrClosed, Op: "wait for a run", Message: "the reconciler is over"}
	case <-ctx.Done():
		return nil, errors.New("no key has come within 30 s")
	}
	a.works[w.values["as"]] = call
	reply := say("ok").with("key", keyText(call.work.Key())).with("attempt", call.work.Attempt())
	if call.work.Exists() {
		document, err := bson.MarshalExtJSON(call.work.Document(), false, false)
		if err != nil {
			return nil, err
		}
		reply.with("document", string(document))
	}
	if revision, ok := call.work.Revision(); ok {
		reply.with("revision", uint64(revision))
	}
	if token := call.work.Token(); token != 0 {
		reply.with("token", token)
	}
	return reply, nil
}

func (a *agent) withRun(w words, call *run) (*answer, error) {
	ctx, cancel := bounded()
	defer cancel()
	switch w.verb {
	case "complete":
		given, err := returnedBy(w)
		if err != nil {
			return nil, err
		}
		return nil, a.endRun(ctx, w.values["hold"], call, given)
	case "check":
		return nil, call.work.Check()
	case "cancelled":
		select {
		case <-call.ctx.Done():
			return nil, nil
		case <-ctx.Done():
			return nil, errors.New("it was not asked to stop within 30 s")
		}
	}
	return nil, fmt.Errorf("a run cannot '%s'", w.verb)
}

// endRun lets the function return, and waits until the library knows.
func (a *agent) endRun(ctx context.Context, name string, call *run, given returned) error {
	delete(a.works, name)
	call.returns <- given
	for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		if coord.CodeOf(call.work.Check()) == coord.ErrNotHeld {
			return nil
		}
	}
	return errors.New("the run has not ended within 30 s")
}

func returnedBy(w words) (returned, error) {
	var after time.Duration
	text, delayed := w.values["after_ms"]
	if delayed {
		ms, err := strconv.Atoi(text)
		if err != nil {
			return returned{}, err
		}
		after = time.Duration(ms) * time.Millisecond
	}
	message, ok := w.values["message"]
	if !ok {
		message = "failed"
	}
	switch outcome := w.values["outcome"]; {
	case outcome == "" || outcome == "done":
		return returned{}, nil
	case outcome == "requeue":
		return returned{outcome: coord.RequeueAfter(after)}, nil
	case outcome == "error" && delayed:
		return returned{err: coord.ErrorAfter(errors.New(message), after)}, nil
	case outcome == "error":
		return returned{err: errors.New(message)}, nil
	case outcome == "terminal":
		return returned{err: coord.Terminal(errors.New(message))}, nil
	default:
		return returned{}, fmt.Errorf("there is no outcome '%s'", outcome)
	}
}

func withKey(ctx context.Context, w words, r *runner) (*answer, error) {
	key, err := keyOf(w.values["key"])
	if err != nil {
		return nil, err
	}
	var news bool
	switch after, later := w.values["after_ms"]; {
	case w.verb == "reconciled":
		position := uint64(0)
		if text, ok := w.values["position"]; ok {
			if position, err = strconv.ParseUint(text, 10, 64); err != nil {
				return nil, err
			}
		}
		return nil, r.WaitUntilReconciled(ctx, key, coord.Position(position))
	case w.verb == "cancel_key":
		news, err = r.Cancel(key)
	case later:
		ms, failed := strconv.Atoi(after)
		if failed != nil {
			return nil, failed
		}
		news, err = r.AddAfter(key, time.Duration(ms)*time.Millisecond)
	default:
		news, err = r.Add(key)
	}
	return say("ok").with("news", news), err
}

func (r *runner) sayRan() (*answer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.serve {
		return nil, errors.New("it is not served")
	}
	keys := make([]any, 0, len(r.ran))
	for _, key := range r.ran {
		keys = append(keys, key)
	}
	return say("ok").with("count", len(keys)).with("runs", r.runs).with("keys", keysText(keys)), nil
}

func sayReconciler(r *runner) (*answer, error) {
	stats, err := r.Stats()
	shards := make([]string, len(stats.Shards))
	for i, shard := range stats.Shards {
		shards[i] = strconv.Itoa(shard)
	}
	a := say("ok").with("name", r.Name()).with("ready", stats.Ready).with("delayed", stats.Delayed)
	a.with("in_flight", stats.InFlight).with("parked", stats.Parked).with("runs", stats.Runs).with("errors", stats.Errors)
	a.with("retries", stats.Retries).with("terminal", stats.Terminal).with("requeued", stats.Requeued)
	a.with("fenced", stats.Fenced).with("dropped", stats.Dropped).with("synced", stats.Synced).with("paused", stats.Paused)
	return a.with("shards", strings.Join(shards, ",")).with("holds", len(shards)), err
}

func sayParked(r *runner) (*answer, error) {
	parked, err := r.Parked()
	sort.Slice(parked, func(i, j int) bool { return keyBefore(parked[i].Key, parked[j].Key) })
	keys, reasons := make([]any, len(parked)), make([]string, len(parked))
	for i, one := range parked {
		keys[i], reasons[i] = one.Key, one.Reason
	}
	a := say("ok").with("count", len(parked)).with("keys", keysText(keys))
	return a.with("reasons", strings.Join(reasons, ",")), err
}

// keyOf reads a key, which is Extended JSON.
func keyOf(text string) (any, error) {
	var holder struct {
		Key any `bson:"_id"`
	}
	if err := bson.UnmarshalExtJSON([]byte(`{"_id":`+text+`}`), false, &holder); err != nil {
		return nil, err
	}
	return holder.Key, nil
}

// keyText is a key as Extended JSON.
func keyText(key any) string {
	text, err := bson.MarshalExtJSON(bson.D{{Key: "k", Value: key}}, false, false)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(text), `{"k":`), "}")
}

// keysText is an array of keys in their order.
func keysText(keys []any) string {
	sort.Slice(keys, func(i, j int) bool { return keyBefore(keys[i], keys[j]) })
	texts := make([]string, len(keys))
	for i, key := range keys {
		texts[i] = keyText(key)
	}
	return "[" + strings.Join(texts, ",") + "]"
}

func keyBefore(one, other any) bool {
	a, number := one.(int64)
	b, both := other.(int64)
	if number && both {
		return a < b
	}
	return keyText(one) < keyText(other)
}
