// What calls without I/O, and a reconciler's queue, cost a program in Go. The lines are those of rust/main.rs.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"coord"
)

const workers = 8

type program struct {
	lock       *coord.Lock
	reconciler *coord.Reconciler
	// left is how many keys are still to be run.
	left atomic.Int64
	// called is when the function was called for the last of them.
	called chan time.Time
}

func open(ctx context.Context) (*program, error) {
	client, err := coord.Connect(ctx, "memory:")
	if err != nil {
		return nil, err
	}
	p := &program{called: make(chan time.Time, 1)}
	if p.lock, err = client.Lock("bench"); err != nil {
		return nil, err
	}
	p.reconciler, err = client.Reconcile(ctx, "bench", coord.SourceManual(), p.call, coord.Workers(workers))
	return p, err
}

func (p *program) call(context.Context, *coord.Work) (coord.Outcome, error) {
	if p.left.Add(-1) == 0 {
		p.called <- time.Now()
	}
	return nil, nil
}

// run is how long it takes from before the first of so many keys is added until the function is called for the last.
func (p *program) run(count int) (time.Duration, error) {
	p.left.Store(int64(count))
	begun := time.Now()
	for key := range count {
		if _, err := p.reconciler.Add(key); err != nil {
			return 0, err
		}
	}
	return (<-p.called).Sub(begun), nil
}

func (p *program) obey(ctx context.Context, what string, numbers []int) ([]time.Duration, error) {
	switch {
	case what == "checks" && len(numbers) == 2:
		held, err := p.lock.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		times, err := batched(numbers[0], numbers[1], held.Check)
		if err != nil {
			return nil, err
		}
		return times, held.Release(ctx)
	case what == "pairs" && len(numbers) == 2:
		return batched(numbers[0], numbers[1], func() error {
			held, err := p.lock.Acquire(ctx)
			if err != nil {
				return err
			}
			return held.Release(ctx)
		})
	case what == "keys" && len(numbers) == 1:
		took, err := p.run(numbers[0])
		return []time.Duration{took}, err
	case what == "idle" && len(numbers) == 2:
		times := make([]time.Duration, numbers[0])
		for i := range times {
			time.Sleep(time.Duration(numbers[1]) * time.Microsecond)
			var err error
			if times[i], err = p.run(1); err != nil {
				return nil, err
			}
		}
		return times, nil
	}
	return nil, fmt.Errorf("'%s' is nothing that this program does", what)
}

func batched(batches, calls int, call func() error) ([]time.Duration, error) {
	times := make([]time.Duration, batches)
	for i := range times {
		begun := time.Now()
		for range calls {
			if err := call(); err != nil {
				return nil, err
			}
		}
		times[i] = time.Since(begun)
	}
	return times, nil
}

func answer(ctx context.Context, p *program, line string) (string, error) {
	what, rest, _ := strings.Cut(line, " ")
	var numbers []int
	for _, word := range strings.Fields(rest) {
		number, err := strconv.Atoi(word)
		if err != nil {
			return "", err
		}
		numbers = append(numbers, number)
	}
	times, err := p.obey(ctx, what, numbers)
	if err != nil {
		return "", err
	}
	for _, time := range times {
		what += " " + strconv.FormatInt(time.Nanoseconds(), 10)
	}
	return what, nil
}

func main() {
	ctx := context.Background()
	p, err := open(ctx)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		said, err := answer(ctx, p, lines.Text())
		if err != nil {
			said = "error " + err.Error()
		}
		fmt.Println(said)
	}
}
