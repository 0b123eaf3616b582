package coord

import (
	"context"
	"runtime"
	"time"

	"coord/internal/ccoord"
	"coord/internal/control"
)

// storeControl is what package coordtest makes public.
type storeControl struct {
	client  *Client
	control ccoord.Control
}

func init() {
	control.Of = func(client any) (control.Control, error) {
		c := client.(*Client)
		defer runtime.KeepAlive(c)
		handle, failed := c.inner().client.Control()
		if failed != nil {
			return nil, c.inner().newError("take control of a store", failed)
		}
		made := &storeControl{c, handle}
		runtime.AddCleanup(made, ccoord.Control.Destroy, handle)
		return made, nil
	}
}

func (s *storeControl) ForceLeader(ctx context.Context, election, session string) (int64, error) {
	defer runtime.KeepAlive(s)
	return next(ctx, s.client.inner(), "force a leader", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return s.control.ForceLeader(election, session, timeLimit(ctx), to)
	}, ccoord.Event.TakeToken)
}

func (s *storeControl) ExpireSession(ctx context.Context, session string) error {
	defer runtime.KeepAlive(s)
	return s.client.inner().pump.finish(ctx, "expire a session", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return s.control.ExpireSession(session, timeLimit(ctx), to)
	})
}

func (s *storeControl) Advance(ctx context.Context, d time.Duration) error {
	defer runtime.KeepAlive(s)
	return s.client.inner().pump.finish(ctx, "advance the clock", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return s.control.Advance(roundedUp(d), timeLimit(ctx), to)
	})
}

func (s *storeControl) Jump(d time.Duration) error {
	defer runtime.KeepAlive(s)
	if failed := s.control.Jump(roundedUp(d)); failed != nil {
		return newError("move the clock", failed)
	}
	return nil
}

func (s *storeControl) Date() (time.Time, error) {
	defer runtime.KeepAlive(s)
	ms, failed := s.control.DateMillis()
	if failed != nil {
		return time.Time{}, newError("read the clock", failed)
	}
	return time.UnixMilli(ms), nil
}
