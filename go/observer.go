package coord

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"time"

	"coord/internal/ccoord"
)

// Observer is the providers of some services, as the store has them. It is ended by Close, or when it is forgotten. Its
// methods may be called from any goroutine.
type Observer struct {
	client   *Client
	observer ccoord.Observer
	pattern  string
	cleanup  runtime.Cleanup
}

// ObserveOption changes how services are observed.
type ObserveOption func(*[]ccoord.Setting)

// DownGrace is how long a LastDown is held back. It is dropped, with the FirstUp that would follow it, when a provider
// is back in time. The default is 0. It counts in whole milliseconds, rounded up.
func DownGrace(d time.Duration) ObserveOption {
	return func(set *[]ccoord.Setting) {
		*set = append(*set, ccoord.Setting{Name: "down_grace_ms", Number: roundedUp(d)})
	}
}

// ProviderInfo is a provider as an observer sees it.
type ProviderInfo struct {
	// Service is the service's full name.
	Service string
	// InstanceID tells it apart from others of the service in the same session.
	InstanceID string
	// Session is the id of its session, new at every start of a client.
	Session string
	// Name is the name that its client was given; empty if none was.
	Name string
	// Host and PID are where it runs, as it says itself.
	Host string
	PID  int
	// Labels are those that its client was given.
	Labels map[string]string
	// Metadata is what it says of itself.
	Metadata string
}

// ObserverChange is what has happened to a service.
type ObserverChange int32

const (
	// SnapshotStart: what follows, up to SnapshotEnd, leads from what was known to what is true now.
	SnapshotStart ObserverChange = ccoord.ObservedSnapshotStart
	// SnapshotEnd: the view is complete and up to date.
	SnapshotEnd ObserverChange = ccoord.ObservedSnapshotEnd
	// FirstUp: a service has a provider that had none. Comes before that one's Joined.
	FirstUp ObserverChange = ccoord.ObservedFirstUp
	// LastDown: a service has no provider any more. Comes after the last Left, or DownGrace later.
	LastDown ObserverChange = ccoord.ObservedLastDown
	// Joined: a provider has come.
	Joined ObserverChange = ccoord.ObservedJoined
	// Left: a provider has gone: withdrawn, or its session has ended.
	Left ObserverChange = ccoord.ObservedLeft
	// Changed: a provider has other metadata.
	Changed ObserverChange = ccoord.ObservedChanged
)

// String returns "snapshot_start", "snapshot_end", "first_up", "last_down", "joined", "left" or "changed".
func (c ObserverChange) String() string {
	switch c {
	case SnapshotStart:
		return "snapshot_start"
	case SnapshotEnd:
		return "snapshot_end"
	case FirstUp:
		return "first_up"
	case LastDown:
		return "last_down"
	case Joined:
		return "joined"
	case Left:
		return "left"
	case Changed:
		return "changed"
	}
	return fmt.Sprintf("ObserverChange(%d)", int32(c))
}

// ObserverEvent is what an observer is told.
type ObserverEvent struct {
	Change ObserverChange
	// Service is the service's full name; empty for the ends of a bracket.
	Service string
	// Provider is nil for the ends of a bracket and for LastDown.
	Provider *ProviderInfo
}

// Observe observes a service, or all services of a scope: "name", "scope/name", "namespace/scope/name"; "*", "scope/*",
// "namespace/scope/*". It returns when the first view is complete. However many observers a client has, they share one
// stream of changes from the store.
func (c *Client) Observe(ctx context.Context, pattern string, options ...ObserveOption) (*Observer, error) {
	defer runtime.KeepAlive(c)
	var set []ccoord.Setting
	for _, option := range options {
		if option != nil {
			option(&set)
		}
	}
	core := c.inner()
	observer, err := next(ctx, core, "observe services", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return core.client.Observe(pattern, set, timeLimit(ctx), to)
	}, ccoord.Event.TakeObserver)
	if err != nil {
		return nil, err
	}
	o := &Observer{client: c, observer: observer, pattern: observer.Pattern()}
	o.cleanup = runtime.AddCleanup(o, ccoord.Observer.Destroy, observer)
	return o, nil
}

// Pattern is what is observed, in full: "namespace/scope/name" or "namespace/scope/*".
func (o *Observer) Pattern() string { return o.pattern }

