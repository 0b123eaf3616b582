package coord

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"coord/internal/ccoord"
)

// bound is how long a test waits for an event before it gives up.
const bound = 30 * time.Second

// onEveryStore runs a test on each store that there is, with a URL of its own.
func onEveryStore(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) { test(t, memory(t)) })
	t.Run("sqlite", func(t *testing.T) { test(t, sqlite(t)) })
	t.Run("mongodb", func(t *testing.T) { test(t, mongodb(t)) })
}

var stores atomic.Int64

func memory(*testing.T) string { return fmt.Sprintf("memory:go-%d", stores.Add(1)) }

func sqlite(t *testing.T) string { return "sqlite:///" + filepath.Join(t.TempDir(), "t.db") }

func mongodb(t *testing.T) string {
	uri := os.Getenv("COORD_TEST_MONGODB_URI")
	if uri == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("in CI nothing may be left out, but COORD_TEST_MONGODB_URI is not set")
		}
		t.Skip("COORD_TEST_MONGODB_URI is not set")
	}
	base, query, _ := strings.Cut(uri, "?")
	scheme, rest, _ := strings.Cut(base, "://")
	hosts, _, _ := strings.Cut(rest, "/")
	url := fmt.Sprintf("%s://%s/go_%d_%d", scheme, hosts, os.Getpid(), stores.Add(1))
	if query != "" {
		url += "?" + query
	}
	return url
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, url string, options ...Option) *Client {
	t.Helper()
	client, err := Connect(limited(t), url, options...)
	if err != nil {
		t.Fatalf("connect to %s: %v", url, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), bound)
		defer cancel()
		if err := client.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return client
}

func lock(t *testing.T, client *Client, name string) *Lock {
	t.Helper()
	l, err := client.Lock(name)
	if err != nil {
		t.Fatalf("lock %q: %v", name, err)
	}
	return l
}

func acquire(t *testing.T, l *Lock) *Held {
	t.Helper()
	held, err := l.Acquire(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func release(t *testing.T, held *Held) {
	t.Helper()
	if err := held.Release(limited(t)); err != nil {
		t.Fatal(err)
	}
}

func wants(t *testing.T, err error, code Code) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, code) {
		t.Fatalf("want %v, got %v", code, err)
	}
	if e.Op == "" || e.Message == "" {
		t.Errorf("an error without operation or message: %#v", e)
	}
	return e
}

// comes waits for an event.
func comes[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(bound):
		t.Fatalf("%s has not come", what)
		panic("unreachable")
	}
}

// becomes looks again until it is so.
func becomes(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(bound); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, bound)
		}
	}
}

func waiting(t *testing.T, client *Client, name string, count int) {
	t.Helper()
	becomes(t, fmt.Sprintf("%d wait for lock %q", count, name), func() bool {
		info, err := client.LockInfo(limited(t), name)
		return err == nil && len(info.Waiters) == count
	})
}

func TestALockIsHeldAndReleased(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client := connect(t, url, WithName("alice"))
		l := lock(t, client, "a")
		if l.Name() != "default/default/a" {
			t.Errorf("its name is %q", l.Name())
		}
		held := acquire(t, l)
		if held.Token() < 1 || held.Name() != l.Name() || held.Remaining() <= 0 {
			t.Errorf("token %d, name %q, remaining %v", held.Token(), held.Name(), held.Remaining())
		}
		if err := held.Check(); err != nil {
			t.Error(err)
		}
		if err := held.Ensure(limited(t), time.Second); err != nil {
			t.Error(err)
		}
		if held.Context().Err() != nil {
			t.Error("the context of a valid hold is cancelled")
		}
		release(t, held)
		if cause := context.Cause(held.Context()); !errors.Is(cause, ErrNotHeld) {
			t.Errorf("after the release, the context's cause is %v", cause)
		}
		wants(t, held.Check(), ErrNotHeld)
		wants(t, held.Release(limited(t)), ErrNotHeld)
		wants(t, held.Ensure(limited(t), time.Second), ErrNotHeld)
		if held.Remaining() != 0 {
			t.Errorf("%v remain after the release", held.Remaining())
		}
		second := acquire(t, l)
		if second.Token() <= held.Token() {
			t.Errorf("token %d follows %d", second.Token(), held.Token())
		}
		release(t, second)
	})
}

