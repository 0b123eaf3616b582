// The Go agent: takes one command a line from the conductor, and answers with one line. README.md of the scenarios has
// the words.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"coord"
)

const (
	// bound is how long an event may take.
	bound      = 30 * time.Second
	closeBound = 20 * time.Second
)

func main() {
	a := newAgent()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<26) // a document, with each byte escaped
	for lines.Scan() {
		fmt.Println(a.answer(lines.Text()))
	}
	if err := a.end(); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func asError(err error) (*coord.Error, bool) {
	var e *coord.Error
	ok := errors.As(err, &e)
	return e, ok
}

func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), bound, errors.New("it has not happened within 30 s"))
}

// limited is bounded by what the command says, or else by this.
func limited(w words, most time.Duration) (context.Context, context.CancelFunc, error) {
	if text, ok := w.values["timeout_ms"]; ok {
		ms, err := strconv.Atoi(text)
		if err != nil {
			return nil, nil, err
		}
		most = time.Duration(ms) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), most)
	return ctx, cancel, nil
}
