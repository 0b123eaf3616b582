package coord

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func provide(t *testing.T, client *Client, service, metadata string, options ...ProvideOption) *Provider {
	t.Helper()
	p, err := client.Provide(limited(t), service, metadata, options...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func observe(t *testing.T, client *Client, pattern string, options ...ObserveOption) *Observer {
	t.Helper()
	o, err := client.Observe(limited(t), pattern, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o
}

// sees waits for exactly these changes.
func sees(t *testing.T, o *Observer, changes ...ObserverChange) ObserverEvent {
	t.Helper()
	var last ObserverEvent
	for _, change := range changes {
		event, err := o.Next(limited(t))
		if err != nil || event.Change != change {
			t.Fatalf("want %v, got %+v, %v", change, event, err)
		}
		last = event
	}
	return last
}

func TestProvidersAreObserved(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		alice, bob := connect(t, url, WithName("alice"), WithLabel("k", "v")), connect(t, url, WithName("bob"))
		view := observe(t, bob, "s")
		if view.Pattern() != "default/default/s" || !view.Synced() {
			t.Errorf("%s, %v", view.Pattern(), view.Synced())
		}
		sees(t, view, SnapshotStart, SnapshotEnd)
		one := provide(t, alice, "s", "host:1", InstanceID("i1"), nil)
		if one.Service() != "default/default/s" || one.InstanceID() != "i1" || one.Metadata() != "host:1" || !one.IsRegistered() {
			t.Errorf("%+v", one)
		}
		if event, err := one.Next(limited(t)); err != nil || event.Change != ProviderRegistered {
			t.Errorf("%+v, %v", event, err)
		}
		if p := sees(t, view, FirstUp, Joined).Provider; p.InstanceID != "i1" || p.Name != "alice" || p.Metadata != "host:1" ||
			p.PID == 0 || p.Host == "" || len(p.Session) != 32 || p.Labels["k"] != "v" || p.Service != view.Pattern() {
			t.Errorf("%+v", p)
		}
		if err := view.WaitAvailable(limited(t), "s"); err != nil {
			t.Error(err)
		}
		_, err := alice.Provide(limited(t), "s", "", InstanceID("i1"))
		wants(t, err, ErrAlreadyExists)
		two := provide(t, bob, "s", "")
		sees(t, view, Joined)
		providers, err := view.Providers("")
		if err != nil || len(providers) != 2 {
			t.Errorf("%+v, %v", providers, err)
		}
		if services, err := view.Services(); err != nil || !slices.Equal(services, []string{"default/default/s"}) {
			t.Errorf("%v, %v", services, err)
		}
		if err := one.Update(limited(t), "host:2"); err != nil {
			t.Error(err)
		}
		if p := sees(t, view, Changed).Provider; p.Metadata != "host:2" {
			t.Errorf("%+v", p)
		}
		for _, p := range []*Provider{one, two} {
			if err := errors.Join(p.Close(limited(t)), p.Close(limited(t))); err != nil {
				t.Error(err)
			}
			wants(t, p.Update(limited(t), "late"), ErrClosed)
		}
		sees(t, view, Left, Left, LastDown)
		if available, err := view.IsAvailable("s"); available || err != nil {
			t.Error(available, err)
		}
		if err := view.WaitUnavailable(limited(t), "default/s"); err != nil {
			t.Error(err)
		}
		left := provide(t, alice, "s", "")
		sees(t, view, FirstUp, Joined)
		if err := alice.Close(limited(t)); err != nil {
			t.Fatal(err)
		}
		sees(t, view, Left, LastDown)
		if left.IsRegistered() || left.Close(limited(t)) != nil {
			t.Error("the provider of a closed client")
		}
		view.Close()
		_, err = view.Next(limited(t))
		wants(t, err, ErrClosed)
	})
}

func TestAnObserverTellsEverythingInARange(t *testing.T) {
	client := connect(t, memory(t))
	view := observe(t, client, "pool/*", DownGrace(time.Hour))
	var changes []ObserverChange
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for event, err := range view.Events(ctx) {
		if err != nil {
			wants(t, err, ErrCancelled)
			break
		}
		changes = append(changes, event.Change)
		switch event.Change {
		case SnapshotEnd:
			defer func() { _ = provide(t, client, "other/s", "").Close(limited(t)) }()
			provide(t, client, "pool/s", "").client.Stats()
		case Joined:
			cancel()
		}
	}
	if want := []ObserverChange{SnapshotStart, SnapshotEnd, FirstUp, Joined}; !slices.Equal(changes, want) {
		t.Errorf("%v", changes)
	}
	_, err := view.IsAvailable("other/s")
	wants(t, err, ErrInvalidArgument)
	soon, done := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer done()
	wants(t, view.WaitAvailable(soon, "pool/none"), ErrTimeout)
	for range view.Events(soon) {
	}
}

func TestOwnersAreListedAndWatched(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		alice := connect(t, url, WithName("alice"))
		watch, err := alice.WatchOwners(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Close()
		told := make(chan string, 16)
		go func() {
			for event, err := range watch.Events(limited(t)) {
				if err != nil {
					break
				}
				line := event.Change.String()
				if event.Owner != nil {
					line += " " + event.Owner.Name
				}
				told <- line
			}
			close(told)
		}()
		tells := func(want string) {
			t.Helper()
			if got := comes(t, "an event", told); got != want {
				t.Fatalf("want %q, got %q", want, got)
			}
		}
		tells("snapshot_start")
		tells("joined alice")
		tells("snapshot_end")
		bob := connect(t, url, WithName("bob"), WithLabel("role", "web"))
		tells("joined bob")
		held := acquire(t, lock(t, bob, "a"))
		term := campaign(t, election(t, bob, "e"), "")
		provider := provide(t, bob, "s", "")
		session, err := bob.Session()
		if err != nil {
			t.Fatal(err)
		}
		owners, err := alice.Owners(limited(t))
		if err != nil || len(owners) != 2 {
			t.Fatalf("%+v, %v", owners, err)
		}
		at := slices.IndexFunc(owners, func(o Owner) bool { return o.Session == session.ID })
		if at < 0 {
			t.Fatalf("%+v", owners)
		}
		o := owners[at]
		if o.Name != "bob" || o.Labels["role"] != "web" || o.PID == 0 || o.Host == "" || o.Since.IsZero() ||
			!slices.Equal(o.Holds, []string{"election/default/default/e", "lock/default/default/a"}) ||
			!slices.Equal(o.Services, []string{"default/default/s"}) {
			t.Errorf("%+v", o)
		}
		release(t, held)
		resign(t, term)
		if err := errors.Join(provider.Close(limited(t)), bob.Close(limited(t))); err != nil {
			t.Error(err)
		}
		tells("left bob")
		watch.Close()
		if line, more := <-told; more {
			t.Error(line)
		}
	})
}

