// Package coordtest is for tests of programs that use coord, on the memory store: who leads, whose session dies, and
// what time it is.
//
// A test connects to "memory:" for a store of its own, or to "memory:NAME" where several clients of the test share one.
// With the option coord.clock=manual, the store's clock stands still until the test moves it.
package coordtest

import (
	"context"
	"time"

	"coord"
	"coord/internal/control"
)

// Control is power over a store in memory and its clients, which are all in this process.
type Control struct{ inner control.Control }

// Of returns the control of this client's store. It fails with coord.ErrUnsupported unless that is a memory store.
func Of(client *coord.Client) (*Control, error) {
	inner, err := control.Of(client)
	if err != nil {
		return nil, err
	}
	return &Control{inner}, nil
}

// ForceLeader makes a candidate the leader, whatever its priority: the one with this session. Whoever leads before loses
// its term at once, with coord.LossBroken. It returns the token of the new term.
//
// It waits for the candidate to campaign, for 30 s at most, and fails with coord.ErrNotFound if it does not.
func (c *Control) ForceLeader(ctx context.Context, election, session string) (int64, error) {
	return c.inner.ForceLeader(ctx, election, session)
}

// ExpireSession ends a session as if its process had given no sign of life for its whole ttl: everything that it held is
// lost, with coord.LossExpired, and goes to whoever is next; its client opens a new session. It fails with
// coord.ErrNotFound if the store has no such live session.
func (c *Control) ExpireSession(ctx context.Context, session string) error {
	return c.inner.ExpireSession(ctx, session)
}

// Advance lets time pass for every client of the store: what is due on the way is done at its time, and sessions are
// renewed. It returns when the clock shows the new time, and fails with coord.ErrUnsupported unless the store was opened
// with coord.clock=manual. It counts in whole milliseconds, rounded up.
func (c *Control) Advance(ctx context.Context, d time.Duration) error { return c.inner.Advance(ctx, d) }

// Jump moves the clock at once, as if the machine had slept: nothing happened in between, and what is due is late. It
// fails as Advance does.
func (c *Control) Jump(d time.Duration) error { return c.inner.Jump(d) }

// Date is the date that the store's manual clock shows. It fails as Advance does.
func (c *Control) Date() (time.Time, error) { return c.inner.Date() }
