package coord

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"
)

func TestBadNamesAreRefused(t *testing.T) {
	client := connect(t, memory(t))
	for _, name := range []string{
		"", "/", "a b", "a/b/c/d", "a//b", "käse", "a\x00b", "\xff\xfe", strings.Repeat("a", 254), strings.Repeat("a", 1<<20),
	} {
		_, err := client.Lock(name)
		wants(t, err, ErrInvalidArgument)
		_, err = client.LockInfo(limited(t), name)
		wants(t, err, ErrInvalidArgument)
		wants(t, client.BreakLock(limited(t), name, 1, false), ErrInvalidArgument)
	}
	_, err := client.Locks(limited(t), "\xff")
	wants(t, err, ErrInvalidArgument)
	_, err = Sanitize("\xff")
	wants(t, err, ErrInvalidArgument)
}

func TestBadURLsAndOptionsAreRefused(t *testing.T) {
	for _, url := range []string{"x", "bogus:", "sqlite:", "memory:\xff", "memory:?coord.bogus=1", "mongodb://", strings.Repeat("x", 1<<16)} {
		_, err := Connect(limited(t), url)
		wants(t, err, ErrInvalidArgument)
	}
	for name, option := range map[string]Option{
		"unknown":        WithOption("bogus", "1"),
		"empty":          WithOption("", ""),
		"binary":         WithOption("name", "\xff"),
		"ttl of 0":       WithTTL(0),
		"negative ttl":   WithTTL(-time.Second),
		"endless ttl":    WithTTL(math.MaxInt64),
		"empty label":    WithLabel("", "x"),
		"long label":     WithLabel("k", strings.Repeat("x", 257)),
		"long name":      WithName(strings.Repeat("x", 257)),
		"bad scope":      WithScope("a/b"),
		"bad namespace":  WithNamespace("a b"),
		"queue too long": WithOption("max_queue", "1001"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Connect(limited(t), memory(t), option)
			wants(t, err, ErrInvalidArgument)
		})
	}
	connect(t, memory(t), nil, WithLogger(nil), WithTTL(2500*time.Millisecond))
}

func TestTheURLComesFromTheEnvironment(t *testing.T) {
	t.Setenv("COORD_URL", memory(t)+"?coord.name=environment")
	session, err := connect(t, "").Session()
	if err != nil || session.Name != "environment" {
		t.Errorf("%+v, %v", session, err)
	}
}

func TestBadArgumentsOfAHold(t *testing.T) {
	client := connect(t, memory(t))
	l := lock(t, client, "a")
	wants(t, l.Do(limited(t), nil), ErrInvalidArgument)
	held := acquire(t, l)
	for _, d := range []time.Duration{-time.Second, time.Hour, math.MaxInt64, math.MinInt64} {
		wants(t, held.Ensure(limited(t), d), ErrInvalidArgument)
	}
	wants(t, client.BreakLock(limited(t), "a", 0, true), ErrConflict)
	wants(t, client.BreakLock(limited(t), "a", -1, false), ErrConflict)
	if err := held.Check(); err != nil {
		t.Error(err)
	}
	release(t, held)
}

func TestAContextThatHasEndedBeginsNothing(t *testing.T) {
	client := connect(t, memory(t))
	l := lock(t, client, "a")
	held := acquire(t, l)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Connect(ended, memory(t))
	wants(t, err, ErrCancelled)
	_, err = client.OpenSession(ended)
	wants(t, err, ErrCancelled)
	_, err = l.Acquire(ended)
	wants(t, err, ErrCancelled)
	wants(t, l.Do(ended, func(context.Context, *Held) error { return nil }), ErrCancelled)
	_, err = client.Locks(ended, "")
	wants(t, err, ErrCancelled)
	wants(t, client.Health(ended), ErrCancelled)
	wants(t, held.Ensure(ended, time.Second), ErrCancelled)
	// A release is begun all the same: nobody can do it afterwards.
	wants(t, held.Release(ended), ErrCancelled)
	wants(t, held.Check(), ErrNotHeld)
	release(t, acquire(t, l))
	// So is the end of a client.
	_ = client.Close(ended)
	becomes(t, "the client refuses work", func() bool {
		_, err := l.TryAcquire(limited(t))
		return CodeOf(err) == ErrClosed
	})
}

func TestZeroValuesAreClosed(t *testing.T) {
	var client Client
	_, err := client.Lock("a")
	wants(t, err, ErrClosed)
	_, err = client.Session()
	wants(t, err, ErrClosed)
	_, err = client.Stats()
	wants(t, err, ErrClosed)
	_, err = client.OpenSession(limited(t))
	wants(t, err, ErrClosed)
	_, err = client.Locks(limited(t), "")
	wants(t, err, ErrClosed)
	wants(t, client.Health(limited(t)), ErrClosed)
	if err := client.Close(limited(t)); err != nil {
		t.Error(err)
	}
	if err := (*Client)(nil).Close(limited(t)); err != nil {
		t.Error(err)
	}
	var l Lock
	_, err = l.Acquire(limited(t))
	wants(t, err, ErrClosed)
	_, err = l.TryAcquire(limited(t))
	wants(t, err, ErrClosed)
	var held Held
	if held.Check() == nil || held.Remaining() != 0 || held.Token() != 0 {
		t.Error("the zero hold is held")
	}
	comes(t, "the end of the zero hold", held.Context().Done())
	if held.Release(limited(t)) == nil {
		t.Error("the zero hold was released")
	}
}