func TestAProviderIsWithdrawnThoughTheContextHasEnded(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client := connect(t, url)
		p := provide(t, client, "s", "")
		view := observe(t, client, "s")
		if err := view.WaitAvailable(limited(t), ""); err != nil {
			t.Fatal(err)
		}
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		wants(t, p.Close(ended), ErrCancelled)
		if err := view.WaitUnavailable(limited(t), ""); err != nil {
			t.Error(err)
		}
		if err := p.Close(limited(t)); err != nil {
			t.Error(err)
		}
	})
}

func TestAForgottenProviderIsWithdrawnAndReported(t *testing.T) {
	var report record
	client := connect(t, memory(t), WithLogger(slog.New(slog.NewTextHandler(&report, nil))))
	view := observe(t, client, "s")
	func() { provide(t, client, "s", "") }()
	becomes(t, "the report", func() bool { runtime.GC(); return report.has("a coord provider was garbage-collected") })
	if err := view.WaitUnavailable(limited(t), ""); err != nil {
		t.Error(err)
	}
}

func TestBadInputOfServices(t *testing.T) {
	client := connect(t, memory(t))
	for _, name := range []string{"", "/", "a b", "a/b/c/d", "\xff", strings.Repeat("a", 254)} {
		_, err := client.Provide(limited(t), name, "")
		wants(t, err, ErrInvalidArgument)
		_, err = client.Observe(limited(t), name)
		wants(t, err, ErrInvalidArgument)
	}
	_, err := client.Provide(limited(t), "s", strings.Repeat("m", 4097))
	wants(t, err, ErrInvalidArgument)
	_, err = client.Provide(limited(t), "s", "", InstanceID("\xff"))
	wants(t, err, ErrInvalidArgument)
	_, err = client.Provide(limited(t), "s*", "")
	wants(t, err, ErrInvalidArgument)
	_, err = client.Observe(limited(t), "s", DownGrace(-time.Nanosecond))
	wants(t, err, ErrInvalidArgument)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = client.Provide(ended, "s", "")
	wants(t, err, ErrCancelled)
	_, err = client.Observe(ended, "s")
	wants(t, err, ErrCancelled)
	_, err = client.WatchOwners(ended)
	wants(t, err, ErrCancelled)
	var zero Client
	_, err = zero.Provide(limited(t), "s", "")
	wants(t, err, ErrClosed)
	_, err = zero.Observe(limited(t), "s")
	wants(t, err, ErrClosed)
	_, err = zero.Owners(limited(t))
	wants(t, err, ErrClosed)
}
