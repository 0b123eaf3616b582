package coord

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"coord/internal/ccoord"
)

// pump brings the outcomes of a client's operations to those who wait for them. Its one goroutine is parked in Go's
// network poller on the queue's descriptor, so waiting operations cost no thread.
//
// Every operation that was started ends with exactly one event, also after a cancel and a close. So a waiter always
// takes its event, and nothing that an event carries can get lost.
type pump struct {
	queue ccoord.Queue
	file  *os.File
	// ended is closed when the goroutine is gone and the queue destroyed.
	ended chan struct{}
	// atEnd is called before that, when no operation can begin any more.
	atEnd func()

	mu       sync.Mutex
	lastTag  uint64
	waiting  map[uint64]func(ccoord.Event)
	draining bool
	stopped  bool
}

func newPump(atEnd func()) (*pump, error) {
	queue, failed := ccoord.NewQueue()
	if failed != nil {
		return nil, newError("make a queue", failed)
	}
	file, err := pollable(queue.FD())
	if err != nil {
		queue.Destroy()
		return nil, &Error{Code: ErrUnknown, Op: "watch the queue", Message: err.Error()}
	}
	p := &pump{
		queue: queue, file: file, ended: make(chan struct{}), atEnd: atEnd, waiting: map[uint64]func(ccoord.Event){},
	}
	go p.run()
	return p, nil
}

// pollable makes a file of our own from the library's descriptor, which is not ours to close.
func pollable(fd int) (*os.File, error) {
	own, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return nil, fmt.Errorf("the descriptor cannot be duplicated: %w", errno)
	}
	return os.NewFile(own, "coord queue"), nil
}

// begin starts one operation of the library.
type begin func(ccoord.Report) (ccoord.Op, *ccoord.Error)

// start begins an operation whose event goes to done, on the pump's goroutine; done owns the event and must not wait.
func (p *pump) start(done func(ccoord.Event), begin begin) *ccoord.Error {
	_, _, err := p.register(false, false, done, begin)
	return err
}

// startLast begins the operation with which a client ends: the pump ends with the last event that is still to come.
func (p *pump) startLast(done func(ccoord.Event), begin begin) *ccoord.Error {
	_, _, err := p.register(true, false, done, begin)
	return err
}

func (p *pump) register(last, cancellable bool, done func(ccoord.Event), begin begin) (ccoord.Op, uint64, *ccoord.Error) {
	p.mu.Lock()
	if p.stopped {
		p.mu.Unlock()
		return ccoord.Op{}, 0, &ccoord.Error{Code: int32(ErrClosed), Message: "the client is closed"}
	}
	// Together with the tag: the pump must not find that nobody waits before the last one does.
	p.draining = p.draining || last
	p.lastTag++
	tag := p.lastTag
	p.waiting[tag] = done
	p.mu.Unlock()
	op, err := begin(ccoord.Report{Queue: p.queue, Tag: tag, Cancellable: cancellable})
	if err != nil {
		p.forget(tag)
	}
	return op, tag, err
}

// hold keeps the pump from ending until letGo is called, as an operation does whose event is still to come.
func (p *pump) hold() (letGo func(), failed *ccoord.Error) {
	nothing := func(ccoord.Report) (ccoord.Op, *ccoord.Error) { return ccoord.Op{}, nil }
	_, tag, failed := p.register(false, false, ccoord.Event.Destroy, nothing)
	return func() { p.forget(tag) }, failed
}

// forget ends the wait for an event that does not come to the queue.
func (p *pump) forget(tag uint64) {
	p.mu.Lock()
	delete(p.waiting, tag)
	// The last event may have come while this one was waited for, and no other wakes the pump.
	idle := p.draining && len(p.waiting) == 0
	p.mu.Unlock()
	if idle {
		p.stop()
	}
}

