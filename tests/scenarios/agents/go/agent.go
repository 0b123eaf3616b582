package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"coord"
)

// agent has the clients, holds and running operations, and carries commands out.
type agent struct {
	clients     map[string]*coord.Client
	holds       map[string]*coord.Held
	operations  map[string]*operation
	terms       map[string]*coord.Term
	candidacies map[string]*candidacy
	providers   map[string]*coord.Provider
	observers   map[string]*coord.Observer
	runners     map[string]*runner
	works       map[string]*run
	watches     map[string]*watched
	copies      map[string]*copied
	// feeds are what `next` looks at; closers end it.
	feeds   map[string]func(context.Context) (*answer, error)
	closers map[string]func()
	over    chan struct{}
}

// operation runs in a goroutine.
type operation struct {
	cancel  context.CancelFunc
	done    chan struct{}
	held    *coord.Held // of an acquire that was granted
	term    *coord.Term // of a campaign that was won
	err     error
	entered chan *coord.Held // of a function under a lock
	finish  chan struct{}
}

func newAgent() *agent {
	return &agent{
		clients:     map[string]*coord.Client{},
		holds:       map[string]*coord.Held{},
		operations:  map[string]*operation{},
		terms:       map[string]*coord.Term{},
		candidacies: map[string]*candidacy{},
		providers:   map[string]*coord.Provider{},
		observers:   map[string]*coord.Observer{},
		runners:     map[string]*runner{},
		works:       map[string]*run{},
		watches:     map[string]*watched{},
		copies:      map[string]*copied{},
		feeds:       map[string]func(context.Context) (*answer, error){},
		closers:     map[string]func(){},
		over:        make(chan struct{}),
	}
}

func (a *agent) answer(line string) *answer {
	w, err := parse(line)
	if err != nil {
		return say("fail").with("message", err.Error())
	}
	reply, err := a.carryOut(w)
	if err != nil {
		return sayError(err)
	}
	if reply == nil {
		return say("ok")
	}
	return reply
}

// end closes what the story has left open.
func (a *agent) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeBound)
	defer cancel()
	close(a.over)
	var failed error
	for _, client := range a.clients {
		failed = errors.Join(failed, client.Close(ctx))
	}
	return failed
}

func (a *agent) carryOut(w words) (*answer, error) {
	switch w.verb {
	case "connect":
		return a.connect(w)
	case "sanitize":
		name, err := coord.Sanitize(w.values["text"])
		return say("ok").with("name", name), err
	case "await", "pending", "cancel", "entered", "finish":
		return a.withOperation(w)
	case "drop":
		return nil, a.drop(w)
	case "next":
		return a.next(w)
	case "end":
		return nil, a.endOf(w)
	case "calls", "retire":
		return a.withCandidacy(w)
	}
	if reply, err, is := a.withTables(w); is {
		return reply, err
	}
	if name, ok := w.values["hold"]; ok {
		if cached := a.copies[name]; cached != nil && w.verb == "synced" {
			return sayCopy(cached), nil
		}
		if call := a.works[name]; call != nil {
			return a.withRun(w, call)
		}
		if r := a.runners[name]; r != nil {
			return a.withRunner(w, r)
		}
		if term := a.terms[name]; term != nil {
			return withTerm(w, term)
		}
		if provider := a.providers[name]; provider != nil {
			return withProvider(w, provider)
		}
		if observer := a.observers[name]; observer != nil {
			return withObserver(w, observer)
		}
		held := a.holds[name]
		if held == nil {
			return nil, fmt.Errorf("there is no hold '%s'", name)
		}
		return withHold(w, held)
	}
	client := a.clients[w.values["client"]]
	if client == nil {
		return nil, fmt.Errorf("there is no client '%s'", w.values["client"])
	}
	return a.withClient(w, client)
}

func (a *agent) connect(w words) (*answer, error) {
	var options []coord.Option
	for name, value := range w.values {
		if option, ok := strings.CutPrefix(name, "option."); ok {
			options = append(options, coord.WithOption(option, value))
		}
	}
	ctx, cancel := bounded()
	defer cancel()
	client, err := coord.Connect(ctx, w.values["url"], options...)
	if err != nil {
		return nil, err
	}
	a.clients[w.values["client"]] = client
	return saySession(client)
}

