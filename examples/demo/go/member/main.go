// The Go member of the demo: member URL NAME
//
// Provides the service demo/member and wants to lead. Says `leads TOKEN NS` when it does, and then stands there until
// it is killed.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"syscall"
	"unsafe"

	"coord"
)

func main() {
	if err := lead(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func lead(ctx context.Context, url, name string) error {
	client, err := coord.Connect(ctx, url, coord.WithName(name))
	if err != nil {
		return err
	}
	provider, err := client.Provide(ctx, "demo/member", name)
	if err != nil {
		return err
	}
	defer provider.Close(ctx)
	election, err := client.Election("demo/leader")
	if err != nil {
		return err
	}
	term, err := election.Campaign(ctx, name)
	if err != nil {
		return err
	}
	fmt.Println("leads", term.Token(), now())
	<-term.Context().Done()
	return term.Check()
}

// now is the machine's monotonic clock, which Go's own times do not show.
func now() int64 {
	const monotonic = 1
	var t syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, monotonic, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		log.Fatal(errno)
	}
	return t.Nano()
}
