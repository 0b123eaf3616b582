// The Go worker of the demo: worker URL LEDGER UNTIL_NS [STUCK_NS]
//
// Appends entries to the ledger, each under the lock, until that moment. From STUCK_NS on, it stops in the middle of
// its next entry and says so: there it is killed. src/ledger.rs says what an entry looks like.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"coord"
)

func main() {
	until, err := strconv.ParseInt(os.Args[3], 10, 64)
	stuck := int64(math.MaxInt64)
	if err == nil && len(os.Args) > 4 {
		stuck, err = strconv.ParseInt(os.Args[4], 10, 64)
	}
	if err == nil {
		err = work(context.Background(), os.Args[1], os.Args[2], until, stuck)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func work(ctx context.Context, url, path string, until, stuck int64) error {
	client, err := coord.Connect(ctx, url)
	if err != nil {
		return err
	}
	lock, err := client.Lock("demo/ledger")
	if err != nil {
		return err
	}
	ledger, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	for now() < until {
		held, err := lock.Acquire(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(write(ledger, held, now() >= stuck), held.Release(ctx)); err != nil {
			return err
		}
	}
	return errors.Join(ledger.Close(), client.Close(ctx))
}

// write writes two halves with a pause between them: another writer in the pause would be seen in the ledger.
func write(ledger *os.File, held *coord.Held, stuck bool) error {
	if err := mend(ledger); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(ledger, "entry %d Go %d %d", held.Token(), os.Getpid(), now()); err != nil {
		return err
	}
	if stuck {
		fmt.Println("stuck")
		time.Sleep(math.MaxInt64)
	}
	time.Sleep(300 * time.Microsecond)
	if err := held.Check(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(ledger, " %d end\n", now())
	return err
}

// mend closes the entry of a holder that died in the middle of it.
func mend(ledger *os.File) error {
	info, err := ledger.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	last := []byte{'\n'}
	if _, err = ledger.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
		_, err = ledger.WriteString(" torn\n")
	}
	return err
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
