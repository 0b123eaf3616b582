// The worker in Go: worker URL HISTORY SEED TTL_MS. Takes, holds, checks and gives back locks and terms, and watches
// elections, until its input ends. What it writes down is told in tests/faults/src/history.rs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"coord"
)

const (
	locks     = 3
	elections = 2
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: worker URL HISTORY SEED TTL_MS")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(url, history, seedText, ttlText string) error {
	seed, err := strconv.ParseUint(seedText, 10, 64)
	if err != nil {
		return err
	}
	ttl, err := strconv.Atoi(ttlText)
	if err != nil {
		return err
	}
	w := &worker{
		folder: filepath.Dir(history),
		random: rand.New(rand.NewPCG(seed, 0)),
		ttl:    time.Duration(ttl) * time.Millisecond,
	}
	if w.log, err = open(history); err != nil {
		return err
	}
	// Beside its own history, whose last line says whether it holds something.
	watched, err := open(strings.TrimSuffix(history, ".jsonl") + ".watch.jsonl")
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		w.ended.Store(true)
	}()
	if w.client = connect(url, &w.ended); w.client == nil {
		return nil
	}
	var watchers sync.WaitGroup
	for n := range elections {
		watchers.Add(1)
		go func() {
			defer watchers.Done()
			watch(w.client, fmt.Sprintf("e%d", n), watched)
		}()
	}
	for !w.ended.Load() {
		w.attempt()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := w.client.Close(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "closing:", err)
	}
	watchers.Wait()
	return nil
}

func connect(url string, ended *atomic.Bool) *coord.Client {
	for !ended.Load() {
		client, err := coord.Connect(context.Background(), url)
		if err == nil {
			return client
		}
		fmt.Fprintln(os.Stderr, "connecting again:", err)
		// The store is away: not at once again.
		time.Sleep(200 * time.Millisecond)
	}
	return nil
}

// watch writes down what a watch of an election is told, until the client is closed.
func watch(client *coord.Client, name string, log *history) {
	for {
		err := follow(client, name, log)
		if err == nil || errors.Is(err, coord.ErrClosed) {
			return
		}
		// The store is away: not at once again.
		time.Sleep(100 * time.Millisecond)
	}
}

func follow(client *coord.Client, name string, log *history) error {
	election, err := client.Election(name)
	if err != nil {
		return err
	}
	stream, err := election.Observe(context.Background())
	if err != nil {
		return err
	}
	defer stream.Close()
	for event, err := range stream.Events(context.Background()) {
		if err != nil {
			return err
		}
		token := "null"
		if event.Leader != nil {
			token = strconv.FormatInt(event.Leader.Token, 10)
		}
		log.note(now(), "watched", name, `"token":`+token)
	}
	return nil
}

type worker struct {
	client   *coord.Client
	log      *history
	folder   string
	random   *rand.Rand
	ttl      time.Duration
	ended    atomic.Bool
	attempts int
}

// claim is a hold of a lock, or a term.
type claim interface {
	Token() int64
	Check() error
}

func (w *worker) chance(probability float64) bool { return w.random.Float64() < probability }

func (w *worker) between(shortest, longest time.Duration) time.Duration {
	return shortest + time.Duration(w.random.Int64N(int64(longest-shortest)+1))
}

func (w *worker) attempt() {
	number := w.random.IntN(locks + elections)
	name := fmt.Sprintf("l%d", number)
	if number >= locks {
		name = fmt.Sprintf("e%d", number-locks)
	}
	w.attempts++
	wait := w.chance(0.8)
	var patience time.Duration
	ctx := context.Background()
	if wait {
		patience = w.between(20*time.Millisecond, w.ttl*4)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	w.log.note(now(), "attempt", name,
		fmt.Sprintf(`"n":%d,"wait":%t,"patience_ms":%d`, w.attempts, wait, patience.Milliseconds()))
	held, err := w.take(ctx, name, wait)
	if err != nil {
		code := coord.CodeOf(err).String()
		switch {
		case errors.Is(err, coord.ErrContended):
			code = "Contended"
		case errors.Is(err, coord.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
			code = "Timeout"
		}
		rest := fmt.Sprintf(`"n":%d,"code":%q`, w.attempts, code)
		var failure *coord.Error
		if errors.As(err, &failure) && failure.Holder != nil {
			rest += fmt.Sprintf(`,"holder":%d`, failure.Holder.Token)
		}
		w.log.note(now(), "refused", name, rest)
		// So that who was refused does not keep the others from their turns.
		time.Sleep(w.between(time.Millisecond, 200*time.Millisecond))
		return
	}
	w.log.note(now(), "granted", name, fmt.Sprintf(`"n":%d,"token":%d`, w.attempts, held.Token()))
	w.hold(name, held)
}

func (w *worker) take(ctx context.Context, name string, wait bool) (claim, error) {
	if strings.HasPrefix(name, "l") {
		lock, err := w.client.Lock(name)
		if err != nil {
			return nil, err
		}
		if wait {
			return lock.Acquire(ctx)
		}
		return lock.TryAcquire(ctx)
	}
	election, err := w.client.Election(name)
	if err != nil {
		return nil, err
	}
	if wait {
		return election.Campaign(ctx, "go")
	}
	return election.TryCampaign(ctx, "go")
}

func (w *worker) hold(name string, held claim) {
	token := held.Token()
	// Only holds that are comparable with the ttl can overlap.
	longest := 50 * time.Millisecond
	if w.chance(0.6) {
		longest = w.ttl * 6 / 5
	}
	until := now() + w.between(0, longest).Nanoseconds()
	for {
		before := now()
		if held.Check() != nil {
			w.log.note(now(), "lost", name, fmt.Sprintf(`"token":%d`, token))
			break
		}
		w.log.note(before, "ok", name, fmt.Sprintf(`"token":%d`, token))
		if before >= until || w.ended.Load() {
			break
		}
		if w.chance(0.3) {
			w.writeResource(name, token)
		}
		// The hold's length is the point: it is checked now and then until it has lasted so long.
		time.Sleep(w.between(time.Millisecond, 20*time.Millisecond))
	}
	clean := giveBack(held) == nil
	w.log.note(now(), "released", name, fmt.Sprintf(`"token":%d,"clean":%t`, token, clean))
}

func giveBack(held claim) error {
	switch held := held.(type) {
	case *coord.Held:
		return held.Release(context.Background())
	case *coord.Term:
		return held.Resign(context.Background())
	}
	return errors.New("neither a hold nor a term")
}