func TestTryAcquireNamesTheHolder(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		alice, bob := connect(t, url, WithName("alice")), connect(t, url, WithName("bob"))
		held := acquire(t, lock(t, alice, "a"))
		none, err := lock(t, bob, "a").TryAcquire(limited(t))
		e := wants(t, err, ErrContended)
		if none != nil || e.Holder == nil || e.Holder.Name != "alice" || e.Holder.Token != held.Token() ||
			e.Holder.PID != os.Getpid() || e.Holder.Self || e.Holder.Since.IsZero() {
			t.Errorf("held %v, holder %+v", none, e.Holder)
		}
		_, err = lock(t, alice, "a").TryAcquire(limited(t))
		if e := wants(t, err, ErrContended); e.Holder == nil || !e.Holder.Self {
			t.Errorf("the own hold is not seen as such: %+v", e.Holder)
		}
		release(t, held)
		again, err := lock(t, bob, "a").TryAcquire(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		release(t, again)
	})
}

func TestWaitersAreServedInOrder(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client := connect(t, url)
		held := acquire(t, lock(t, client, "a"))
		const count = 5
		order := make(chan int, count)
		var served sync.WaitGroup
		defer served.Wait() // before the client is closed
		for i := range count {
			served.Add(1)
			go func() {
				defer served.Done()
				held, err := lock(t, client, "a").Acquire(context.Background())
				if err != nil {
					t.Error(err)
					order <- -1
					return
				}
				order <- i
				if err := held.Release(context.Background()); err != nil {
					t.Error(err)
				}
			}()
			waiting(t, client, "a", i+1)
		}
		release(t, held)
		for i := range count {
			if got := comes(t, "a grant", order); got != i {
				t.Errorf("%d was served in place %d", got, i)
			}
		}
	})
}

func TestTheContextEndsAWait(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		alice, bob := connect(t, url), connect(t, url)
		held := acquire(t, lock(t, alice, "a"))

		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		defer cancel()
		_, err := lock(t, bob, "a").Acquire(ctx)
		if e := wants(t, err, ErrTimeout); !errors.Is(err, context.DeadlineExceeded) || !e.Timeout() {
			t.Errorf("a deadline gives %v", err)
		}

		reason := errors.New("changed my mind")
		caused, give := context.WithCancelCause(context.Background())
		failed := make(chan error, 1)
		go func() {
			_, err := lock(t, bob, "a").Acquire(caused)
			failed <- err
		}()
		waiting(t, alice, "a", 1)
		give(reason)
		err = comes(t, "the end of the wait", failed)
		wants(t, err, ErrCancelled)
		if !errors.Is(err, reason) || !errors.Is(err, context.Canceled) {
			t.Errorf("a cancel gives %v", err)
		}
		waiting(t, alice, "a", 0)

		_, err = lock(t, bob, "a").TryAcquire(caused)
		wants(t, err, ErrCancelled)
		release(t, held)
	})
}

func TestDoReleasesWhateverHappens(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client := connect(t, url)
		l := lock(t, client, "a")
		free := func() {
			t.Helper()
			held, err := l.TryAcquire(limited(t))
			if err != nil {
				t.Fatal(err)
			}
			release(t, held)
		}
		mine := errors.New("mine")
		err := l.Do(limited(t), func(ctx context.Context, held *Held) error {
			if held.Check() != nil || ctx.Err() != nil {
				t.Errorf("check: %v, context: %v", held.Check(), ctx.Err())
			}
			return mine
		})
		if !errors.Is(err, mine) {
			t.Errorf("Do returns %v", err)
		}
		free()
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic has not come through")
				}
			}()
			_ = l.Do(limited(t), func(context.Context, *Held) error { panic("mine") })
		}()
		free()
		if err := l.Do(limited(t), func(ctx context.Context, held *Held) error { return held.Release(ctx) }); err != nil {
			t.Errorf("a function that releases by itself: %v", err)
		}
		cancelled, cancel := context.WithCancel(context.Background())
		err = l.Do(cancelled, func(ctx context.Context, _ *Held) error {
			cancel()
			<-ctx.Done()
			return nil
		})
		if err != nil {
			t.Errorf("a function whose context ends: %v", err)
		}
		free()
	})
}