// IsAvailable is whether the service has a provider now, by the latest view; DownGrace is not waited for. It does not
// wait. An empty name is the one service that is observed. It fails with ErrInvalidArgument for a service that is not
// observed.
func (o *Observer) IsAvailable(service string) (bool, error) {
	defer runtime.KeepAlive(o)
	available, failed := o.observer.IsAvailable(service)
	return available, o.failed(failed)
}

// Services are the full names of the services that have a provider now, in order. It does not wait.
func (o *Observer) Services() ([]string, error) {
	defer runtime.KeepAlive(o)
	services, failed := o.observer.Services()
	return services, o.failed(failed)
}

// Providers are the providers of a service now, in the order of their sessions and instances. It does not wait. An
// empty name is the one service that is observed.
func (o *Observer) Providers(service string) ([]ProviderInfo, error) {
	defer runtime.KeepAlive(o)
	list, failed := o.observer.Providers(service)
	if failed != nil {
		return nil, o.failed(failed)
	}
	providers := make([]ProviderInfo, len(list))
	for i := range list {
		providers[i] = *newProviderInfo(&list[i])
	}
	return providers, nil
}

// Synced is whether the view follows the store at this moment; it does not during an interruption, when the view shows
// what was true before it. It does not wait.
func (o *Observer) Synced() bool {
	defer runtime.KeepAlive(o)
	return o.observer.IsSynced()
}

// WaitAvailable waits until the service has a provider. An empty name is the one service that is observed.
func (o *Observer) WaitAvailable(ctx context.Context, service string) error {
	defer runtime.KeepAlive(o)
	return o.client.inner().pump.finish(ctx, o.op("wait for"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return o.observer.WaitAvailable(service, timeLimit(ctx), to)
	})
}

// WaitUnavailable waits until the service has no provider. An empty name is the one service that is observed.
func (o *Observer) WaitUnavailable(ctx context.Context, service string) error {
	defer runtime.KeepAlive(o)
	return o.client.inner().pump.finish(ctx, o.op("wait for the end of"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return o.observer.WaitUnavailable(service, timeLimit(ctx), to)
	})
}

// Next waits for the next event. When ctx ends first, none is lost. It fails with ErrClosed when the observer or the
// client is closed.
//
// The first events are a bracket: SnapshotStart, a FirstUp and a Joined for what is there, SnapshotEnd. After an
// interruption there is another one, with the difference between what was known and what is true now. One who is slow
// is told less: of each service what is true now, and where thousands of events wait, a bracket in the place of all; but
// never two FirstUp or two LastDown of one service in a row.
func (o *Observer) Next(ctx context.Context) (ObserverEvent, error) {
	defer runtime.KeepAlive(o)
	told, err := next(ctx, o.client.inner(), o.op("observe"), o.observer.Next, ccoord.Event.TakeObserverEvent)
	if err != nil {
		return ObserverEvent{}, err
	}
	return ObserverEvent{ObserverChange(told.Type), told.Service, newProviderInfo(told.Provider)}, nil
}

// Events returns the events for as long as it is ranged over. It ends when the observer or the client is closed, and
// with an error when ctx ends.
func (o *Observer) Events(ctx context.Context) iter.Seq2[ObserverEvent, error] {
	return feed(ctx, o.Next)
}

// Close ends the observer, and every wait on it with ErrClosed. Closing again is no error.
func (o *Observer) Close() {
	o.cleanup.Stop()
	o.observer.Destroy()
	runtime.KeepAlive(o)
}

func (o *Observer) op(verb string) string { return verb + " '" + o.pattern + "'" }

// failed gives no error for none, which a nil *Error in an error would be.
func (o *Observer) failed(failed *ccoord.Error) error {
	if failed == nil {
		return nil
	}
	return newError(o.op("observe"), failed)
}

func newProviderInfo(p *ccoord.ProviderInfo) *ProviderInfo {
	if p == nil {
		return nil
	}
	return &ProviderInfo{
		Service:    p.Service,
		InstanceID: p.InstanceID,
		Session:    p.Session,
		Name:       p.Name,
		Host:       p.Host,
		PID:        int(p.PID),
		Labels:     p.Labels,
		Metadata:   p.Metadata,
	}
}

// roundedUp is a time in whole milliseconds.
func roundedUp(d time.Duration) int64 { return units(d, time.Millisecond) }

// units is a time in whole units, rounded up: a promise may be longer than asked for, never shorter. What is negative
// stays so, for the library to refuse.
func units(d, unit time.Duration) int64 {
	if d < 0 {
		return min(int64(d/unit), -1)
	}
	count := int64(d / unit)
	if d%unit != 0 {
		count++
	}
	return count
}
