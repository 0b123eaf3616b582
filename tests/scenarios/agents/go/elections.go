package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"coord"
	"coord/coordtest"
)

// candidacy is a function that is called in every term. Each call waits to be told to end.
type candidacy struct {
	*coord.Candidacy
	entered chan *coord.Term
	finish  chan error
	over    <-chan struct{} // closed at the end of the agent

	mu      sync.Mutex
	calls   int
	running bool
}

// call is the function.
func (c *candidacy) call(_ context.Context, term *coord.Term) error {
	c.change(func() { c.calls++; c.running = true })
	defer c.change(func() { c.running = false })
	c.entered <- term
	select {
	case failure := <-c.finish:
		return failure
	case <-c.over:
		return nil
	}
}

func (c *candidacy) change(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func (a *agent) withElection(ctx context.Context, w words, client *coord.Client) (*answer, error) {
	election, err := client.Election(w.values["election"])
	if err != nil {
		return nil, err
	}
	name := w.values["as"]
	switch w.verb {
	case "campaign":
		term, err := campaign(context.Background(), election, w)
		return a.keepTerm(name, term, err)
	case "try_campaign":
		term, err := election.TryCampaign(context.Background(), w.values["value"])
		return a.keepTerm(name, term, err)
	case "start_campaign":
		a.begin(name, func(ctx context.Context, o *operation) error {
			term, err := campaign(ctx, election, w)
			o.term = term
			return err
		})
		return nil, nil
	case "leading":
		return say("ok").with("leading", election.IsLeader()), nil
	case "leader":
		leader, err := election.Leader(ctx)
		if err != nil || leader == nil {
			return say("ok").with("exists", false), err
		}
		return sayLeader(say("ok").with("exists", true), leader), nil
	case "candidates":
		return sayCandidates(election.Candidates(ctx))
	case "observe":
		watch, err := election.Observe(ctx)
		if err != nil {
			return nil, err
		}
		a.closers[name] = watch.Close
		a.feeds[name] = func(ctx context.Context) (*answer, error) {
			event, err := watch.Next(ctx)
			if err != nil || event.Leader == nil {
				return say("ok").with("event", "no_leader"), err
			}
			return sayLeader(say("ok").with("event", "leader"), event.Leader), nil
		}
		return nil, nil
	case "elect":
		return nil, a.elect(election, w)
	}
	return nil, fmt.Errorf("there is no command '%s'", w.verb)
}

func (a *agent) keepTerm(name string, term *coord.Term, err error) (*answer, error) {
	if err != nil {
		return nil, err
	}
	a.terms[name] = term
	return sayTerm(term), nil
}

func campaign(ctx context.Context, election *coord.Election, w words) (*coord.Term, error) {
	var options []coord.CampaignOption
	if text, ok := w.values["priority"]; ok {
		priority, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		options = append(options, coord.Priority(priority))
	}
	text, limited := w.values["timeout_ms"]
	if limited {
		ms, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		if ms == 0 {
			return election.TryCampaign(ctx, w.values["value"])
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
		defer cancel()
	}
	return election.Campaign(ctx, w.values["value"], options...)
}

func (a *agent) elect(election *coord.Election, w words) error {
	c := &candidacy{entered: make(chan *coord.Term, 1), finish: make(chan error), over: a.over}
	var options []coord.CandidacyOption
	if text, ok := w.values["priority"]; ok {
		priority, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		options = append(options, coord.Priority(priority))
	}
	if text, ok := w.values["backoff_ms"]; ok {
		ms, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		pause := time.Duration(ms) * time.Millisecond
		options = append(options, coord.Backoff(pause, pause))
	}
	options = append(options, coord.KeepOnError(w.values["keep_on_error"] == "true"))
	made, err := election.WhenElected(context.Background(), w.values["value"], c.call, options...)
	if err != nil {
		return err
	}
	c.Candidacy = made
	a.candidacies[w.values["as"]] = c
	return nil
}

// withCall is for the verbs of what was begun.
func (a *agent) withCall(w words, c *candidacy) (*answer, error) {
	ctx, cancel := bounded()
	defer cancel()
	switch w.verb {
	case "entered":
		select {
		case term := <-c.entered:
			return a.keepTerm(w.values["hold"], term, nil)
		case <-ctx.Done():
			return nil, errors.New("the function was not called")
		}
	case "finish":
		var failure error
		if text, ok := w.values["failure"]; ok {
			failure = errors.New(text)
		}
		select {
		case c.finish <- failure:
			return nil, nil
		case <-ctx.Done():
			return nil, errors.New("the function does not run")
		}
	}
	return nil, fmt.Errorf("a candidacy cannot '%s'", w.verb)
}

func (a *agent) withCandidacy(w words) (*answer, error) {
	c := a.candidacies[w.values["hold"]]
	if c == nil {
		return nil, fmt.Errorf("there is no candidacy '%s'", w.values["hold"])
	}
	if w.verb == "calls" {
		c.mu.Lock()
		defer c.mu.Unlock()
		return say("ok").with("calls", c.calls).with("running", c.running), nil
	}
	ctx, cancel := bounded()
	defer cancel()
	return nil, c.Close(ctx)
}

func withTerm(w words, term *coord.Term) (*answer, error) {
	ctx, cancel := bounded()
	defer cancel()
	switch w.verb {
	case "held":
		return sayTerm(term).with("remaining_ms", term.Remaining().Milliseconds()), nil
	case "check":
		return nil, term.Check()
	case "ensure":
		ms, err := strconv.Atoi(w.values["ms"])
		if err != nil {
			return nil, err
		}
		return nil, term.Ensure(ctx, time.Duration(ms)*time.Millisecond)
	case "lost":
		over := term.Context()
		select {
		case <-over.Done():
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		return say("ok").with("reason", term.Loss()), nil
	case "proclaim":
		return nil, term.Proclaim(ctx, w.values["value"])
	case "resign":
		return nil, term.Resign(ctx)
	case "transfer":
		return nil, term.TransferTo(ctx, w.values["to"])
	}
	return nil, fmt.Errorf("a term cannot '%s'", w.verb)
}

// withStore is for a store under control.
func withStore(ctx context.Context, w words, client *coord.Client) error {
	control, err := coordtest.Of(client)
	if err != nil {
		return err
	}
	switch w.verb {
	case "force_leader":
		_, err = control.ForceLeader(ctx, w.values["election"], w.values["session"])
		return err
	case "expire":
		return control.ExpireSession(ctx, w.values["session"])
	default:
		ms, err := strconv.Atoi(w.values["ms"])
		if err != nil {
			return err
		}
		return control.Advance(ctx, time.Duration(ms)*time.Millisecond)
	}
}

func sayTerm(term *coord.Term) *answer {
	return say("ok").with("election", term.Name()).with("token", term.Token()).with("value", term.Value())
}

func sayLeader(a *answer, leader *coord.Leader) *answer {
	a.with("leader.name", leader.Name).with("leader.session", leader.Session).with("leader.pid", leader.PID)
	a.with("leader.token", leader.Token).with("leader.is_self", leader.Self)
	if leader.HasValue {
		a.with("leader.value", leader.Value)
	}
	return a
}

func sayCandidates(candidates []coord.Candidate, err error) (*answer, error) {
	if err != nil {
		return nil, err
	}
	var names, sessions, priorities []string
	for _, candidate := range candidates {
		names = append(names, candidate.Name)
		sessions = append(sessions, candidate.Session)
		priorities = append(priorities, strconv.Itoa(candidate.Priority))
	}
	a := say("ok").with("waiting", len(candidates)).with("candidates", strings.Join(names, ","))
	return a.with("sessions", strings.Join(sessions, ",")).with("priorities", strings.Join(priorities, ",")), nil
}
