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

	"go.mongodb.org/mongo-driver/v2/bson"

	"coord/internal/ccoord"
	"coord/internal/control"
)

// ran is one call of a reconciler's function.
type ran struct {
	ctx  context.Context
	work *Work
	// answers are taken for what the call returns.
	answers chan answer
}

type answer struct {
	outcome Outcome
	err     error
}

// calls makes a function whose calls are answered by the test, one by one.
func calls() (func(context.Context, *Work) (Outcome, error), <-chan ran) {
	all := make(chan ran, 64)
	return func(ctx context.Context, work *Work) (Outcome, error) {
		call := ran{ctx, work, make(chan answer, 1)}
		all <- call
		given := <-call.answers
		return given.outcome, given.err
	}, all
}

func (c ran) returns(outcome Outcome, err error) { c.answers <- answer{outcome, err} }

func reconcile(
	t *testing.T, client *Client, source Source, f func(context.Context, *Work) (Outcome, error), options ...ReconcileOption,
) *Reconciler {
	t.Helper()
	r, err := client.Reconcile(context.Background(), "r", source, f, options...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func add(t *testing.T, r *Reconciler, key any) {
	t.Helper()
	if _, err := r.Add(key); err != nil {
		t.Fatal(err)
	}
}

// comesFor waits for the next call, which is for this key and this attempt.
func comesFor(t *testing.T, from <-chan ran, key any, attempt int) ran {
	t.Helper()
	call := comes(t, "a call", from)
	if call.work.Key() != key || call.work.Attempt() != attempt {
		t.Fatalf("want key %v, attempt %d, got %v, %d", key, attempt, call.work.Key(), call.work.Attempt())
	}
	return call
}

func statsOf(t *testing.T, r *Reconciler) ReconcilerStats {
	t.Helper()
	stats, err := r.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// idle waits until nothing is to be run, now or later.
func idle(t *testing.T, r *Reconciler) ReconcilerStats {
	t.Helper()
	var stats ReconcilerStats
	becomes(t, "nothing is to be run", func() bool {
		stats = statsOf(t, r)
		return stats.Ready == 0 && stats.Delayed == 0 && stats.InFlight == 0
	})
	return stats
}

func closeReconciler(t *testing.T, r *Reconciler) {
	t.Helper()
	if err := r.Close(limited(t)); err != nil {
		t.Error(err)
	}
}

func TestWhatARunComesToDecidesTheNext(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client := connect(t, url)
		f, all := calls()
		r := reconcile(t, client, SourceManual(), f, Backoff(time.Millisecond, 5*time.Millisecond), nil)
		if r.Name() != "default/default/r" {
			t.Error(r.Name())
		}
		add(t, r, "a")
		call := comesFor(t, all, "a", 1)
		if call.work.Exists() || call.work.Document() != nil || call.work.Token() != 0 || call.work.Check() != nil {
			t.Errorf("%+v", call.work)
		}
		if revision, ok := call.work.Revision(); ok || revision != 0 {
			t.Error(revision, ok)
		}
		wants(t, call.work.Decode(new(struct{})), ErrNotFound)
		var key string
		if err := call.work.DecodeKey(&key); err != nil || key != "a" {
			t.Error(key, err)
		}
		wants(t, call.work.DecodeKey(new(int)), ErrInvalidArgument)
		// What comes during a run leads to exactly one more.
		if news, err := r.Add("a"); !news || err != nil {
			t.Error(news, err)
		}
		if news, err := r.Add("a"); news || err != nil {
			t.Error(news, err)
		}
		call.returns(nil, nil)
		again := comesFor(t, all, "a", 1)
		wants(t, call.work.Check(), ErrNotHeld)
		again.returns(RequeueAfter(time.Millisecond), nil)
		comesFor(t, all, "a", 1).returns(nil, errors.New("once"))
		comesFor(t, all, "a", 2).returns(nil, ErrorAfter(errors.New("twice"), time.Millisecond))
		comesFor(t, all, "a", 3).returns(RequeueAfter(time.Millisecond), errors.New("an error counts"))
		comesFor(t, all, "a", 4).returns(RequeueAfter(-time.Second), nil)
		comesFor(t, all, "a", 1).returns(nil, Terminal(ErrorAfter(errors.New("no way"), time.Second)))
		becomes(t, "it is parked", func() bool { return statsOf(t, r).Parked == 1 })
		parked, err := r.Parked()
		if err != nil || len(parked) != 1 || parked[0].Key != "a" || parked[0].Reason != "no way" || parked[0].For < 0 {
			t.Errorf("%+v, %v", parked, err)
		}
		wants(t, r.WaitUntilReconciled(limited(t), "a", 0), ErrConflict)
		add(t, r, "a")
		comesFor(t, all, "a", 1).returns(nil, nil)
		if err := r.WaitUntilReconciled(limited(t), "a", 0); err != nil {
			t.Error(err)
		}
		stats := idle(t, r)
		if stats.Runs != 8 || stats.Errors != 4 || stats.Retries != 3 || stats.Terminal != 1 || stats.Requeued != 2 ||
			stats.Dropped != 0 || !stats.Synced || stats.Paused || len(stats.Shards) != 0 || stats.RunTime <= 0 ||
			stats.LongestEndedRun > stats.RunTime {
			t.Errorf("%+v", stats)
		}
		closeReconciler(t, r)
		comes(t, "the end", r.Done())
		_, err = r.Add("a")
		wants(t, err, ErrClosed)
		if after := statsOf(t, r); after.Runs != stats.Runs {
			t.Errorf("%+v", after)
		}
		closeReconciler(t, r)
	})
}

func TestKeysArePlannedCancelledPausedAndDrained(t *testing.T) {
	client := connect(t, memory(t))
	f, all := calls()
	r := reconcile(t, client, SourceManual(), f, Workers(2))
	for i, want := range []bool{true, false} {
		if news, err := r.AddAfter(1, time.Hour+time.Duration(i)); news != want || err != nil {
			t.Error(news, err)
		}
	}
	for _, want := range []bool{true, false} {
		if was, err := r.Cancel(1); was != want || err != nil {
			t.Error(was, err)
		}
	}
	idle(t, r)
	if _, err := r.AddAfter(1, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	call := comesFor(t, all, int64(1), 1)
	if _, err := r.Cancel(1); err != nil {
		t.Fatal(err)
	}
	comes(t, "the end of its context", call.ctx.Done())
	wants(t, context.Cause(call.ctx), ErrCancelled)
	call.returns(nil, errors.New("too late"))
	idle(t, r)
	wants(t, r.WaitUntilReconciled(limited(t), 1, 0), ErrConflict)

	r.Pause()
	for _, key := range []int{1, 2, 3} {
		add(t, r, key)
	}
	if stats := statsOf(t, r); stats.Ready != 3 || !stats.Paused {
		t.Errorf("%+v", stats)
	}
	r.Resume()
	one, two := comes(t, "a call", all), comes(t, "another call", all)
	if stats := statsOf(t, r); stats.InFlight != 2 || stats.Ready != 1 {
		t.Errorf("two workers: %+v", stats)
	}
	if _, err := r.AddAfter(4, time.Hour); err != nil {
		t.Fatal(err)
	}
	drained := make(chan error, 1)
	go func() { drained <- r.Drain(limited(t)) }()
	becomes(t, "it takes in no more", func() bool { _, err := r.AddAfter(4, 2*time.Hour); return CodeOf(err) == ErrClosed })
	if call.ctx.Err() == nil || one.ctx.Err() != nil {
		t.Error("a drain lets runs go on")
	}
	one.returns(nil, nil)
	comesFor(t, all, int64(3), 1).returns(nil, nil)
	two.returns(nil, nil)
	if err := comes(t, "the end of the drain", drained); err != nil {
		t.Error(err)
	}
	comes(t, "the end", r.Done())
}

func TestAReconcilerWhoseFilterIsWrongIsRefused(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client, code := connect(t, url), ErrUnsupported
		if strings.HasPrefix(url, "mongodb") {
			code = ErrInvalidArgument
		}
		f := func(context.Context, *Work) (Outcome, error) { return nil, nil }
		for _, wrong := range []bson.M{
			{"a": bson.M{"$bogus": 1}}, {"a": bson.M{"$regex": "("}}, {"$expr": bson.M{"$bogus": 1}},
			{"$where": "("}, {"$text": bson.M{"$search": "x"}},
		} {
			_, err := client.Reconcile(limited(t), "r", SourceTable("t", wrong), f)
			if CodeOf(err) != code {
				t.Errorf("%v: %v", wrong, err)
			}
		}
	})
}

