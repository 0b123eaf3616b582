package coord

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func election(t *testing.T, client *Client, name string) *Election {
	t.Helper()
	l, err := client.Election(name)
	if err != nil {
		t.Fatalf("election %q: %v", name, err)
	}
	return l
}

func campaign(t *testing.T, l *Election, value string, options ...CampaignOption) *Term {
	t.Helper()
	term, err := l.Campaign(limited(t), value, options...)
	if err != nil {
		t.Fatal(err)
	}
	return term
}

func resign(t *testing.T, term *Term) {
	t.Helper()
	if err := term.Resign(limited(t)); err != nil {
		t.Fatal(err)
	}
}

// candidates waits until that many wait in the election, and returns them.
func candidates(t *testing.T, l *Election, count int) []Candidate {
	t.Helper()
	var list []Candidate
	becomes(t, "the candidates", func() bool {
		var err error
		list, err = l.Candidates(limited(t))
		return err == nil && len(list) == count
	})
	return list
}

// won runs a campaign in the background.
func won(l *Election, value string, options ...CampaignOption) <-chan *Term {
	terms := make(chan *Term, 1)
	go func() {
		if term, err := l.Campaign(context.Background(), value, options...); err == nil {
			terms <- term
		}
	}()
	return terms
}

func TestOneLeadsAtATime(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		alice, bob := connect(t, url, WithName("alice"), WithLabel("k", "v")), connect(t, url, WithName("bob"))
		hers, his := election(t, alice, "pool/e"), election(t, bob, "pool/e")
		if hers.Name() != "default/pool/e" || hers.IsLeader() {
			t.Errorf("%s, %v", hers.Name(), hers.IsLeader())
		}
		if leader, err := his.Leader(limited(t)); leader != nil || err != nil {
			t.Errorf("nobody leads, but %+v, %v", leader, err)
		}
		term := campaign(t, hers, "one")
		if term.Name() != "default/pool/e" || term.Token() <= 0 || term.Value() != "one" || term.Remaining() <= 0 ||
			term.Loss() != LossNone || !hers.IsLeader() || his.IsLeader() {
			t.Errorf("%+v", term)
		}
		if err := errors.Join(term.Check(), term.Ensure(limited(t), time.Second)); err != nil {
			t.Error(err)
		}
		leader, err := his.Leader(limited(t))
		if err != nil || leader == nil {
			t.Fatal(leader, err)
		}
		if leader.Name != "alice" || leader.Value != "one" || !leader.HasValue || leader.Token != term.Token() || leader.Self ||
			leader.PID == 0 || leader.Host == "" || len(leader.Session) != 32 || leader.Since.IsZero() || leader.Labels["k"] != "v" {
			t.Errorf("%+v", leader)
		}
		_, err = his.TryCampaign(limited(t), "two")
		if e := wants(t, err, ErrContended); e.Holder == nil || e.Holder.Name != "alice" {
			t.Errorf("%+v", e.Holder)
		}
		soon, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		_, err = his.Campaign(soon, "two")
		wants(t, err, ErrTimeout)
		candidates(t, hers, 0)
		if err := term.Proclaim(limited(t), "uno"); err != nil || term.Value() != "uno" {
			t.Error(err, term.Value())
		}
		next := won(his, "two", Priority(7))
		var list []Candidate
		// The campaign that was given up may come to the store late, and is taken out again.
		becomes(t, "the candidate of his second campaign", func() bool {
			list = candidates(t, hers, 1)
			return list[0].Priority == 7
		})
		if list[0].Name != "bob" || list[0].Self {
			t.Errorf("%+v", list)
		}
		over := term.Context()
		resign(t, term)
		comes(t, "the end of the context", over.Done())
		wants(t, context.Cause(over), ErrNotHeld)
		wants(t, term.Check(), ErrNotHeld)
		wants(t, term.Resign(limited(t)), ErrNotHeld)
		if term.Loss() != LossResigned || term.Remaining() != 0 {
			t.Errorf("%v %v", term.Loss(), term.Remaining())
		}
		second := comes(t, "the next term", next)
		if second.Token() <= term.Token() {
			t.Errorf("%d after %d", second.Token(), term.Token())
		}
		third := won(hers, "three")
		session := candidates(t, his, 1)[0].Session
		wants(t, second.TransferTo(limited(t), "nobody"), ErrInvalidArgument)
		wants(t, second.TransferTo(limited(t), strings.Repeat("0", 32)), ErrNotFound)
		if err := second.TransferTo(limited(t), session); err != nil {
			t.Fatal(err)
		}
		resign(t, comes(t, "the term that was handed over", third))
	})
}