func TestABrokenLockCancelsTheContext(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		holder, operator := connect(t, url, WithTTL(8*time.Second)), connect(t, url)
		l := lock(t, holder, "a")
		entered := make(chan int64, 1)
		ended := make(chan error, 1)
		go func() {
			ended <- l.Do(context.Background(), func(ctx context.Context, held *Held) error {
				entered <- held.Token()
				<-ctx.Done()
				wants(t, held.Check(), ErrLost)
				return context.Cause(ctx)
			})
		}()
		token := comes(t, "the function's begin", entered)
		wants(t, operator.BreakLock(limited(t), "a", token-1, true), ErrConflict)
		if err := operator.BreakLock(limited(t), "a", token, true); err != nil {
			t.Fatal(err)
		}
		if e := wants(t, comes(t, "the end of Do", ended), ErrLost); e.Loss != LossBroken {
			t.Errorf("it was lost by %v", e.Loss)
		}
		release(t, acquire(t, lock(t, operator, "a")))
	})
}

func TestClosingEndsEverything(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		alice, bob := connect(t, url), connect(t, url)
		held := acquire(t, lock(t, bob, "x"))
		own, l := acquire(t, lock(t, alice, "y")), lock(t, alice, "x")
		failed := make(chan error, 1)
		go func() {
			_, err := l.Acquire(context.Background())
			failed <- err
		}()
		waiting(t, bob, "x", 1)
		lost := own.Context()
		if err := alice.Close(limited(t)); err != nil {
			t.Fatal(err)
		}
		wants(t, comes(t, "the end of the wait", failed), ErrClosed)
		comes(t, "the loss of the hold", lost.Done())
		_, err := l.Acquire(limited(t))
		wants(t, err, ErrClosed)
		_, err = l.TryAcquire(limited(t))
		wants(t, err, ErrClosed)
		_, err = alice.Lock("z")
		wants(t, err, ErrClosed)
		_, err = alice.LockInfo(limited(t), "x")
		wants(t, err, ErrClosed)
		_, err = alice.Locks(limited(t), "")
		wants(t, err, ErrClosed)
		_, err = alice.Session()
		wants(t, err, ErrClosed)
		_, err = alice.Stats()
		wants(t, err, ErrClosed)
		_, err = alice.OpenSession(limited(t))
		wants(t, err, ErrClosed)
		wants(t, alice.Health(limited(t)), ErrClosed)
		wants(t, alice.BreakLock(limited(t), "x", 1, true), ErrClosed)
		for range alice.SessionChanges(limited(t)) {
			t.Error("a closed client's session changes")
		}
		if code := CodeOf(own.Check()); code != ErrLost && code != ErrNotHeld {
			t.Errorf("the hold of a closed client: %v", own.Check())
		}
		if code := CodeOf(own.Release(limited(t))); code != ErrLost && code != ErrNotHeld {
			t.Errorf("releasing the hold of a closed client: %v", code)
		}
		if err := alice.Close(limited(t)); err != nil {
			t.Errorf("closing again: %v", err)
		}
		release(t, held)
		release(t, acquire(t, lock(t, bob, "y")))
	})
}

func TestAContextThatIsAskedForAfterTheEndOfTheClientSaysHowItWasLost(t *testing.T) {
	client := connect(t, memory(t))
	held, term := acquire(t, lock(t, client, "a")), campaign(t, election(t, client, "e"), "")
	if err := client.Close(limited(t)); err != nil {
		t.Fatal(err)
	}
	for _, ctx := range []context.Context{held.Context(), term.Context()} {
		comes(t, "the end of the context", ctx.Done())
		if code := CodeOf(context.Cause(ctx)); code != ErrLost && code != ErrNotHeld {
			t.Errorf("the cause is %v", context.Cause(ctx))
		}
	}
}

func TestAFunctionUnderALockCannotCloseTheClient(t *testing.T) {
	client := connect(t, memory(t))
	err := lock(t, client, "a").Do(limited(t), func(ctx context.Context, _ *Held) error { return client.Close(ctx) })
	wants(t, err, ErrReentrant)
}

func TestSessionsAreIndependent(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client := connect(t, url, WithName("alice"), WithTTL(20*time.Second))
		second, err := client.OpenSession(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		one, err := client.Session()
		if err != nil {
			t.Fatal(err)
		}
		two, err := second.Session()
		if err != nil {
			t.Fatal(err)
		}
		if one.ID == two.ID || one.State != SessionLive || one.Name != "alice" || one.TTL != 20*time.Second ||
			one.Remaining <= 0 || one.Host == "" || one.Loss != LossNone {
			t.Errorf("%+v and %+v", one, two)
		}
		held := acquire(t, lock(t, client, "a"))
		if err := second.Close(limited(t)); err != nil {
			t.Fatal(err)
		}
		if err := held.Check(); err != nil {
			t.Error(err)
		}
		release(t, held)
	})
}

