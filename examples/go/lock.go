package main

import (
	"context"
	"fmt"
	"time"

	"coord"
)

func main() {
	if err := work(context.Background()); err != nil {
		panic(err)
	}
}

func work(ctx context.Context) error {
	client, err := coord.Connect(ctx, "sqlite:///t.db")
	if err != nil {
		return err
	}
	defer func() { // also when ctx has ended: else others wait for the ttl
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		client.Close(end)
	}()
	lock, err := client.Lock("a")
	if err != nil {
		return err
	}
	return lock.Do(ctx, func(ctx context.Context, held *coord.Held) error {
		fmt.Println(held.Token()) // ctx is cancelled when the lock is lost
		return held.Check()
	})
}