func (a *agent) withClient(w words, client *coord.Client) (*answer, error) {
	ctx, cancel := bounded()
	defer cancel()
	switch w.verb {
	case "close":
		ctx, cancel, err := limited(w, closeBound)
		if err != nil {
			return nil, err
		}
		defer cancel()
		return nil, client.Close(ctx)
	case "session":
		return saySession(client)
	case "info":
		return sayInfo(ctx, client, w.values["lock"])
	case "locks":
		locks, err := client.Locks(ctx, w.values["prefix"])
		names := make([]string, len(locks))
		for i, lock := range locks {
			names[i] = lock.Name
		}
		return say("ok").with("locks", strings.Join(names, ",")), err
	case "break":
		token, err := strconv.ParseInt(w.values["token"], 10, 64)
		if err != nil {
			return nil, err
		}
		return nil, client.BreakLock(ctx, w.values["lock"], token, w.values["force"] == "true")
	case "force_leader", "expire", "advance":
		return nil, withStore(ctx, w, client)
	case "owners", "owner", "watch_owners":
		return a.withOwners(ctx, w, client)
	case "provide", "watch":
		return a.withService(ctx, w, client)
	case "reconcile":
		return nil, a.reconcile(w, client)
	}
	if _, ok := w.values["election"]; ok {
		return a.withElection(ctx, w, client)
	}
	lock, err := client.Lock(w.values["lock"])
	if err != nil {
		return nil, err
	}
	return a.withLock(w, client, lock)
}

func (a *agent) withLock(w words, client *coord.Client, lock *coord.Lock) (*answer, error) {
	name := w.values["as"]
	switch w.verb {
	case "acquire":
		held, err := acquire(context.Background(), lock, w)
		return a.keep(name, held, err)
	case "try":
		held, err := lock.TryAcquire(context.Background())
		return a.keep(name, held, err)
	case "start":
		a.begin(name, func(ctx context.Context, o *operation) error {
			held, err := acquire(ctx, lock, w)
			o.held = held
			return err
		})
	case "run":
		a.begin(name, func(ctx context.Context, o *operation) error {
			return lock.Do(ctx, func(_ context.Context, held *coord.Held) error {
				o.entered <- held
				<-o.finish
				return nil
			})
		})
	case "rounds":
		count, err := strconv.Atoi(w.values["rounds"])
		if err != nil {
			return nil, err
		}
		a.begin(name, func(ctx context.Context, _ *operation) error {
			return rounds(ctx, lock, count, w.values["file"])
		})
	case "races":
		count, err := strconv.Atoi(w.values["rounds"])
		if err != nil {
			return nil, err
		}
		granted, err := races(context.Background(), client, lock, count)
		return say("ok").with("granted", granted).with("cancelled", count-granted), err
	default:
		return nil, fmt.Errorf("there is no command '%s'", w.verb)
	}
	return nil, nil
}

