package coordtest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"coord"
	"coord/coordtest"
)

func Example() {
	ctx := context.Background()
	client, err := coord.Connect(ctx, "memory:?coord.clock=manual")
	if err != nil {
		panic(err)
	}
	defer client.Close(ctx)
	control, err := coordtest.Of(client)
	if err != nil {
		panic(err)
	}
	election, err := client.Election("e")
	if err != nil {
		panic(err)
	}
	term, err := election.Campaign(ctx, "me")
	if err != nil {
		panic(err)
	}
	// An hour passes: the session is renewed all the while.
	fmt.Println(control.Advance(ctx, time.Hour), term.Check())
	// The machine sleeps for an hour.
	fmt.Println(control.Jump(time.Hour), errors.Is(term.Check(), coord.ErrLost))
	// Output:
	// <nil> <nil>
	// <nil> true
}

func TestForcedLeadersAndDeadSessions(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	connect := func() (*coord.Client, *coord.Election, string) {
		client, err := coord.Connect(ctx, "memory:coordtest")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close(context.Background()) })
		election, err := client.Election("e")
		if err != nil {
			t.Fatal(err)
		}
		session, err := client.Session()
		if err != nil {
			t.Fatal(err)
		}
		return client, election, session.ID
	}
	client, hers, _ := connect()
	_, his, session := connect()
	control, err := coordtest.Of(client)
	if err != nil {
		t.Fatal(err)
	}
	term, err := hers.Campaign(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	won := make(chan *coord.Term, 1)
	go func() {
		term, err := his.Campaign(ctx, "")
		if err != nil {
			t.Error(err)
		}
		won <- term
	}()
	token, err := control.ForceLeader(ctx, "e", session)
	if err != nil {
		t.Fatal(err)
	}
	if term.Loss() != coord.LossBroken {
		t.Error(term.Loss())
	}
	term = <-won
	if term.Token() != token {
		t.Errorf("%d is not %d", term.Token(), token)
	}
	if err := control.ExpireSession(ctx, session); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(term.Check(), coord.ErrLost) || term.Loss() != coord.LossExpired {
		t.Error(term.Check())
	}
	if err := control.ExpireSession(ctx, session); !errors.Is(err, coord.ErrNotFound) {
		t.Error(err)
	}
	if err := control.Advance(ctx, time.Second); !errors.Is(err, coord.ErrUnsupported) {
		t.Error(err)
	}
	if err := control.Jump(-time.Second); err == nil {
		t.Error("time went back")
	}
	if _, err := control.Date(); !errors.Is(err, coord.ErrUnsupported) {
		t.Error(err)
	}
	file, err := coord.Connect(ctx, "sqlite:///"+t.TempDir()+"/t.db")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close(ctx)
	if _, err := coordtest.Of(file); !errors.Is(err, coord.ErrUnsupported) {
		t.Error(err)
	}
}
