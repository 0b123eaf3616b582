package coord

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"time"

	"coord/internal/ccoord"
)

// Session is what a client's session was like at one moment.
type Session struct {
	// State is whether holds are valid.
	State SessionState
	// Loss is why it was lost; LossNone unless it was.
	Loss Loss
	// ID is 32 hexadecimal digits, new at every start and after every loss.
	ID string
	// Name is the client's name, from WithName.
	Name string
	// Host is the host's name.
	Host string
	// Remaining is how long holds stayed valid without another renewal; 0 unless live.
	Remaining time.Duration
	// TTL is how long others wait before they may declare the session dead.
	TTL time.Duration
}

// SessionState is whether the holds of a session are valid.
type SessionState int32

const (
	// SessionOpening: the store has not acknowledged the session yet; nothing can be held.
	SessionOpening SessionState = ccoord.SessionOpening
	// SessionLive: holds are valid.
	SessionLive SessionState = ccoord.SessionLive
	// SessionSuspended: the session could not be renewed in time. Every hold is lost, places in queues are kept, and
	// it may come back.
	SessionSuspended SessionState = ccoord.SessionSuspended
	// SessionLost: the session is over. The client opens a new one by itself unless it is closed.
	SessionLost SessionState = ccoord.SessionLost
)

// String returns "opening", "live", "suspended" or "lost".
func (s SessionState) String() string {
	switch s {
	case SessionOpening:
		return "opening"
	case SessionLive:
		return "live"
	case SessionSuspended:
		return "suspended"
	case SessionLost:
		return "lost"
	}
	return fmt.Sprintf("SessionState(%d)", int32(s))
}

// Session returns the session as it is now. It does not wait.
func (c *Client) Session() (Session, error) {
	defer runtime.KeepAlive(c)
	session, failed := c.inner().client.Session()
	if failed != nil {
		return Session{}, c.inner().newError("look at the session", failed)
	}
	defer session.Destroy()
	return newSession(session), nil
}

// SessionChanges returns the session as it is, and then again after each change, for as long as it is ranged over. It
// ends when the client is closed, and with an error when ctx ends. States that pass while the loop's body runs are
// left out; the latest never is.
func (c *Client) SessionChanges(ctx context.Context) iter.Seq2[Session, error] {
	return func(yield func(Session, error) bool) {
		defer runtime.KeepAlive(c)
		const op = "watch the session"
		core := c.inner()
		seen, failed := core.client.Session()
		if failed != nil {
			if e := core.newError(op, failed); e.Code != ErrClosed {
				yield(Session{}, e)
			}
			return
		}
		defer func() { seen.Destroy() }()
		for yield(newSession(seen), nil) {
			event, err := core.pump.await(ctx, op, false, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
				return core.client.SessionWait(seen, to)
			})
			if err != nil {
				if CodeOf(err) != ErrClosed {
					yield(Session{}, err)
				}
				return
			}
			next, failed := event.TakeSession()
			event.Destroy()
			if failed != nil {
				yield(Session{}, newError(op, failed))
				return
			}
			seen.Destroy()
			seen = next
		}
	}
}

func newSession(session ccoord.Session) Session {
	info := session.Info()
	return Session{
		State:     SessionState(info.State),
		Loss:      Loss(info.Loss),
		ID:        info.ID,
		Name:      info.Name,
		Host:      info.Host,
		Remaining: milliseconds(info.RemainingMillis),
		TTL:       milliseconds(info.TTLMillis),
	}
}

func milliseconds(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }
