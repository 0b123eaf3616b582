// Package leaderelection has the names and the shape of client-go's package k8s.io/client-go/tools/leaderelection, over
// coord's elections, so that a program changes its imports and its lock.
//
// What differs, on purpose: how long a silent leader is waited for is the ttl of the client's session
// (coord.WithTTL), so there are no durations here. A leader that ends by itself gives its term back at once, and
// only after OnStartedLeading has returned, so that no other leads while it still works.
package leaderelection

import (
	"context"
	"errors"
	"sync"

	"coord"
)

// LeaderCallbacks are called as the leadership changes.
type LeaderCallbacks struct {
	// OnStartedLeading is called on a goroutine of its own when this process leads. Its context is cancelled when it does
	// not any more, before anybody else can; then it is to return.
	OnStartedLeading func(ctx context.Context)
	// OnStoppedLeading is called when Run ends, also if this process never led. When the term was lost, it is called at
	// once, while OnStartedLeading may still run; otherwise after OnStartedLeading has returned.
	OnStoppedLeading func()
	// OnNewLeader is called when somebody leads who did not before, with the identity that it has published; also for
	// this process itself. Calls never overlap. It may be nil.
	OnNewLeader func(identity string)
}

// LeaderElectionConfig is how to take part.
type LeaderElectionConfig struct {
	// Election takes the place of client-go's Lock.
	Election *coord.Election
	// Identity is what this process publishes as leader. It should be unique.
	Identity string
	// Callbacks are called as the leadership changes.
	Callbacks LeaderCallbacks
	// Options change how one campaigns.
	Options []coord.CampaignOption
}

// LeaderElector takes part in an election. Its methods may be called from any goroutine.
type LeaderElector struct {
	config LeaderElectionConfig

	mu       sync.Mutex
	term     *coord.Term
	observed string
}

// NewLeaderElector checks the configuration.
func NewLeaderElector(config LeaderElectionConfig) (*LeaderElector, error) {
	switch {
	case config.Election == nil:
		return nil, errors.New("leaderelection: Election must not be nil")
	case config.Identity == "":
		return nil, errors.New("leaderelection: Identity must not be empty")
	case config.Callbacks.OnStartedLeading == nil:
		return nil, errors.New("leaderelection: OnStartedLeading must not be nil")
	case config.Callbacks.OnStoppedLeading == nil:
		return nil, errors.New("leaderelection: OnStoppedLeading must not be nil")
	}
	return &LeaderElector{config: config}, nil
}

// RunOrDie runs an elector until its leadership ends or ctx does. It panics if the configuration is wrong.
func RunOrDie(ctx context.Context, config LeaderElectionConfig) {
	elector, err := NewLeaderElector(config)
	if err != nil {
		panic(err)
	}
	elector.Run(ctx)
}

// Run campaigns, leads for one term, and returns when that is over or ctx ends: never while OnStartedLeading runs. A
// campaign that fails, for a reason that waiting does not cure, ends it like ctx does; RunUntilLost says why.
func (e *LeaderElector) Run(ctx context.Context) { _ = e.RunUntilLost(ctx) }

// RunUntilLost is Run, and returns why it ended: the cause of ctx, coord.ErrLost, or the error of the campaign.
func (e *LeaderElector) RunUntilLost(ctx context.Context) error {
	stopped := sync.OnceFunc(e.config.Callbacks.OnStoppedLeading)
	defer stopped()
	observing, stop := context.WithCancel(ctx)
	var observer sync.WaitGroup
	observer.Add(1)
	go func() {
		defer observer.Done()
		e.observe(observing)
	}()
	defer observer.Wait()
	defer stop()
	term, err := e.config.Election.Campaign(ctx, e.config.Identity, e.config.Options...)
	if err != nil {
		return err
	}
	return e.lead(ctx, term, stopped)
}

func (e *LeaderElector) lead(ctx context.Context, term *coord.Term, stopped func()) error {
	e.setTerm(term)
	defer e.setTerm(nil)
	leading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	returned := make(chan struct{})
	over := term.Context()
	go func() {
		defer close(returned)
		e.config.Callbacks.OnStartedLeading(leading)
	}()
	select {
	case <-over.Done():
		cancel(context.Cause(over))
		stopped()
		<-returned
		return context.Cause(over)
	case <-ctx.Done():
		<-returned
		// The term is given back whatever becomes of ctx; what the store cannot be told now, goes on in the background.
		if err := term.Resign(context.WithoutCancel(ctx)); err != nil && !errors.Is(err, coord.ErrNotHeld) {
			return err
		}
		return context.Cause(ctx)
	}
}

// observe tells of new leaders, until ctx ends.
func (e *LeaderElector) observe(ctx context.Context) {
	watch, err := e.config.Election.Observe(ctx)
	if err != nil {
		return
	}
	defer watch.Close()
	var last int64
	for event, err := range watch.Events(ctx) {
		if err != nil {
			return
		}
		if event.Leader == nil {
			e.setObserved("")
			continue
		}
		if !event.Leader.HasValue {
			continue
		}
		e.setObserved(event.Leader.Value)
		if event.Leader.Token != last && e.config.Callbacks.OnNewLeader != nil {
			e.config.Callbacks.OnNewLeader(event.Leader.Value)
		}
		last = event.Leader.Token
	}
}

// IsLeader is whether this process leads now. It reads a clock and nothing else.
func (e *LeaderElector) IsLeader() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.term != nil && e.term.Check() == nil
}

// GetLeader is the identity of the leader that was seen last while Run runs; empty when nobody leads.
func (e *LeaderElector) GetLeader() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.observed
}

func (e *LeaderElector) setTerm(term *coord.Term) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.term = term
}

func (e *LeaderElector) setObserved(identity string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.observed = identity
}