func TestAPanicOfAReconcilersFunctionIsAnError(t *testing.T) {
	var report record
	client := connect(t, memory(t), WithLogger(slog.New(slog.NewTextHandler(&report, nil))))
	attempts := make(chan int, 16)
	r := reconcile(t, client, SourceManual(), func(_ context.Context, work *Work) (Outcome, error) {
		attempts <- work.Attempt()
		switch work.Attempt() {
		case 1:
			panic("on purpose")
		case 3:
			runtime.Goexit()
		case 2:
			return nil, errors.New("bad \xff text" + strings.Repeat("ä", 1<<15))
		}
		return nil, nil
	}, Backoff(time.Millisecond, time.Millisecond))
	add(t, r, "k")
	for want := 1; want <= 4; want++ {
		if got := comes(t, "a call", attempts); got != want {
			t.Fatalf("attempt %d, not %d", got, want)
		}
	}
	closeReconciler(t, r)
	for _, text := range []string{"panic: on purpose", "reconciler_test.go", "key=k", "attempt=2", "runtime.Goexit"} {
		if !report.has(text) {
			t.Errorf("the report has no %q: %s", text, report.text.String())
		}
	}
}

func TestAReconcilerIsDrainedThoughTheContextHasEnded(t *testing.T) {
	f, all := calls()
	r := reconcile(t, connect(t, memory(t)), SourceManual(), f)
	add(t, r, "a")
	call := comesFor(t, all, "a", 1)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	wants(t, r.Drain(ended), ErrCancelled)
	_, err := r.Add("b")
	wants(t, err, ErrClosed)
	call.returns(nil, nil)
	comes(t, "the end", r.Done())
}

func TestAReconcilerEndsWithItsContextAndItsClient(t *testing.T) {
	client := connect(t, memory(t))
	f, all := calls()
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), "key", "value")) //nolint:staticcheck
	r, err := client.Reconcile(ctx, "r", SourceManual(), f)
	if err != nil {
		t.Fatal(err)
	}
	add(t, r, "a")
	call := comesFor(t, all, "a", 1)
	if call.ctx.Value("key") != "value" {
		t.Error("its context is not of the one that was given")
	}
	if err := r.Close(call.ctx); err != nil { // would wait for itself
		t.Error(err)
	}
	wants(t, r.Drain(call.ctx), ErrReentrant)
	wants(t, client.Close(call.ctx), ErrReentrant)
	comes(t, "the end of its context", call.ctx.Done())
	wants(t, context.Cause(call.ctx), ErrCancelled)
	soon, done := context.WithTimeout(context.Background(), time.Millisecond)
	defer done()
	wants(t, r.Close(soon), ErrTimeout)
	call.returns(nil, nil)
	closeReconciler(t, r)

	r, err = client.Reconcile(ctx, "r", SourceManual(), f)
	if err != nil {
		t.Fatal(err)
	}
	add(t, r, "a")
	call = comesFor(t, all, "a", 1)
	cancel()
	comes(t, "the end of its context", call.ctx.Done())
	call.returns(nil, call.ctx.Err())
	comes(t, "the end", r.Done())
	if r.Err() != nil {
		t.Error(r.Err())
	}
	_, err = client.Reconcile(ctx, "r", SourceManual(), f)
	wants(t, err, ErrCancelled)

	r = reconcile(t, client, SourceManual(), f)
	add(t, r, "a")
	call = comesFor(t, all, "a", 1)
	closed := make(chan error, 1)
	go func() { closed <- client.Close(limited(t)) }()
	comes(t, "the end of its context", call.ctx.Done())
	call.returns(nil, nil)
	if err := comes(t, "the end of the client", closed); err != nil {
		t.Error(err)
	}
	comes(t, "the end", r.Done())
	_, err = client.Reconcile(context.Background(), "r", SourceManual(), f)
	wants(t, err, ErrClosed)
}

