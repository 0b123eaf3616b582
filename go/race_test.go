package coord

import (
	"context"
	"sync"
	"testing"
)

// rounds is fewer where each takes longer: on a disk, or with a collection before each call.
func rounds(full int) int {
	if testing.Short() {
		return max(1, full/100)
	}
	return full
}

func TestCancelsThatRaceGrantsLeaveNothingHeld(t *testing.T) {
	for _, store := range []struct {
		name   string
		url    func(*testing.T) string
		rounds int
	}{{"memory", memory, 10_000}, {"sqlite", sqlite, 300}, {"mongodb", mongodb, 100}} {
		t.Run(store.name, func(t *testing.T) {
			url := store.url(t)
			client, other := connect(t, url), connect(t, url)
			mine, theirs := lock(t, client, "a"), lock(t, other, "a")
			granted, cancelled := 0, 0
			for range rounds(store.rounds) {
				first := acquire(t, mine)
				ctx, cancel := context.WithCancel(context.Background())
				outcome := make(chan error, 1)
				go func() {
					second, err := theirs.Acquire(ctx)
					if err == nil {
						err = second.Release(context.Background())
					}
					outcome <- err
				}()
				var both sync.WaitGroup
				both.Add(2)
				go func() { defer both.Done(); release(t, first) }()
				go func() { defer both.Done(); cancel() }()
				both.Wait()
				if err := comes(t, "the outcome of the second acquire", outcome); err == nil {
					granted++
				} else {
					wants(t, err, ErrCancelled)
					cancelled++
				}
			}
			t.Logf("%d granted, %d cancelled", granted, cancelled)
			release(t, acquire(t, mine))
			info, err := client.LockInfo(limited(t), "a")
			if err != nil || info.Holder != nil || len(info.Waiters) != 0 {
				t.Errorf("%+v, %v", info, err)
			}
		})
	}
}

// Two clients of four goroutines count up a number that only the lock protects, which the race detector sees.
func TestOneHoldsAtATime(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		clients := []*Client{connect(t, url), connect(t, url)}
		count, token := 0, int64(0)
		var all sync.WaitGroup
		each := max(2, rounds(20))
		for i := range 8 {
			all.Add(1)
			go func() {
				defer all.Done()
				l := lock(t, clients[i%2], "a")
				for range each {
					err := l.Do(context.Background(), func(_ context.Context, held *Held) error {
						if held.Token() <= token {
							t.Errorf("token %d follows %d", held.Token(), token)
						}
						token = held.Token()
						count++
						return held.Check()
					})
					if err != nil {
						t.Error(err)
					}
				}
			}()
		}
		all.Wait()
		if count != 8*each {
			t.Errorf("counted %d of %d", count, 8*each)
		}
	})
}

func TestReleasesAndClosesThatRace(t *testing.T) {
	url := memory(t)
	for range rounds(300) {
		client := connect(t, url)
		held := acquire(t, lock(t, client, "a"))
		var all sync.WaitGroup
		all.Add(4)
		go func() { defer all.Done(); _ = held.Release(context.Background()) }()
		go func() { defer all.Done(); _ = held.Release(context.Background()) }()
		go func() { defer all.Done(); comes(t, "the end of the hold", held.Context().Done()) }()
		go func() {
			defer all.Done()
			if err := client.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		all.Wait()
	}
	release(t, acquire(t, lock(t, connect(t, url), "a")))
}
