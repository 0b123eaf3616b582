package coord

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"coord/internal/ccoord"
)

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// use does a little of everything with a client of its own.
func use(t *testing.T, url string) {
	t.Helper()
	client, err := Connect(limited(t), url)
	if err != nil {
		t.Fatal(err)
	}
	second, err := client.OpenSession(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	l := lock(t, client, "a")
	held := acquire(t, l)
	_ = held.Context()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := lock(t, second, "a").Acquire(ctx)
		ended <- err
	}()
	waiting(t, client, "a", 1)
	cancel()
	wants(t, comes(t, "the end of the wait", ended), ErrCancelled)
	_, err = l.TryAcquire(limited(t))
	wants(t, err, ErrContended)
	release(t, held)
	left := acquire(t, l) // for Close to release
	for _, c := range []*Client{second, client} {
		if err := c.Close(limited(t)); err != nil {
			t.Fatal(err)
		}
	}
	runtime.KeepAlive(left)
}

func TestNothingIsLeft(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		use(t, url) // what is made once per process stays
		settled := func() {
			t.Helper()
			becomes(t, "the library's threads end", func() bool { runtime.GC(); return ccoord.ThreadCount() == 0 })
		}
		settled()
		goroutines, files := runtime.NumGoroutine(), descriptors(t)
		for range 5 {
			use(t, url)
		}
		settled()
		becomes(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
		becomes(t, "the descriptors are closed", func() bool { return descriptors(t) <= files })
	})
}

// A logger that tests can read while it is written.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) has(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(r.text.String(), text)
}

func TestAForgottenHoldIsReleasedAndReported(t *testing.T) {
	url := memory(t)
	var report record
	client := connect(t, url, WithLogger(slog.New(slog.NewTextHandler(&report, nil))))
	func() { acquire(t, lock(t, client, "a")) }()
	becomes(t, "the report", func() bool { runtime.GC(); return report.has("without Release") && report.has("default/default/a") })
	release(t, acquire(t, lock(t, client, "a")))
}

func TestAContextInUseKeepsTheHold(t *testing.T) {
	client := connect(t, memory(t))
	child, cancel := func() (context.Context, context.CancelFunc) {
		return context.WithCancel(acquire(t, lock(t, client, "a")).Context())
	}()
	defer cancel()
	for range 10 {
		runtime.GC()
		_, err := lock(t, client, "a").TryAcquire(limited(t))
		wants(t, err, ErrContended)
	}
	if child.Err() != nil {
		t.Error(context.Cause(child))
	}
	runtime.KeepAlive(child)
}

func TestAForgottenClientIsClosedAndReported(t *testing.T) {
	url := memory(t)
	var report record
	func() {
		client, err := Connect(limited(t), url, WithLogger(slog.New(slog.NewTextHandler(&report, nil))))
		if err != nil {
			t.Fatal(err)
		}
		_ = acquire(t, lock(t, client, "a")).Context()
	}()
	becomes(t, "the report", func() bool { runtime.GC(); return report.has("without Close") })
	release(t, acquire(t, lock(t, connect(t, url), "a")))
}

func TestWhatIsEndedIsNotReported(t *testing.T) {
	var report record
	logger := slog.New(slog.NewTextHandler(&report, nil))
	func() {
		client := connect(t, memory(t), WithLogger(logger))
		release(t, acquire(t, lock(t, client, "a")))
		left := acquire(t, lock(t, client, "b"))
		if err := client.Close(limited(t)); err != nil {
			t.Fatal(err)
		}
		runtime.KeepAlive(left)
	}()
	gone := make(chan struct{})
	func() { // collected after what was there before
		marker := new([64]byte)
		runtime.AddCleanup(marker, func(done chan struct{}) { close(done) }, gone)
	}()
	for range 3 {
		runtime.GC()
	}
	comes(t, "the collection", gone)
	if report.has("garbage-collected") {
		t.Errorf("it was reported: %s", report.text.String())
	}
}

func TestTheLogOfTheLibrary(t *testing.T) {
	// What the library and Go open once, at their first use, is not the log's.
	use(t, memory(t))
	var lines record
	handler := slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: LevelTrace})
	if err := SetLogger(slog.New(handler)); err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	use(t, memory(t))
	becomes(t, "a line", func() bool { return lines.has("target=coord") })
	if err := SetLogger(slog.New(handler)); err != nil { // replaces
		t.Fatal(err)
	}
	becomes(t, "the first log's sockets are closed", func() bool { return descriptors(t) <= before })
	for _, off := range []*slog.Logger{nil, slog.New(slog.DiscardHandler)} {
		if err := SetLogger(off); err != nil {
			t.Fatal(err)
		}
	}
	becomes(t, "all sockets of the log are closed", func() bool { return descriptors(t) <= before-2 })
}