func TestLocksAndServicesAreKeys(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client, other := connect(t, url), connect(t, url)
		f, all := calls()
		release(t, acquire(t, lock(t, other, "res/early")))
		r := reconcile(t, client, SourceReleasedLocks("default/res/"), f)
		comesFor(t, all, "default/res/early", 1).returns(nil, nil)
		release(t, acquire(t, lock(t, other, "elsewhere")))
		release(t, acquire(t, lock(t, other, "res/late")))
		comesFor(t, all, "default/res/late", 1).returns(nil, nil)
		idle(t, r)
		closeReconciler(t, r)

		provider := provide(t, other, "svc/s", "v1")
		r = reconcile(t, client, SourceObserver("svc/*"), f)
		call := comesFor(t, all, "default/svc/s", 1)
		var service struct {
			Service   string
			Providers []struct {
				Metadata string
				PID      int
			}
		}
		if err := call.work.Decode(&service); err != nil || !call.work.Exists() || service.Service != "default/svc/s" ||
			len(service.Providers) != 1 || service.Providers[0].Metadata != "v1" || service.Providers[0].PID == 0 {
			t.Errorf("%+v, %v", service, err)
		}
		call.returns(nil, nil)
		if err := provider.Close(limited(t)); err != nil {
			t.Fatal(err)
		}
		for exists := true; exists; { // told that it left, and that it was the last
			call := comesFor(t, all, "default/svc/s", 1)
			exists = call.work.Exists()
			call.returns(nil, nil)
		}
		closeReconciler(t, r)
	})
}

// The records of sharded reconcilers are a table, too.
func TestDocumentsOfATableAreKeys(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client, other := connect(t, url), connect(t, url)
		sharded := func(name string, shards int) {
			r, err := other.Reconcile(context.Background(), name, SourceReleasedLocks("default/none/"),
				func(context.Context, *Work) (Outcome, error) { return nil, nil }, InMode(ModeSharded), Shards(shards))
			if err != nil {
				t.Fatal(err)
			}
			closeReconciler(t, r)
		}
		sharded("one", 1)
		f, all := calls()
		r := reconcile(t, client, SourceTable("reconcilers", nil), f, Workers(2))
		call := comesFor(t, all, "default/default/one", 1)
		var record struct {
			ID     string `bson:"_id"`
			Shards int
		}
		if err := call.work.Decode(&record); err != nil || record.ID != "default/default/one" || record.Shards != 1 {
			t.Errorf("%+v, %v", record, err)
		}
		if revision, ok := call.work.Revision(); !ok || revision == 0 {
			t.Error("a document of a table has no revision")
		}
		wants(t, call.work.Decode(&[]int{}), ErrInvalidArgument)
		call.returns(nil, nil)
		sharded("two", 2)
		comesFor(t, all, "default/default/two", 1).returns(nil, nil)
		idle(t, r)
		closeReconciler(t, r)

		f, all = calls()
		r = reconcile(t, client, SourceTable("reconcilers", bson.M{"shards": bson.M{"$gt": 1}}), f)
		comesFor(t, all, "default/default/two", 1).returns(nil, nil)
		if stats := idle(t, r); stats.Runs != 1 {
			t.Errorf("%+v", stats)
		}
		closeReconciler(t, r)
	})
}

