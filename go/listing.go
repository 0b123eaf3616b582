package coord

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"coord/internal/ccoord"
)

// LockInfo is who held a lock and who waited for it at one moment.
type LockInfo struct {
	// Name is the full name, "namespace/scope/name".
	Name string
	// Token is that of the latest grant; 0 if there was none.
	Token int64
	// Breaking is whether an operator has asked the holder to go.
	Breaking bool
	// Holder is nil if the lock was free.
	Holder *Holder
	// Waiters are in their order: the first is the next to get the lock.
	Waiters []Holder
}

// Holder is who holds a lock or waits for it.
type Holder struct {
	// Name is the name that its client was given; empty if none was.
	Name string
	// Session is the id of its session.
	Session string
	// Host and PID are where it runs, as it says itself.
	Host string
	PID  int
	// Token is the fencing token; 0 for one who waits.
	Token int64
	// Since is when the lock was granted, by the store's clock: for people, never for decisions. Zero for one who waits.
	Since time.Time
	// State is what this client has observed of it.
	State HolderState
	// Silent is how long this client has seen no renewal of its session.
	Silent time.Duration
	// Self is whether it is the client that asked.
	Self bool
}

// HolderState is what a client has observed of a holder.
type HolderState int32

const (
	// HolderLive: it renewed its session while this client looked.
	HolderLive HolderState = ccoord.HolderLive
	// HolderSilent: no renewal was seen since this client began to look; Holder.Silent says for how long.
	HolderSilent HolderState = ccoord.HolderSilent
	// HolderDead: its session is dead; the next waiter takes over.
	HolderDead HolderState = ccoord.HolderDead
)

// String returns "live", "silent" or "dead".
func (s HolderState) String() string {
	switch s {
	case HolderLive:
		return "live"
	case HolderSilent:
		return "silent"
	case HolderDead:
		return "dead"
	}
	return fmt.Sprintf("HolderState(%d)", int32(s))
}

// Locks lists the locks whose full name begins with prefix; with an empty one, all of the client's namespace.
func (c *Client) Locks(ctx context.Context, prefix string) ([]LockInfo, error) {
	core := c.inner()
	return c.list(ctx, "list locks", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return core.client.Locks(prefix, timeLimit(ctx), to)
	})
}

// LockInfo looks at one lock. It fails with ErrNotFound if the lock was never used. A free lock that was granted more than
// a day ago is forgotten; its tokens go on all the same.
func (c *Client) LockInfo(ctx context.Context, name string) (LockInfo, error) {
	core := c.inner()
	const op = "look at a lock"
	locks, err := c.list(ctx, op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return core.client.LockInfo(name, timeLimit(ctx), to)
	})
	if err != nil {
		return LockInfo{}, err
	}
	if len(locks) == 0 {
		return LockInfo{}, &Error{Code: ErrNotFound, Op: op, Message: fmt.Sprintf("lock '%s' was never used, or not for a day", name)}
	}
	return locks[0], nil
}

// BreakLock ends somebody's hold of a lock, if it is still the one with this token. It is for operators.
//
// First the holder is asked: its client declares the hold lost at once, and gives the lock up when the code under it
// has ended, or after its ttl. Nobody else removes it then, unless its session dies. BreakLock fails with ErrTimeout
// after two ttls if it lives and has not gone; it has been asked, and may still go.
//
// With force it is removed right away. The old holder may believe in its hold until it learns of that: a third of its
// ttl as a rule, all of it when it is cut off. Only its token tells it from the next one.
//
// BreakLock fails with ErrConflict if the token is not that of the present hold; nothing is broken then.
func (c *Client) BreakLock(ctx context.Context, name string, token int64, force bool) error {
	defer runtime.KeepAlive(c)
	core := c.inner()
	return core.pump.finish(ctx, "break a lock", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return core.client.BreakLock(name, token, force, timeLimit(ctx), to)
	})
}

func (c *Client) list(ctx context.Context, op string, begin begin) ([]LockInfo, error) {
	defer runtime.KeepAlive(c)
	event, err := c.inner().pump.await(ctx, op, false, begin)
	if err != nil {
		return nil, err
	}
	defer event.Destroy()
	list, failed := event.TakeLocks()
	if failed != nil {
		return nil, newError(op, failed)
	}
	locks := make([]LockInfo, len(list))
	for i, lock := range list {
		locks[i] = LockInfo{Name: lock.Name, Token: lock.Token, Breaking: lock.Breaking, Holder: newHolder(lock.Holder)}
		for _, waiter := range lock.Waiters {
			locks[i].Waiters = append(locks[i].Waiters, *newHolder(&waiter))
		}
	}
	return locks, nil
}

func newHolder(h *ccoord.Holder) *Holder {
	if h == nil {
		return nil
	}
	holder := &Holder{
		Name:    h.Name,
		Session: h.Session,
		Host:    h.Host,
		PID:     int(h.PID),
		Token:   h.Token,
		State:   HolderState(h.State),
		Silent:  milliseconds(h.SilentMillis),
		Self:    h.IsSelf,
	}
	if h.SinceMillis != 0 {
		holder.Since = time.UnixMilli(h.SinceMillis)
	}
	return holder
}