func TestACampaignThatIsGivenUpLeavesNothing(t *testing.T) {
	client := connect(t, memory(t))
	l := election(t, client, "e")
	term := campaign(t, l, "")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := l.Campaign(ctx, "")
		ended <- err
	}()
	candidates(t, l, 1)
	cancel()
	wants(t, comes(t, "the end of the campaign", ended), ErrCancelled)
	candidates(t, l, 0)
	resign(t, term)
	_, err := l.Campaign(ctx, "")
	wants(t, err, ErrCancelled)
	term = campaign(t, l, "")
	wants(t, term.Resign(ctx), ErrCancelled)
	wants(t, term.Check(), ErrNotHeld)
	resign(t, campaign(t, l, ""))
}

func TestTheStoryOfAnElection(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client, other := connect(t, url), connect(t, url)
		watch, err := election(t, other, "e").Observe(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Close()
		values := make(chan string, 16)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			for event, err := range watch.Events(ctx) {
				switch {
				case err != nil:
					ended <- err
				case event.Leader == nil:
					values <- "-"
				case event.Leader.HasValue:
					values <- event.Leader.Value
				}
			}
			close(values)
		}()
		l := election(t, client, "e")
		tell := func(want string) {
			t.Helper()
			if got := comes(t, "an event", values); got != want {
				t.Fatalf("want %q, got %q", want, got)
			}
		}
		tell("-")
		for _, value := range []string{"one", "two"} {
			term := campaign(t, l, value)
			tell(value)
			if err := term.Proclaim(limited(t), value+"!"); err != nil {
				t.Fatal(err)
			}
			tell(value + "!")
			resign(t, term)
			tell("-")
		}
		cancel()
		wants(t, comes(t, "the end of the events", ended), ErrCancelled)
		if _, more := <-values; more {
			t.Error("events after the end")
		}
		watch.Close()
		_, err = watch.Next(limited(t))
		wants(t, err, ErrClosed)
	})
}

func TestAFunctionIsCalledInEveryTerm(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client, other := connect(t, url), connect(t, url)
		l := election(t, client, "e")
		entered, leave := make(chan *Term), make(chan error)
		var inside atomic.Int32
		c, err := l.WhenElected(context.Background(), "v", func(ctx context.Context, term *Term) error {
			if inside.Add(1) != 1 {
				t.Error("two calls at once")
			}
			defer inside.Add(-1)
			entered <- term
			if err := <-leave; err != nil {
				return err
			}
			<-ctx.Done()
			wants(t, context.Cause(ctx), ErrNotHeld)
			return nil
		}, Backoff(time.Millisecond, time.Millisecond), Priority(1), nil)
		if err != nil {
			t.Fatal(err)
		}
		first := comes(t, "the first call", entered)
		leave <- errors.New("boom")
		second := comes(t, "the call after the error", entered)
		if second.Token() <= first.Token() || second.Value() != "v" {
			t.Errorf("%d after %d", second.Token(), first.Token())
		}
		wants(t, first.Check(), ErrNotHeld)
		leave <- nil
		resign(t, second)
		third := comes(t, "the call in the next term", entered)
		leave <- nil
		if err := c.Close(limited(t)); err != nil {
			t.Fatal(err)
		}
		comes(t, "the end", c.Done())
		wants(t, third.Check(), ErrNotHeld)
		if err := c.Close(limited(t)); err != nil {
			t.Error(err)
		}
		resign(t, campaign(t, election(t, other, "e"), ""))
	})
}

