// Sends an outbox's mails until it is killed: sender STORE MAILSERVER OUTBOX. Says "ready" when it does.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"coord"
)

func main() {
	if err := send(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		panic(err)
	}
}

func send(store, server, name string) error {
	client, err := coord.Connect(context.Background(), store)
	if err != nil {
		return err
	}
	mailer, err := client.Mailer(server, nil)
	if err != nil {
		return err
	}
	outbox, err := client.Outbox(name, mailer, map[string]string{"poll": "50ms"})
	if err != nil {
		return err
	}
	senders, err := outbox.Start(2)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	<-make(chan struct{})
	runtime.KeepAlive(senders)
	return nil
}
