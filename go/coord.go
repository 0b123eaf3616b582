// Package coord coordinates processes: a lock that a crashed holder cannot keep, and a number with each grant that
// exposes a holder who is too late. It speaks to the store that you have: this process's memory, an SQLite file, or a
// MongoDB replica set. C, Python and Rust programs share the same locks.
//
// A [Client] has one session, which it renews in the background. All that is held through it is valid as long as the
// session is; when that cannot be renewed in time, everything is lost at one instant, before anybody else can be
// granted it. A [Held] tells: [Held.Check] reads a clock, [Held.Context] is cancelled. A holder that was paused after
// its check is exposed by the fencing token, [Held.Token], which grows with every grant.
//
// Every method that waits takes a context. When that ends first, the method returns an error that is both
// [ErrCancelled] (or [ErrTimeout], for a deadline) and the context's cause, and holds nothing; of a write it is not
// known whether it was done, or still will be. Errors are [*Error]; compare them with errors.Is and the Err constants,
// or switch over [CodeOf].
//
// All methods may be called from any goroutine, also while others run. Clients and holds are ended explicitly, by
// [Client.Close] and [Held.Release]; what is forgotten is given back when the garbage collector finds it, with a
// warning. Once a process has connected, a child that it makes by a fork without exec gets [ErrForked] from every call,
// [Connect] too.
//
// The package needs Linux and cgo, and finds the C library by pkg-config. With the build tag coord_static, the library
// becomes part of the program.
package coord

import "coord/internal/ccoord"

//go:generate go run ./internal/gen ../include/coord.h errors_gen.go

// Version is the version of the library that is loaded, e.g. "0.1.0".
func Version() string { return ccoord.Version() }

// Sanitize makes a valid part of a name from any text: different texts stay different, and a valid text stays as it is.
func Sanitize(text string) (string, error) {
	name, err := ccoord.Sanitize(text)
	if err != nil {
		return "", newError("sanitize a name", err)
	}
	return name, nil
}