func TestAPanicIsAnErrorOfTheFunction(t *testing.T) {
	var report record
	client := connect(t, memory(t), WithLogger(slog.New(slog.NewTextHandler(&report, nil))))
	calls := make(chan int64, 16)
	first := true
	c, err := election(t, client, "e").WhenElected(context.Background(), "", func(_ context.Context, term *Term) error {
		calls <- term.Token()
		if first {
			first = false
			panic("on purpose")
		}
		return nil
	}, Backoff(time.Millisecond, time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if one, two := comes(t, "the call", calls), comes(t, "the next call", calls); one >= two {
		t.Errorf("%d, %d", one, two)
	}
	if !report.has("panic: on purpose") || !report.has("election_test.go") {
		t.Errorf("the report: %s", report.text.String())
	}
	if err := c.Close(limited(t)); err != nil {
		t.Error(err)
	}
}

func TestAFunctionThatEndsItsGoroutineHasFailed(t *testing.T) {
	var report record
	client := connect(t, memory(t), WithLogger(slog.New(slog.NewTextHandler(&report, nil))))
	l := election(t, client, "e")
	calls := make(chan int64, 16)
	first := true
	c, err := l.WhenElected(context.Background(), "", func(_ context.Context, term *Term) error {
		calls <- term.Token()
		if first {
			first = false
			runtime.Goexit()
		}
		return nil
	}, Backoff(time.Millisecond, time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if one, two := comes(t, "the call", calls), comes(t, "the next call", calls); one >= two {
		t.Errorf("%d, %d", one, two)
	}
	if !report.has("runtime.Goexit") {
		t.Errorf("the report: %s", report.text.String())
	}
	select {
	case <-c.Done():
		t.Error("it is said to be over")
	default:
	}
	if err := c.Close(limited(t)); err != nil {
		t.Error(err)
	}
	resign(t, campaign(t, l, ""))
}

func TestClosingACandidacyWaitsInsideOtherFunctionsOfItsClient(t *testing.T) {
	client := connect(t, memory(t))
	entered := make(chan struct{}, 1)
	var returned atomic.Bool
	c, err := election(t, client, "e").WhenElected(context.Background(), "", func(ctx context.Context, _ *Term) error {
		entered <- struct{}{}
		<-ctx.Done()
		returned.Store(true)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	comes(t, "the call", entered)
	err = lock(t, client, "a").Do(limited(t), func(ctx context.Context, _ *Held) error { return c.Close(ctx) })
	if err != nil || !returned.Load() {
		t.Errorf("%v; the function has returned: %v", err, returned.Load())
	}
}

func TestACandidacyEndsWithItsContextAndItsClient(t *testing.T) {
	url := memory(t)
	client := connect(t, url)
	l := election(t, client, "e")
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), "key", "value")) //nolint:staticcheck
	entered := make(chan *Term, 1)
	work := func(ctx context.Context, term *Term) error {
		if ctx.Value("key") == nil && ctx.Value("none") == nil {
			entered <- term
		} else {
			entered <- term
			wants(t, client.Close(ctx), ErrReentrant)
		}
		<-ctx.Done()
		return ctx.Err()
	}
	c, err := l.WhenElected(ctx, "", work)
	if err != nil {
		t.Fatal(err)
	}
	term := comes(t, "the call", entered)
	cancel()
	comes(t, "the end", c.Done())
	wants(t, term.Check(), ErrNotHeld)
	_, err = l.WhenElected(ctx, "", work)
	wants(t, err, ErrCancelled)
	_, err = l.WhenElected(context.Background(), "", nil)
	wants(t, err, ErrInvalidArgument)
	_, err = l.WhenElected(context.Background(), "", work, Backoff(time.Second, time.Millisecond))
	wants(t, err, ErrInvalidArgument)

	c, err = l.WhenElected(context.Background(), "", work)
	if err != nil {
		t.Fatal(err)
	}
	term = comes(t, "the call", entered)
	if err := client.Close(limited(t)); err != nil {
		t.Fatal(err)
	}
	comes(t, "the end", c.Done())
	if term.Check() == nil {
		t.Error("a closed client leads")
	}
	_, err = l.WhenElected(context.Background(), "", work)
	wants(t, err, ErrClosed)
	wants(t, l.Run(context.Background(), "", work), ErrClosed)
}

func TestRunEndsWhenItsFunctionIsDone(t *testing.T) {
	client := connect(t, memory(t))
	l := election(t, client, "e")
	calls := 0
	err := l.Run(limited(t), "", func(context.Context, *Term) error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	}, Backoff(time.Millisecond, time.Millisecond))
	if err != nil || calls != 3 || l.IsLeader() {
		t.Errorf("%v after %d calls", err, calls)
	}
	ctx, cancel := context.WithCancel(context.Background())
	wants(t, l.Run(ctx, "", func(ctx context.Context, _ *Term) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}), ErrCancelled)
	wants(t, l.Run(limited(t), "", nil), ErrInvalidArgument)
	resign(t, campaign(t, l, ""))
}

func TestAForgottenTermIsResignedAndReported(t *testing.T) {
	var report record
	client := connect(t, memory(t), WithLogger(slog.New(slog.NewTextHandler(&report, nil))))
	l := election(t, client, "e")
	func() { campaign(t, l, "") }()
	becomes(t, "the report", func() bool { runtime.GC(); return report.has("without Resign") })
	child, cancel := func() (context.Context, context.CancelFunc) {
		return context.WithCancel(campaign(t, l, "").Context())
	}()
	defer cancel()
	for range 5 {
		runtime.GC()
		_, err := l.TryCampaign(limited(t), "")
		wants(t, err, ErrContended)
	}
	runtime.KeepAlive(child)
}

func TestManyGoroutinesLeadInTurn(t *testing.T) {
	url := memory(t)
	var leading atomic.Int32
	var all sync.WaitGroup
	var highest atomic.Int64
	for range 4 {
		client := connect(t, url)
		for range 3 {
			all.Add(1)
			go func() {
				defer all.Done()
				l := election(t, client, "e")
				for range 20 {
					term, err := l.Campaign(context.Background(), "")
					if err != nil {
						t.Error(err)
						return
					}
					if leading.Add(1) != 1 || term.Token() <= highest.Swap(term.Token()) {
						t.Error("two lead, or a token does not grow")
					}
					_, _ = term.Context(), term.Check()
					leading.Add(-1)
					if err := term.Resign(context.Background()); err != nil {
						t.Error(err)
					}
				}
			}()
		}
	}
	all.Wait()
}

func TestBadInputOfElections(t *testing.T) {
	client := connect(t, memory(t))
	for _, name := range []string{"", "/", "a b", "a/b/c/d", "\xff", strings.Repeat("a", 254)} {
		_, err := client.Election(name)
		wants(t, err, ErrInvalidArgument)
	}
	l := election(t, client, "e")
	for _, priority := range []int{2048, -2049, 1 << 40} {
		_, err := l.Campaign(limited(t), "", Priority(priority))
		wants(t, err, ErrInvalidArgument)
	}
	for _, value := range []string{"\xff", strings.Repeat("v", 1<<16+1)} {
		_, err := l.Campaign(limited(t), value)
		wants(t, err, ErrInvalidArgument)
		_, err = l.TryCampaign(limited(t), value)
		wants(t, err, ErrInvalidArgument)
		term := campaign(t, l, "")
		wants(t, term.Proclaim(limited(t), value), ErrInvalidArgument)
		wants(t, term.Ensure(limited(t), time.Hour), ErrInvalidArgument)
		wants(t, term.Ensure(limited(t), -time.Second), ErrInvalidArgument)
		resign(t, term)
	}
	var zero Election
	_, err := zero.Campaign(limited(t), "")
	wants(t, err, ErrClosed)
	_, err = zero.Leader(limited(t))
	wants(t, err, ErrClosed)
	var term Term
	if term.Check() == nil || term.Remaining() != 0 || term.Value() != "" || term.Resign(limited(t)) == nil {
		t.Error("the zero term leads")
	}
	comes(t, "the end of the zero term", term.Context().Done())
}