func TestEveryChangeOfADocumentIsRun(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		client, other := connect(t, url), connect(t, url)
		table, err := OpenTable[int64, bson.M](other, "things")
		if err != nil {
			t.Fatal(err)
		}
		wrote := func(written *Written, err error) Position {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return written.Position
		}
		ctx := limited(t)
		wrote(table.Insert(ctx, 1, bson.M{"n": 1}))
		f, all := calls()
		r := reconcile(t, client, SourceTable("things", nil), f, InMode(ModeLeader))
		call := comesFor(t, all, int64(1), 1)
		// Changes during a run are one more run, which sees the last of them.
		wrote(table.Update(ctx, 1, bson.M{"$inc": bson.M{"n": 1}}))
		position := wrote(table.Update(ctx, 1, bson.M{"$inc": bson.M{"n": 1}}))
		// Both are in the queue when another key, which has nothing to be run, is reconciled up to the second.
		if err := r.WaitUntilReconciled(ctx, 0, position); err != nil {
			t.Error(err)
		}
		wrote(table.Insert(ctx, 2, bson.M{}, Fenced(call.work)))
		call.returns(nil, nil)
		seen := map[any]int64{}
		for range 2 {
			call := comes(t, "a call", all)
			var document struct{ N int64 }
			if err := call.work.Decode(&document); err != nil {
				t.Error(err)
			}
			seen[call.work.Key()] = document.N
			call.returns(nil, nil)
		}
		if n, ok := seen[int64(2)]; seen[int64(1)] != 3 || n != 0 || !ok {
			t.Errorf("%v", seen)
		}
		if err := r.WaitUntilReconciled(ctx, 1, position); err != nil {
			t.Error(err)
		}
		wrote(table.Delete(ctx, 1))
		call = comesFor(t, all, int64(1), 1)
		if call.work.Exists() {
			t.Errorf("%v", call.work.Document())
		}
		call.returns(nil, nil)
		if stats := idle(t, r); stats.Runs != 4 {
			t.Errorf("%+v", stats)
		}
		closeReconciler(t, r)
		_, err = table.Put(ctx, 2, bson.M{}, Fenced(call.work))
		if err == nil {
			t.Error("a run that is over can write")
		}
	})
}

func TestTheLeaderRunsKeysAndHandsOver(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		alice, bob := connect(t, url), connect(t, url)
		release(t, acquire(t, lock(t, alice, "led/x")))
		f, hers := calls()
		first := reconcile(t, alice, SourceReleasedLocks("default/led/"), f, InMode(ModeLeader))
		call := comesFor(t, hers, "default/led/x", 1)
		if call.work.Token() <= 0 || call.work.Check() != nil {
			t.Errorf("%+v", call.work)
		}
		if stats := statsOf(t, first); len(stats.Shards) != 1 || stats.Shards[0] != 0 {
			t.Errorf("%+v", stats)
		}
		f, his := calls()
		second := reconcile(t, bob, SourceReleasedLocks("default/led/"), f, InMode(ModeLeader))
		_, err := second.Add("default/led/x")
		wants(t, err, ErrNotHeld)
		closed := make(chan error, 1)
		go func() { closed <- first.Close(limited(t)) }()
		comes(t, "the end of its context", call.ctx.Done())
		wants(t, context.Cause(call.ctx), ErrCancelled)
		if stats := statsOf(t, second); stats.InFlight != 0 {
			t.Errorf("two run at once: %+v", stats)
		}
		call.returns(nil, nil)
		if err := comes(t, "the end of the first", closed); err != nil {
			t.Error(err)
		}
		next := comesFor(t, his, "default/led/x", 1)
		if next.work.Token() <= call.work.Token() {
			t.Errorf("%d after %d", next.work.Token(), call.work.Token())
		}
		next.returns(nil, nil)
		closeReconciler(t, second)
	})
}

func TestShardsAreHeldByWhoRunsTheirKeys(t *testing.T) {
	client := connect(t, memory(t))
	for _, name := range []string{"s/a", "s/b", "s/c"} {
		release(t, acquire(t, lock(t, client, name)))
	}
	var tokens sync.Map
	r := reconcile(t, client, SourceReleasedLocks("default/s/"), func(_ context.Context, work *Work) (Outcome, error) {
		tokens.Store(work.Key(), work.Token())
		return nil, work.Check()
	}, InMode(ModeSharded), Shards(4), Workers(4), MoveGrace(time.Second))
	becomes(t, "all is held and run", func() bool {
		stats := statsOf(t, r)
		return len(stats.Shards) == 4 && stats.Runs >= 3
	})
	idle(t, r)
	for _, name := range []string{"default/s/a", "default/s/b", "default/s/c"} {
		if token, ok := tokens.Load(name); !ok || token.(int64) <= 0 {
			t.Errorf("%s was run with token %v", name, token)
		}
	}
	_, err := client.Reconcile(limited(t), "r", SourceReleasedLocks(""), func(context.Context, *Work) (Outcome, error) {
		return nil, nil
	}, InMode(ModeSharded), Shards(5))
	wants(t, err, ErrInvalidArgument)
	closeReconciler(t, r)
}

