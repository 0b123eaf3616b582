package coord

import (
	"context"
	"iter"

	"coord/internal/ccoord"
)

// next waits for one of the things that come one after another. When ctx ends first, none of them is lost: one that
// comes in that moment is returned.
func next[E any](ctx context.Context, core *core, op string, begin begin, take func(ccoord.Event) (E, *ccoord.Error)) (E, error) {
	var none E
	event, err := core.pump.await(ctx, op, false, begin)
	if err != nil {
		return none, err
	}
	defer event.Destroy()
	told, failed := take(event)
	if failed != nil {
		return none, newError(op, failed)
	}
	return told, nil
}

// feed is what comes one after another, for a range loop. It ends when the source is closed, and with an error when
// ctx ends or the source fails.
func feed[E any](ctx context.Context, next func(context.Context) (E, error)) iter.Seq2[E, error] {
	return func(yield func(E, error) bool) {
		for {
			told, err := next(ctx)
			if CodeOf(err) == ErrClosed {
				return
			}
			if !yield(told, err) || err != nil {
				return
			}
		}
	}
}
