package coord

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"time"

	"coord/internal/ccoord"
)

// Owner is a session that is alive, or was.
type Owner struct {
	// Session is its id, new at every start of a client and after every loss.
	Session string
	// Name is the name that its client was given; empty if none was.
	Name string
	// Host and PID are where it runs, as it says itself.
	Host string
	PID  int
	// Labels are those that its client was given.
	Labels map[string]string
	// Since is when it was opened, by the store's clock: for people, never for decisions.
	Since time.Time
	// LastRenewal is when it was renewed last, as far as this client has read, likewise.
	LastRenewal time.Time
	// State is what this client has observed of it.
	State HolderState
	// Holds are the full keys of what it holds, in order: "lock/default/default/a". In the events of a watch, what it
	// held when the watch read it: nothing for one that has just joined.
	Holds []string
	// Services are the full names of what it provides, in order, once each.
	Services []string
}

// OwnerChange is what has happened to an owner.
type OwnerChange int32

const (
	// OwnerSnapshotStart: what follows, up to OwnerSnapshotEnd, leads from what was known to what is true now.
	OwnerSnapshotStart OwnerChange = ccoord.OwnerSnapshotStart
	// OwnerSnapshotEnd: the view is complete and up to date.
	OwnerSnapshotEnd OwnerChange = ccoord.OwnerSnapshotEnd
	// OwnerJoined: a session is there.
	OwnerJoined OwnerChange = ccoord.OwnerJoined
	// OwnerLeft: a session was closed by its owner.
	OwnerLeft OwnerChange = ccoord.OwnerLeft
	// OwnerExpired: a session was declared dead by another.
	OwnerExpired OwnerChange = ccoord.OwnerExpired
)

// String returns "snapshot_start", "snapshot_end", "joined", "left" or "expired".
func (c OwnerChange) String() string {
	switch c {
	case OwnerSnapshotStart:
		return "snapshot_start"
	case OwnerSnapshotEnd:
		return "snapshot_end"
	case OwnerJoined:
		return "joined"
	case OwnerLeft:
		return "left"
	case OwnerExpired:
		return "expired"
	}
	return fmt.Sprintf("OwnerChange(%d)", int32(c))
}

// OwnerEvent is what a watch of owners tells.
type OwnerEvent struct {
	Change OwnerChange
	// Owner is nil for the ends of a bracket.
	Owner *Owner
}

// Owners lists the sessions that are alive, in the order of their ids, with what they hold and provide. Two reads.
func (c *Client) Owners(ctx context.Context) ([]Owner, error) {
	defer runtime.KeepAlive(c)
	core := c.inner()
	list, err := next(ctx, core, "list owners", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return core.client.Owners(timeLimit(ctx), to)
	}, ccoord.Event.TakeOwners)
	if err != nil {
		return nil, err
	}
	owners := make([]Owner, len(list))
	for i := range list {
		owners[i] = *newOwner(&list[i])
	}
	return owners, nil
}

// OwnerWatch is the sessions of a store as they come and go. It is ended by Close, or when it is forgotten.
type OwnerWatch struct {
	client  *Client
	watch   ccoord.OwnerWatch
	cleanup runtime.Cleanup
}

// WatchOwners watches sessions come and go.
//
// The first events are a bracket: OwnerSnapshotStart, an OwnerJoined for each session that is there, OwnerSnapshotEnd.
// After an interruption there is another one, with the difference between what was known and what is true now.
func (c *Client) WatchOwners(ctx context.Context) (*OwnerWatch, error) {
	defer runtime.KeepAlive(c)
	core := c.inner()
	watch, err := next(ctx, core, "watch owners", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return core.client.WatchOwners(timeLimit(ctx), to)
	}, ccoord.Event.TakeOwnerWatch)
	if err != nil {
		return nil, err
	}
	w := &OwnerWatch{client: c, watch: watch}
	w.cleanup = runtime.AddCleanup(w, ccoord.OwnerWatch.Destroy, watch)
	return w, nil
}

// Next waits for the next event. When ctx ends first, none is lost. It fails with ErrClosed when the watch or the
// client is closed.
func (w *OwnerWatch) Next(ctx context.Context) (OwnerEvent, error) {
	defer runtime.KeepAlive(w)
	told, err := next(ctx, w.client.inner(), "watch owners", w.watch.Next, ccoord.Event.TakeOwnerEvent)
	if err != nil {
		return OwnerEvent{}, err
	}
	return OwnerEvent{OwnerChange(told.Type), newOwner(told.Owner)}, nil
}

// Events returns the events for as long as it is ranged over. It ends when the watch or the client is closed, and with
// an error when ctx ends.
func (w *OwnerWatch) Events(ctx context.Context) iter.Seq2[OwnerEvent, error] {
	return feed(ctx, w.Next)
}

// Close ends the watch. Closing again is no error.
func (w *OwnerWatch) Close() {
	w.cleanup.Stop()
	w.watch.Destroy()
	runtime.KeepAlive(w)
}

func newOwner(o *ccoord.Owner) *Owner {
	if o == nil {
		return nil
	}
	return &Owner{
		Session:     o.Session,
		Name:        o.Name,
		Host:        o.Host,
		PID:         int(o.PID),
		Labels:      o.Labels,
		Since:       time.UnixMilli(o.SinceMillis),
		LastRenewal: time.UnixMilli(o.LastRenewalMillis),
		State:       HolderState(o.State),
		Holds:       o.Holds,
		Services:    o.Services,
	}
}