func TestWhatIsReturnedAfterALossDoesNotCount(t *testing.T) {
	var report record
	client := connect(t, memory(t), WithLogger(slog.New(slog.NewTextHandler(&report, nil))))
	store, err := control.Of(client)
	if err != nil {
		t.Fatal(err)
	}
	release(t, acquire(t, lock(t, client, "x")))
	f, all := calls()
	r := reconcile(t, client, SourceReleasedLocks(""), f, InMode(ModeLeader))
	call := comes(t, "a call", all)
	session, err := client.Session()
	if err != nil {
		t.Fatal(err)
	}
	if err := store.ExpireSession(limited(t), session.ID); err != nil {
		t.Fatal(err)
	}
	comes(t, "the end of its context", call.ctx.Done())
	wants(t, context.Cause(call.ctx), ErrFenced)
	wants(t, call.work.Check(), ErrFenced)
	call.returns(nil, errors.New("would be tried again"))
	again := comesFor(t, all, call.work.Key(), 1)
	if again.work.Token() <= call.work.Token() {
		t.Errorf("%d after %d", again.work.Token(), call.work.Token())
	}
	again.returns(nil, nil)
	if stats := idle(t, r); stats.Fenced != 1 || !report.has("does not count") {
		t.Errorf("%+v, %s", stats, report.text.String())
	}
	closeReconciler(t, r)
}

