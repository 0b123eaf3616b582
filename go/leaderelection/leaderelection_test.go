package leaderelection_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"coord"
	"coord/coordtest"
	"coord/leaderelection"
)

const bound = 30 * time.Second

// member is a process with a client of its own.
type member struct {
	client  *coord.Client
	session string
	config  leaderelection.LeaderElectionConfig
	started chan context.Context
	leave   chan struct{}
	stopped chan struct{}
	seen    chan string
}

func join(t *testing.T, identity string) *member {
	t.Helper()
	client, err := coord.Connect(context.Background(), "memory:"+t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	election, err := client.Election("e")
	if err != nil {
		t.Fatal(err)
	}
	session, err := client.Session()
	if err != nil {
		t.Fatal(err)
	}
	m := &member{client: client, session: session.ID, started: make(chan context.Context, 1), leave: make(chan struct{}),
		stopped: make(chan struct{}, 1), seen: make(chan string, 16)}
	m.config = leaderelection.LeaderElectionConfig{
		Election: election,
		Identity: identity,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				m.started <- ctx
				<-ctx.Done()
				<-m.leave
			},
			OnStoppedLeading: func() { m.stopped <- struct{}{} },
			OnNewLeader:      func(identity string) { m.seen <- identity },
		},
	}
	return m
}

func comes[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(bound):
		t.Fatalf("%s has not come", what)
		panic("not reached")
	}
}

func (m *member) run(t *testing.T, ctx context.Context) (*leaderelection.LeaderElector, <-chan error) {
	t.Helper()
	elector, err := leaderelection.NewLeaderElector(m.config)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- elector.RunUntilLost(ctx) }()
	return elector, ended
}

func TestLeadershipGoesRound(t *testing.T) {
	alice, bob := join(t, "alice"), join(t, "bob")
	ctx, cancel := context.WithCancel(context.Background())
	hers, ended := alice.run(t, ctx)
	leading := comes(t, "her start", alice.started)
	if got := comes(t, "the leader's name", alice.seen); got != "alice" || !hers.IsLeader() || hers.GetLeader() != "alice" {
		t.Errorf("%q leads, IsLeader %v, GetLeader %q", got, hers.IsLeader(), hers.GetLeader())
	}
	his, hisEnd := bob.run(t, context.Background())
	if got := comes(t, "the leader's name", bob.seen); got != "alice" {
		t.Error(got)
	}
	// She ends by herself, and nobody else leads before her function has returned.
	cancel()
	comes(t, "the end of her context", leading.Done())
	if his.IsLeader() {
		t.Error("two lead")
	}
	select {
	case <-alice.stopped:
		t.Error("stopped before the function has returned")
	default:
	}
	close(alice.leave)
	comes(t, "her stop", alice.stopped)
	if err := comes(t, "her end", ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	leading = comes(t, "his start", bob.started)
	if got := comes(t, "the leader's name", bob.seen); got != "bob" || hers.IsLeader() {
		t.Error(got)
	}

	// His term is lost: he is told at once, while his function still runs.
	control, err := coordtest.Of(alice.client)
	if err != nil {
		t.Fatal(err)
	}
	if err := control.ExpireSession(context.Background(), bob.session); err != nil {
		t.Fatal(err)
	}
	comes(t, "his stop", bob.stopped)
	comes(t, "the end of his context", leading.Done())
	if !errors.Is(context.Cause(leading), coord.ErrLost) || his.IsLeader() {
		t.Error(context.Cause(leading))
	}
	close(bob.leave)
	if err := comes(t, "his end", hisEnd); !errors.Is(err, coord.ErrLost) {
		t.Error(err)
	}
}

func TestOneWhoNeverLedIsStopped(t *testing.T) {
	m := join(t, "m")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	leaderelection.RunOrDie(ended, m.config)
	comes(t, "the stop", m.stopped)
}

func TestWrongConfigurations(t *testing.T) {
	for _, spoil := range []func(*leaderelection.LeaderElectionConfig){
		func(c *leaderelection.LeaderElectionConfig) { c.Election = nil },
		func(c *leaderelection.LeaderElectionConfig) { c.Identity = "" },
		func(c *leaderelection.LeaderElectionConfig) { c.Callbacks.OnStartedLeading = nil },
		func(c *leaderelection.LeaderElectionConfig) { c.Callbacks.OnStoppedLeading = nil },
	} {
		config := join(t, "m").config
		spoil(&config)
		if _, err := leaderelection.NewLeaderElector(config); err == nil {
			t.Errorf("%+v was accepted", config)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("RunOrDie did not panic")
				}
			}()
			leaderelection.RunOrDie(context.Background(), config)
		}()
	}
}
