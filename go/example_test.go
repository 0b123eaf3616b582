package coord_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"coord"
)

func ExampleConnect() {
	ctx := context.Background()
	client, err := coord.Connect(ctx, "memory:", coord.WithName("billing"), coord.WithTTL(5*time.Second))
	if err != nil {
		panic(err)
	}
	defer client.Close(ctx)
	session, err := client.Session()
	if err != nil {
		panic(err)
	}
	fmt.Println(session.Name, session.State, session.TTL)
	// Output: billing live 5s
}

func ExampleLock_Do() {
	ctx := context.Background()
	client, err := coord.Connect(ctx, "memory:")
	if err != nil {
		panic(err)
	}
	defer client.Close(ctx)
	lock, err := client.Lock("nightly-report")
	if err != nil {
		panic(err)
	}
	err = lock.Do(ctx, func(ctx context.Context, held *coord.Held) error {
		// ctx is cancelled when the lock is lost; check right before each effect.
		if err := held.Check(); err != nil {
			return err
		}
		fmt.Println("one process at a time:", held.Token() > 0)
		return nil
	})
	fmt.Println(err)
	// Output:
	// one process at a time: true
	// <nil>
}

func ExampleLock_TryAcquire() {
	ctx := context.Background()
	alice, err := coord.Connect(ctx, "memory:example", coord.WithName("alice"))
	if err != nil {
		panic(err)
	}
	defer alice.Close(ctx)
	bob, err := coord.Connect(ctx, "memory:example", coord.WithName("bob"))
	if err != nil {
		panic(err)
	}
	defer bob.Close(ctx)

	hers, err := alice.Lock("a")
	if err != nil {
		panic(err)
	}
	held, err := hers.Acquire(ctx)
	if err != nil {
		panic(err)
	}
	his, err := bob.Lock("a")
	if err != nil {
		panic(err)
	}
	_, err = his.TryAcquire(ctx)
	var failure *coord.Error
	if errors.Is(err, coord.ErrContended) && errors.As(err, &failure) {
		fmt.Println("held by", failure.Holder.Name)
	}
	fmt.Println(held.Release(ctx))
	// Output:
	// held by alice
	// <nil>
}

func ExampleLock_Acquire_deadline() {
	ctx := context.Background()
	client, err := coord.Connect(ctx, "memory:")
	if err != nil {
		panic(err)
	}
	defer client.Close(ctx)
	lock, err := client.Lock("a")
	if err != nil {
		panic(err)
	}
	held, err := lock.Acquire(ctx)
	if err != nil {
		panic(err)
	}
	defer held.Release(ctx)

	soon, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	_, err = lock.Acquire(soon) // a lock is not re-entrant
	fmt.Println(errors.Is(err, coord.ErrTimeout), errors.Is(err, context.DeadlineExceeded))
	// Output: true true
}

func ExampleElection_WhenElected() {
	ctx := context.Background()
	client, err := coord.Connect(ctx, "memory:")
	if err != nil {
		panic(err)
	}
	defer client.Close(ctx)
	election, err := client.Election("scheduler")
	if err != nil {
		panic(err)
	}
	led := make(chan bool)
	candidacy, err := election.WhenElected(ctx, "http://host-1:8080", func(ctx context.Context, term *coord.Term) error {
		led <- term.Check() == nil
		<-ctx.Done() // work until the term is over
		return nil
	})
	if err != nil {
		panic(err)
	}
	fmt.Println("leads:", <-led)
	fmt.Println(candidacy.Close(ctx))
	// Output:
	// leads: true
	// <nil>
}

