package coord

import (
	"context"
	"testing"
)

func benchmarkLock(b *testing.B) *Lock {
	ctx := context.Background()
	client, err := Connect(ctx, memory(nil))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Close(ctx) })
	l, err := client.Lock("a")
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func BenchmarkAcquireRelease(b *testing.B) {
	l, ctx := benchmarkLock(b), context.Background()
	for b.Loop() {
		held, err := l.Acquire(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if err := held.Release(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	held, err := benchmarkLock(b).Acquire(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	defer held.Release(context.Background())
	for b.Loop() {
		if err := held.Check(); err != nil {
			b.Fatal(err)
		}
	}
}