// await starts an operation and waits for its event, also when ctx ends first. The caller owns the event of one that
// went well. What a cancelled operation was granted all the same is given back.
func (p *pump) await(ctx context.Context, op string, grants bool, begin begin) (ccoord.Event, error) {
	if ctx.Err() != nil {
		return ccoord.Event{}, interrupted(ctx, op, "was not begun")
	}
	outcome := make(chan ccoord.Event, 1)
	handle, tag, failed := p.register(false, true, func(event ccoord.Event) { outcome <- event }, begin)
	if failed != nil {
		return ccoord.Event{}, newError(op, failed)
	}
	defer handle.Destroy()
	event, ended := handle.TakeEvent()
	if ended {
		p.forget(tag)
	} else {
		select {
		case event = <-outcome:
		case <-ctx.Done():
			handle.Cancel()
			event = <-outcome
			if grants && Code(event.Code) == 0 {
				event.Destroy()
				return ccoord.Event{}, interrupted(ctx, op, "was given up")
			}
		}
	}
	failed = event.Err()
	if failed == nil {
		return event, nil
	}
	event.Destroy()
	switch Code(failed.Code) {
	case ErrCancelled:
		if ctx.Err() != nil {
			return ccoord.Event{}, interrupted(ctx, op, "was given up")
		}
	case ErrTimeout:
		// What was given up earlier had a time limit of its own.
		if deadline, limited := ctx.Deadline(); limited && time.Until(deadline) <= time.Millisecond {
			e := newError(op, failed)
			e.blame(ctx, context.DeadlineExceeded)
			return ccoord.Event{}, e
		}
	}
	return ccoord.Event{}, newError(op, failed)
}

// finish is await for operations that give nothing.
func (p *pump) finish(ctx context.Context, op string, begin begin) error {
	event, err := p.await(ctx, op, false, begin)
	if err == nil {
		event.Destroy()
	}
	return err
}

// finishAnyway is finish for what nobody can do afterwards: it is begun also when ctx has ended.
func (p *pump) finishAnyway(
	ctx context.Context, op string, begin func(timeoutMillis int64, to ccoord.Report) (ccoord.Op, *ccoord.Error),
) error {
	err := p.finish(ctx, op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) { return begin(timeLimit(ctx), to) })
	if ctx.Err() != nil {
		// Once more does no harm where it was begun before.
		_ = p.start(ccoord.Event.Destroy, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) { return begin(-1, to) })
	}
	return err
}

// timeLimit is the context's deadline in the library's terms: milliseconds from now, -1 for none. It is never 0, which
// would not wait at all, and rounded down, so that the library's own message comes first.
func timeLimit(ctx context.Context) int64 {
	deadline, limited := ctx.Deadline()
	if !limited {
		return -1
	}
	return max(1, time.Until(deadline).Milliseconds())
}

// stop ends the pump now. Who still waits is told that the client is closed.
func (p *pump) stop() { _ = p.file.Close() }

func (p *pump) run() {
	defer p.end()
	conn, err := p.file.SyscallConn()
	if err != nil {
		return // the file was closed already
	}
	// The poller reports changes of the queue from empty to not empty, so each look takes all that is there.
	_ = conn.Read(func(uintptr) (stop bool) { return p.deliver() })
}

// deliver hands out every event that is there, and says whether that was the last.
func (p *pump) deliver() (last bool) {
	var events [64]ccoord.Event
	for {
		count := p.queue.Poll(events[:])
		for _, event := range events[:count] {
			p.take(event.Tag)(event)
		}
		if count < len(events) {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = p.draining && len(p.waiting) == 0
	return p.stopped
}

func (p *pump) take(tag uint64) func(ccoord.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	done, ok := p.waiting[tag]
	if !ok {
		return ccoord.Event.Destroy
	}
	delete(p.waiting, tag)
	return done
}

func (p *pump) end() {
	p.mu.Lock()
	p.stopped = true
	left := p.waiting
	p.waiting = nil
	p.mu.Unlock()
	_ = p.file.Close()
	p.queue.Destroy()
	for _, done := range left {
		done(ccoord.Event{Code: int32(ErrClosed)})
	}
	p.atEnd()
	close(p.ended)
}