func ExampleElection_Observe() {
	ctx := context.Background()
	client, err := coord.Connect(ctx, "memory:", coord.WithName("alice"))
	if err != nil {
		panic(err)
	}
	defer client.Close(ctx)
	election, err := client.Election("scheduler")
	if err != nil {
		panic(err)
	}
	term, err := election.Campaign(ctx, "http://host-1:8080")
	if err != nil {
		panic(err)
	}
	watch, err := election.Observe(ctx)
	if err != nil {
		panic(err)
	}
	defer watch.Close()
	for event, err := range watch.Events(ctx) {
		if err != nil {
			panic(err)
		}
		if event.Leader == nil {
			fmt.Println("nobody leads")
			break
		}
		fmt.Println(event.Leader.Name, "leads at", event.Leader.Value)
		if err := term.Resign(ctx); err != nil {
			panic(err)
		}
	}
	// Output:
	// alice leads at http://host-1:8080
	// nobody leads
}

func ExampleClient_Reconcile() {
	ctx := context.Background()
	client, err := coord.Connect(ctx, "memory:")
	if err != nil {
		panic(err)
	}
	defer client.Close(ctx)
	reconciler, err := client.Reconcile(ctx, "mailboxes", coord.SourceManual(),
		func(ctx context.Context, work *coord.Work) (coord.Outcome, error) {
			// ctx is cancelled when the run is asked to stop; check right before each effect.
			if err := work.Check(); err != nil {
				return nil, err
			}
			fmt.Println(work.Key(), "attempt", work.Attempt())
			if work.Attempt() == 1 {
				return nil, errors.New("not yet") // called again after a growing pause
			}
			return nil, nil // not before the key is added again
		}, coord.Workers(4))
	if err != nil {
		panic(err)
	}
	if _, err := reconciler.Add("ann"); err != nil {
		panic(err)
	}
	fmt.Println(reconciler.WaitUntilReconciled(ctx, "ann", 0))
	fmt.Println(reconciler.Close(ctx))
	// Output:
	// ann attempt 1
	// ann attempt 2
	// <nil>
	// <nil>
}

func ExampleTable() {
	ctx := context.Background()
	client, err := coord.Connect(ctx, "memory:")
	if err != nil {
		panic(err)
	}
	defer client.Close(ctx)
	type order struct {
		Customer string `bson:"customer"`
		Amount   int    `bson:"amount"`
	}
	orders, err := coord.OpenTable[string, order](client, "orders")
	if err != nil {
		panic(err)
	}
	written, err := orders.Insert(ctx, "o-1", order{"ann", 10})
	if err != nil {
		panic(err)
	}
	if _, err := orders.Update(ctx, "o-1", bson.M{"$inc": bson.M{"amount": 5}}); err != nil {
		panic(err)
	}
	_, err = orders.ReplaceIf(ctx, "o-1", order{"ann", 0}, written.Revision)
	fmt.Println(errors.Is(err, coord.ErrConflict))
	for stored, err := range orders.Cursor(ctx, bson.M{"customer": "ann"}) {
		fmt.Println(stored.Key, stored.Value.Amount, err)
	}
	// Output:
	// true
	// o-1 15 <nil>
}

func ExampleTableWatch_Run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client, err := coord.Connect(ctx, "memory:")
	if err != nil {
		panic(err)
	}
	defer client.Close(context.Background())
	jobs, err := coord.OpenTable[int, bson.M](client, "jobs")
	if err != nil {
		panic(err)
	}
	if _, err := jobs.Put(ctx, 1, bson.M{"state": "new"}); err != nil {
		panic(err)
	}
	watch, err := jobs.Watch(nil)
	if err != nil {
		panic(err)
	}
	defer watch.Close()
	failed := false
	_ = watch.Run(ctx, func(_ context.Context, event coord.TableEvent[int, bson.M]) error {
		fmt.Println(event.Change, event.Key, event.Failures)
		switch {
		case event.Change == coord.TableInitApply && !failed:
			failed = true
			return errors.New("not yet") // it comes again
		case event.Change == coord.TableInitDone:
			cancel()
		}
		return nil
	})
	// Output:
	// init 0 0
	// init_apply 1 0
	// init_apply 1 1
	// init_done 0 0
}