// acquire waits for as long as the command says; a time of zero is a try.
func acquire(ctx context.Context, lock *coord.Lock, w words) (*coord.Held, error) {
	text, limited := w.values["timeout_ms"]
	if !limited {
		return lock.Acquire(ctx)
	}
	ms, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	if ms == 0 {
		return lock.TryAcquire(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
	defer cancel()
	return lock.Acquire(ctx)
}

func (a *agent) keep(name string, held *coord.Held, err error) (*answer, error) {
	if err != nil {
		return nil, err
	}
	a.holds[name] = held
	return sayGranted(held), nil
}

func (a *agent) begin(name string, work func(context.Context, *operation) error) {
	ctx, cancel := context.WithCancel(context.Background())
	o := &operation{cancel: cancel, done: make(chan struct{}), entered: make(chan *coord.Held, 1), finish: make(chan struct{})}
	a.operations[name] = o
	go func() {
		defer close(o.done)
		o.err = work(ctx, o)
	}()
}

func (a *agent) withOperation(w words) (*answer, error) {
	name := w.values["hold"]
	if c := a.candidacies[name]; c != nil {
		return a.withCall(w, c)
	}
	o := a.operations[name]
	if o == nil {
		return nil, fmt.Errorf("there is no operation '%s'", name)
	}
	ctx, cancel := bounded()
	defer cancel()
	switch w.verb {
	case "await":
		return a.await(ctx, name, o)
	case "pending":
		select {
		case <-o.done:
			return say("ok").with("pending", false), nil
		default:
			return say("ok").with("pending", true), nil
		}
	case "cancel":
		o.cancel()
	case "entered":
		select {
		case held := <-o.entered:
			return a.keep(name, held, nil)
		case <-ctx.Done():
			return nil, errors.New("the function was not called")
		}
	case "finish":
		close(o.finish)
	}
	return nil, nil
}

func (a *agent) await(ctx context.Context, name string, o *operation) (*answer, error) {
	select {
	case <-o.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	delete(a.operations, name)
	o.cancel()
	if o.term != nil {
		a.terms[name] = o.term
		return sayTerm(o.term), nil
	}
	if o.held == nil {
		return nil, o.err
	}
	return a.keep(name, o.held, o.err)
}

// drop lets go of something as a program does that forgets it: the garbage collector finds it.
func (a *agent) drop(w words) error {
	name := w.values["hold"]
	if call := a.works[name]; call != nil {
		ctx, cancel := bounded()
		defer cancel()
		return a.endRun(ctx, name, call, returned{panics: true})
	}
	_, closable := a.closers[name]
	has := a.holds[name] != nil || a.terms[name] != nil || a.providers[name] != nil || a.watches[name] != nil || closable
	if !has && w.values["if_held"] != "true" {
		return fmt.Errorf("there is no hold '%s'", name)
	}
	delete(a.holds, name)
	delete(a.terms, name)
	delete(a.providers, name)
	delete(a.observers, name)
	delete(a.watches, name)
	delete(a.copies, name)
	delete(a.feeds, name)
	delete(a.closers, name)
	runtime.GC()
	return nil
}

func withHold(w words, held *coord.Held) (*answer, error) {
	ctx, cancel := bounded()
	defer cancel()
	switch w.verb {
	case "held":
		return sayGranted(held).with("remaining_ms", held.Remaining().Milliseconds()), nil
	case "check":
		return nil, held.Check()
	case "ensure":
		ms, err := strconv.Atoi(w.values["ms"])
		if err != nil {
			return nil, err
		}
		return nil, held.Ensure(ctx, time.Duration(ms)*time.Millisecond)
	case "lost":
		return sayLoss(ctx, held)
	case "release":
		return nil, held.Release(ctx)
	}
	return nil, fmt.Errorf("there is no command '%s'", w.verb)
}

func sayLoss(ctx context.Context, held *coord.Held) (*answer, error) {
	lost := held.Context()
	select {
	case <-lost.Done():
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	e, ok := asError(context.Cause(lost))
	if !ok || e.Code != coord.ErrLost {
		return nil, fmt.Errorf("the cause is no loss: %w", context.Cause(lost))
	}
	return say("ok").with("reason", e.Loss), nil
}

func saySession(client *coord.Client) (*answer, error) {
	session, err := client.Session()
	if err != nil {
		return nil, err
	}
	a := say("ok").with("session", session.ID).with("state", session.State)
	return a.with("remaining_ms", session.Remaining.Milliseconds()), nil
}

func sayInfo(ctx context.Context, client *coord.Client, name string) (*answer, error) {
	info, err := client.LockInfo(ctx, name)
	if errors.Is(err, coord.ErrNotFound) {
		return say("ok").with("exists", false), nil
	}
	if err != nil {
		return nil, err
	}
	waiters := make([]string, len(info.Waiters))
	for i, waiter := range info.Waiters {
		waiters[i] = waiter.Name
	}
	a := say("ok").with("exists", true).with("lock", info.Name).with("token", info.Token)
	a.with("breaking", info.Breaking).with("held", info.Holder != nil)
	a.with("waiting", len(waiters)).with("waiters", strings.Join(waiters, ","))
	return a.withHolder(info.Holder), nil
}
