// Takes the lock "a" in the file t.db, prints its token, checks that it is still the holder, and releases.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"coord"
)

func main() {
	if err := work(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func work(ctx context.Context) error {
	client, err := coord.Connect(ctx, "sqlite:///t.db")
	if err != nil {
		return err
	}
	defer client.Close(ctx)
	lock, err := client.Lock("a")
	if err != nil {
		return err
	}
	return lock.Do(ctx, func(ctx context.Context, held *coord.Held) error {
		fmt.Println(held.Token()) // ctx is cancelled when the lock is lost
		return errors.Join(ctx.Err(), held.Check())
	})
}