func TestAFailingFunctionIsCalledAsOftenAsTheBackOffSays(t *testing.T) {
	if testing.Short() {
		t.Skip("what is counted does not depend on how C is called")
	}
	client := connect(t, memory(t)+"?coord.clock=manual")
	store, err := control.Of(client)
	if err != nil {
		t.Fatal(err)
	}
	var failed atomic.Int64
	r := reconcile(t, client, SourceManual(), func(_ context.Context, work *Work) (Outcome, error) {
		return nil, errors.New("always")
	})
	add(t, r, "k")
	settled := func() {
		becomes(t, "it waits", func() bool {
			stats := statsOf(t, r)
			failed.Store(stats.Errors)
			return stats.Delayed == 1
		})
	}
	settled()
	for range 100 {
		if err := store.Advance(limited(t), 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		settled()
	}
	// 5·(2ⁿ-1) ms lie before the n-th retry, and up to a quarter more.
	if calls := failed.Load(); calls != 8 {
		t.Errorf("%d calls in a second", calls)
	}
	closeReconciler(t, r)
}

func TestManyKeysAreRunByManyWorkers(t *testing.T) {
	client := connect(t, memory(t))
	const keys = 50
	rounds := 20
	if testing.Short() {
		rounds = 1 // there is a collection before each call
	}
	var running [keys]atomic.Int32
	var added, seen [keys]atomic.Int64
	r := reconcile(t, client, SourceManual(), func(_ context.Context, work *Work) (Outcome, error) {
		key := work.Key().(int64)
		if running[key].Add(1) != 1 {
			t.Error("two runs of one key at once")
		}
		defer running[key].Add(-1)
		// A run sees whatever was there before it began.
		seen[key].Store(added[key].Load())
		if (key+int64(work.Attempt()))%7 == 0 && work.Attempt() < 3 {
			return nil, errors.New("sometimes")
		}
		return nil, nil
	}, Workers(8), Backoff(time.Millisecond, 4*time.Millisecond))
	var all sync.WaitGroup
	for range 4 {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := range keys * rounds {
				key := i % keys
				added[key].Add(1)
				if _, err := r.Add(key); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	all.Wait()
	idle(t, r)
	for key := range keys {
		if seen[key].Load() != int64(4*rounds) {
			t.Errorf("key %d has seen %d of %d", key, seen[key].Load(), 4*rounds)
		}
	}
	closeReconciler(t, r)
}

func TestNothingIsLeftOfReconcilers(t *testing.T) {
	use := func() {
		client, err := Connect(limited(t), memory(t))
		if err != nil {
			t.Fatal(err)
		}
		r := reconcile(t, client, SourceManual(), func(ctx context.Context, work *Work) (Outcome, error) {
			if work.Key() == "waits" {
				<-ctx.Done()
			}
			return nil, nil
		}, Workers(4))
		for _, key := range []string{"a", "b", "waits"} {
			add(t, r, key)
		}
		becomes(t, "they run", func() bool { return statsOf(t, r).Runs == 2 })
		closeReconciler(t, r)
		left := reconcile(t, client, SourceObserver("s"), func(context.Context, *Work) (Outcome, error) { return nil, nil })
		if err := client.Close(limited(t)); err != nil { // ends what was left
			t.Fatal(err)
		}
		comes(t, "its end", left.Done())
	}
	use() // what is made once per process stays
	settled := func() {
		becomes(t, "the library's threads end", func() bool { runtime.GC(); return ccoord.ThreadCount() == 0 })
	}
	settled()
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	for range 3 {
		use()
	}
	settled()
	becomes(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	becomes(t, "the descriptors are closed", func() bool { return descriptors(t) <= files })
}

func TestBadInputOfReconcilers(t *testing.T) {
	client := connect(t, memory(t))
	f := func(context.Context, *Work) (Outcome, error) { return nil, nil }
	begin := func(name string, source Source, options ...ReconcileOption) error {
		_, err := client.Reconcile(context.Background(), name, source, f, options...)
		return err
	}
	for _, name := range []string{"", "/", "a b", "a/b/c/d", "\xff", strings.Repeat("a", 254)} {
		wants(t, begin(name, SourceManual()), ErrInvalidArgument)
	}
	for _, source := range []Source{
		{}, SourceObserver("a b"), SourceObserver("\xff"), SourceReleasedLocks("\xff"), SourceReleasedLocks("a b"), SourceReleasedLocks("*"),
		SourceTable("", nil), SourceTable("\xff", nil), SourceTable("t", 1), SourceTable("t", bson.M{"$and": 1}),
	} {
		wants(t, begin("r", source), ErrInvalidArgument)
	}
	for _, option := range []ReconcileOption{
		Workers(0), Workers(-1), Workers(10_001), InMode("most"), InMode(ModeLeader), Shards(8), Rate(0, 1), Rate(-1, 1),
		Rate(1, 0), Backoff(0, 1), Backoff(time.Second, time.Millisecond), Resync(time.Millisecond), MoveGrace(-1),
	} {
		wants(t, begin("r", SourceManual(), option), ErrInvalidArgument)
	}
	_, err := client.Reconcile(context.Background(), "r", SourceManual(), nil)
	wants(t, err, ErrInvalidArgument)
	r := reconcile(t, client, SourceManual(), f)
	for _, key := range []any{1.5, nil, true, []int{1}, make(chan int), map[string]any{"$a": 1}, strings.Repeat("k", 2000)} {
		_, err := r.Add(key)
		wants(t, err, ErrInvalidArgument)
		_, err = r.AddAfter(key, 0)
		wants(t, err, ErrInvalidArgument)
		_, err = r.Cancel(key)
		wants(t, err, ErrInvalidArgument)
		wants(t, r.WaitUntilReconciled(limited(t), key, 0), ErrInvalidArgument)
	}
	_, err = r.AddAfter("k", -1)
	wants(t, err, ErrInvalidArgument)
	if Terminal(nil) != nil || ErrorAfter(nil, 1) != nil {
		t.Error("an error of nothing")
	}
	closeReconciler(t, r)
}

func TestEveryCounterOfAReconcilerHasItsPlace(t *testing.T) {
	names := []string{
		"ready", "delayed", "in_flight", "parked", "oldest_us", "longest_run_us", "runs", "errors", "retries", "terminal",
		"requeued", "fenced", "dropped", "run_time_us", "longest_ended_run_us", "queue_time_us", "synced", "paused",
	}
	for stat, name := range names {
		if ccoord.ReconcilerStatName(stat) != name {
			t.Errorf("%d is %q, not %q", stat, ccoord.ReconcilerStatName(stat), name)
		}
	}
	if ccoord.ReconcilerStatCount != len(names) {
		t.Errorf("there are %d counters", ccoord.ReconcilerStatCount)
	}
}
