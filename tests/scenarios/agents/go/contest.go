package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"coord"
)

// rounds takes the lock this many times, and each time counts one up in a file, in two steps that another one between
// them would spoil.
func rounds(ctx context.Context, lock *coord.Lock, count int, file string) error {
	for range count {
		held, err := lock.Acquire(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(countUp(held, file), held.Release(ctx)); err != nil {
			return err
		}
	}
	return nil
}

func countUp(held *coord.Held, file string) error {
	var count, last int64
	if text, err := os.ReadFile(file); err == nil {
		if _, err := fmt.Sscan(string(text), &count, &last); err != nil {
			return fmt.Errorf("the file is not two numbers, so two have written at once: %q", text)
		}
	}
	runtime.Gosched()
	if last >= held.Token() {
		return fmt.Errorf("token %d has written before token %d", last, held.Token())
	}
	if err := held.Check(); err != nil {
		return err
	}
	return os.WriteFile(file, fmt.Appendf(nil, "%d %d\n", count+1, held.Token()), 0o600)
}

// races lets a release and a cancel of the next waiter happen at the same time, and returns how often the waiter was
// granted the lock.
func races(ctx context.Context, client *coord.Client, lock *coord.Lock, count int) (granted int, err error) {
	for round := range count {
		won, err := race(ctx, client, lock, round)
		if err != nil {
			return granted, err
		}
		if won {
			granted++
		}
	}
	return granted, nil
}

func race(ctx context.Context, client *coord.Client, lock *coord.Lock, round int) (won bool, err error) {
	first, err := lock.Acquire(ctx)
	if err != nil {
		return false, err
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	waited := make(chan error, 1)
	var second *coord.Held
	go func() {
		held, err := lock.Acquire(waiting)
		second = held
		waited <- err
	}()
	for {
		info, err := client.LockInfo(ctx, lock.Name())
		if err != nil {
			return false, err
		}
		if len(info.Waiters) > 0 {
			break
		}
		runtime.Gosched()
	}
	released := make(chan error, 1)
	go func() { released <- first.Release(ctx) }()
	for range round % 4 {
		runtime.Gosched()
	}
	cancel()
	err = <-waited
	if errors.Is(err, coord.ErrCancelled) {
		return false, <-released
	}
	if err != nil {
		return false, err
	}
	return true, errors.Join(<-released, second.Release(ctx))
}
