package coord

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync/atomic"

	"coord/internal/ccoord"
)

// Provider is a service that this client provides, until Close. Its methods may be called from any goroutine.
type Provider struct {
	client   *Client
	provider ccoord.Provider
	service  string
	instance string
	cleanup  runtime.Cleanup
	closed   atomic.Bool
}

// ProvideOption changes how a service is provided.
type ProvideOption func(*[]ccoord.Setting)

// InstanceID tells the providers of one service in one session apart. It is random by default.
func InstanceID(id string) ProvideOption {
	return func(set *[]ccoord.Setting) {
		*set = append(*set, ccoord.Setting{Name: "instance_id", Text: id, IsText: true})
	}
}

// Reregister says whether the provider is registered again under the client's next session after one was lost. It is
// by default.
func Reregister(again bool) ProvideOption {
	return func(set *[]ccoord.Setting) {
		*set = append(*set, ccoord.Setting{Name: "reregister", Number: number(again)})
	}
}

// ProviderChange is what has happened to a provider.
type ProviderChange int32

const (
	// ProviderRegistered: observers see it.
	ProviderRegistered ProviderChange = ccoord.ProviderRegistered
	// ProviderLost: its session is lost; observers see, or will see, it leave.
	ProviderLost ProviderChange = ccoord.ProviderLost
	// ProviderReregistered: it is registered again, under a new session.
	ProviderReregistered ProviderChange = ccoord.ProviderReregistered
	// ProviderClosed: it was closed, or its client was; or its session was lost and it was not to be registered again.
	// The last event.
	ProviderClosed ProviderChange = ccoord.ProviderClosed
)

// String returns "registered", "lost", "reregistered" or "closed".
func (c ProviderChange) String() string {
	switch c {
	case ProviderRegistered:
		return "registered"
	case ProviderLost:
		return "lost"
	case ProviderReregistered:
		return "reregistered"
	case ProviderClosed:
		return "closed"
	}
	return fmt.Sprintf("ProviderChange(%d)", int32(c))
}

// ProviderEvent is what has happened to a provider.
type ProviderEvent struct {
	Change ProviderChange
	// Loss is why, for ProviderLost.
	Loss Loss
}

// Provide says that this process provides a service, with metadata for those who look for one: an address, say, of at
// most 4 KiB. It returns when observers can see it. After a lost session it is registered again by itself.
//
// It fails with ErrAlreadyExists if this client provides the service under this instance id already, and with
// ErrQueueFull beyond 1,000 providers or 1 MiB of metadata in one session.
func (c *Client) Provide(ctx context.Context, service, metadata string, options ...ProvideOption) (*Provider, error) {
	defer runtime.KeepAlive(c)
	var set []ccoord.Setting
	for _, option := range options {
		if option != nil {
			option(&set)
		}
	}
	const op = "provide a service"
	core := c.inner()
	event, err := core.pump.await(ctx, op, true, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return core.client.Provide(service, metadata, set, timeLimit(ctx), to)
	})
	if err != nil {
		return nil, err
	}
	defer event.Destroy()
	provider, failed := event.TakeProvider()
	if failed != nil {
		return nil, newError(op, failed)
	}
	p := &Provider{client: c, provider: provider, service: provider.Service(), instance: provider.InstanceID()}
	p.cleanup = runtime.AddCleanup(p, forgottenProvider.withdraw, forgottenProvider{core, provider, p.service, p.instance})
	return p, nil
}

// forgottenProvider is what is left of a Provider that was collected.
type forgottenProvider struct {
	core              *core
	provider          ccoord.Provider
	service, instance string
}

func (f forgottenProvider) withdraw() {
	if !f.core.isClosed() {
		f.core.report("a coord provider was garbage-collected without Close; it is withdrawn now",
			"service", f.service, "instance", f.instance)
	}
	f.provider.Destroy()
}

// Service is the service's full name, "namespace/scope/name".
func (p *Provider) Service() string { return p.service }

// InstanceID tells it apart from other providers of the service in this session.
func (p *Provider) InstanceID() string { return p.instance }

// Metadata is what was given last. It is empty after Close.
func (p *Provider) Metadata() string {
	defer runtime.KeepAlive(p)
	metadata, _ := p.provider.Metadata()
	return metadata
}

// IsRegistered is whether it is registered under a session that is not lost. It does not wait.
func (p *Provider) IsRegistered() bool {
	defer runtime.KeepAlive(p)
	return p.provider.IsRegistered()
}

// Update replaces the metadata. It returns when observers can see it, and fails with ErrClosed after Close.
func (p *Provider) Update(ctx context.Context, metadata string) error {
	defer runtime.KeepAlive(p)
	return p.client.inner().pump.finish(ctx, p.op("update"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return p.provider.Update(metadata, timeLimit(ctx), to)
	})
}

// Next waits for the next event, the first of which is ProviderRegistered. When ctx ends first, none is lost. It fails
// with ErrClosed after the last.
func (p *Provider) Next(ctx context.Context) (ProviderEvent, error) {
	defer runtime.KeepAlive(p)
	told, err := next(ctx, p.client.inner(), p.op("watch"), p.provider.Next, ccoord.Event.TakeProviderEvent)
	return ProviderEvent{ProviderChange(told.Type), Loss(told.Loss)}, err
}

// Events returns the events for as long as it is ranged over. It ends with the provider, and with an error when ctx
// ends.
func (p *Provider) Events(ctx context.Context) iter.Seq2[ProviderEvent, error] {
	return feed(ctx, p.Next)
}

// Close withdraws the provider. It returns when observers can see that. Whatever it returns, the provider is withdrawn:
// when ctx ends first, also before the call, that goes on in the background. Closing again is no error.
func (p *Provider) Close(ctx context.Context) error {
	defer runtime.KeepAlive(p)
	if p.closed.Swap(true) {
		return nil
	}
	p.cleanup.Stop()
	err := p.client.inner().pump.finishAnyway(ctx, p.op("withdraw"), p.provider.Close)
	// The handle goes with p: its last event can still be read.
	p.cleanup = runtime.AddCleanup(p, ccoord.Provider.Destroy, p.provider)
	if CodeOf(err) == ErrClosed {
		return nil // the client's end was the provider's
	}
	return err
}

func (p *Provider) op(verb string) string { return verb + " provider of '" + p.service + "'" }

func number(on bool) int64 {
	if on {
		return 1
	}
	return 0
}