func TestSessionChangesEndWithTheClient(t *testing.T) {
	client := connect(t, memory(t))
	states := make(chan SessionState, 10)
	go func() {
		defer close(states)
		for session, err := range client.SessionChanges(context.Background()) {
			if err != nil {
				t.Error(err)
			}
			states <- session.State
		}
	}()
	if first := comes(t, "the first state", states); first != SessionLive {
		t.Errorf("the first state is %v", first)
	}
	if err := client.Close(limited(t)); err != nil {
		t.Fatal(err)
	}
	becomes(t, "the changes end", func() bool { _, open := <-states; return !open })
}

func TestSessionChangesEndWithTheContext(t *testing.T) {
	client := connect(t, memory(t))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var last error
	for _, err := range client.SessionChanges(ctx) {
		last = err
		cancel()
	}
	wants(t, last, ErrCancelled)
}

func TestLocksAreListed(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client := connect(t, url, WithName("alice"), WithNamespace("n"), WithScope("s"), WithLabel("zone", "a"))
		held := acquire(t, lock(t, client, "b"))
		release(t, acquire(t, lock(t, client, "a")))
		locks, err := client.Locks(limited(t), "")
		if err != nil {
			t.Fatal(err)
		}
		if len(locks) != 2 || locks[0].Name != "n/s/a" || locks[0].Holder != nil || locks[1].Holder == nil ||
			locks[1].Holder.Name != "alice" || locks[1].Token != held.Token() || locks[1].Breaking {
			t.Errorf("%+v", locks)
		}
		_, err = client.LockInfo(limited(t), "never")
		wants(t, err, ErrNotFound)
		release(t, held)
	})
}

func TestHealthAndStats(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client := connect(t, url)
		if err := client.Health(limited(t)); err != nil {
			t.Error(err)
		}
		held := acquire(t, lock(t, client, "a"))
		stats, err := client.Stats()
		if err != nil || stats.Grants != 1 || stats.Held != 1 || stats.StoreClaimSteps < 1 {
			t.Errorf("%+v, %v", stats, err)
		}
		release(t, held)
	})
}

func TestEveryCounterHasAName(t *testing.T) {
	names := []string{
		"renewals", "failed_renewals", "last_slack", "least_slack", "suspensions", "losses", "grants", "unknown_grants",
		"timeouts", "notice_gaps", "kills", "held", "waiting", "store_session_steps", "store_claim_steps", "store_reads",
	}
	for i, name := range append(names, "") {
		if have := strings.TrimSuffix(ccoord.StatName(i), "_us"); have != name {
			t.Errorf("counter %d is %q, and Stats has %q there", i, have, name)
		}
	}
	if len(names) != ccoord.StatCount {
		t.Errorf("the header has %d counters", ccoord.StatCount)
	}
}

func TestNamesAreTheLibrarys(t *testing.T) {
	for code, name := range codeNames {
		if have := ccoord.StatusName(int32(code)); have != name {
			t.Errorf("code %d is %q here and %q in the library", int32(code), name, have)
		}
	}
	for loss, name := range lossNames {
		if have := ccoord.LossName(int32(loss)); have != name {
			t.Errorf("loss %d is %q here and %q in the library", int32(loss), name, have)
		}
	}
	if Version() == "" || ccoord.LibraryVersion() < ccoord.HeaderVersion {
		t.Errorf("version %q: %x, compiled with %x", Version(), ccoord.LibraryVersion(), ccoord.HeaderVersion)
	}
}

func TestSanitize(t *testing.T) {
	one, err := Sanitize("käse und brot")
	if err != nil {
		t.Fatal(err)
	}
	two, err := Sanitize("kase und brot")
	if err != nil || one == two {
		t.Errorf("%q, %q, %v", one, two, err)
	}
	if same, err := Sanitize("plain"); err != nil || same != "plain" {
		t.Errorf("%q, %v", same, err)
	}
	lock(t, connect(t, memory(t)), one)
}

func TestCodeOf(t *testing.T) {
	for _, test := range []struct {
		err  error
		want Code
	}{
		{nil, 0},
		{ErrLost, ErrLost},
		{fmt.Errorf("it: %w", &Error{Code: ErrContended}), ErrContended},
		{errors.New("other"), ErrUnknown},
	} {
		if have := CodeOf(test.err); have != test.want {
			t.Errorf("the code of %v is %v", test.err, have)
		}
	}
	if Code(12345).String() != "Code(12345)" || Code(12345).Error() == "" || Loss(77).String() != "Loss(77)" {
		t.Error("a number from a later version has no text")
	}
}
