// Package control is the way from package coordtest into package coord.
package control

import (
	"context"
	"time"
)

// Control is power over a store in memory and its clients.
type Control interface {
	ForceLeader(ctx context.Context, election, session string) (int64, error)
	ExpireSession(ctx context.Context, session string) error
	Advance(ctx context.Context, d time.Duration) error
	Jump(d time.Duration) error
	Date() (time.Time, error)
}

// Of makes the control of a *coord.Client's store. Package coord sets it.
var Of func(client any) (Control, error)
