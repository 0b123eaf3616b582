package coord

import (
	"context"
	"log/slog"
	"runtime"
	"sync"

	"coord/internal/ccoord"
)

// Client is a connection to a store, with a session that carries everything that is held through it. Its methods may
// be called from any goroutine. It is ended by Close.
type Client struct {
	core    *core
	cleanup runtime.Cleanup
}

// core is all of a client but its identity: goroutines may keep it without keeping the Client from being collected.
type core struct {
	client ccoord.Client
	pump   *pump
	logger *slog.Logger

	closing sync.Once
	// closeErr is valid when the pump has ended.
	closeErr error
}

// Connect connects to a store and opens a session: "memory:", "sqlite:///t.db", "mongodb://…". An empty URL stands for
// the environment variable COORD_URL, or else for the default file in the user's state directory.
func Connect(ctx context.Context, url string, options ...Option) (*Client, error) {
	const op = "connect"
	var set settings
	for _, option := range options {
		if option != nil {
			option(&set)
		}
	}
	config, failed := ccoord.NewConfig(url)
	if failed != nil {
		return nil, newError(op, failed)
	}
	defer config.Destroy()
	for _, option := range set.options {
		if failed := config.Set(option[0], option[1]); failed != nil {
			return nil, newError(op, failed)
		}
	}
	p, err := newPump()
	if err != nil {
		return nil, err
	}
	return open(ctx, op, p, p, set.logger, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return config.Connect(timeLimit(ctx), to)
	})
}

// OpenSession opens another session on the same store: a client of its own, whose holds live and die independently of
// this one's.
func (c *Client) OpenSession(ctx context.Context) (*Client, error) {
	defer runtime.KeepAlive(c)
	p, err := newPump()
	if err != nil {
		return nil, err
	}
	parent := c.inner()
	return open(ctx, "open a session", parent.pump, p, parent.logger, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return parent.client.OpenSession(timeLimit(ctx), to)
	})
}

// open waits for a new client on one pump, and gives it another, which is stopped if there is no client.
func open(ctx context.Context, op string, on, own *pump, logger *slog.Logger, begin begin) (*Client, error) {
	event, err := on.await(ctx, op, true, begin)
	if err != nil {
		own.stop()
		return nil, err
	}
	defer event.Destroy()
	client, failed := event.TakeClient()
	if failed != nil {
		own.stop()
		return nil, newError(op, failed)
	}
	c := &Client{core: &core{client: client, pump: own, logger: logger}}
	c.cleanup = runtime.AddCleanup(c, (*core).abandon, c.core)
	return c, nil
}

// Close closes the client: refuses new work, ends every wait with ErrClosed, releases what is held, waits for the
// functions of Lock.Do, and ends the session. When ctx ends first, it goes on in the background. Closing again waits
// for the same end, and is no error.
//
// A process that exits before the close has ended leaves its session behind, and others wait for what it held and
// provided up to its ttl. The context of a service has mostly ended by then, so give the close one of its own:
//
//	defer func() {
//		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
//		defer cancel()
//		client.Close(end)
//	}()
//
// Inside a function that the client runs (Lock.Do, a candidacy, a reconciler), with the function's context, it returns
// ErrReentrant: it would wait for itself.
func (c *Client) Close(ctx context.Context) error {
	defer runtime.KeepAlive(c)
	core := c.inner()
	if ctx.Value(runBy{core}) != nil {
		return &Error{Code: ErrReentrant, Op: "close the client", Message: "a function that the client runs " +
			"cannot close it; return from the function first"}
	}
	if core != neverConnected {
		c.cleanup.Stop()
	}
	core.beginClose()
	select {
	case <-core.pump.ended:
	case <-ctx.Done():
		if !core.isClosed() {
			return interrupted(ctx, "close the client", "goes on in the background")
		}
	}
	return core.closeErr
}

// Health asks the store whether it could be written to now.
func (c *Client) Health(ctx context.Context) error {
	defer runtime.KeepAlive(c)
	core := c.inner()
	return core.pump.finish(ctx, "ask for the store's health", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return core.client.Health(timeLimit(ctx), to)
	})
}

// inner is the core; that of a client that is closed for one that was never connected.
func (c *Client) inner() *core {
	if c == nil || c.core == nil {
		return neverConnected
	}
	return c.core
}

// neverConnected makes the zero Client one that is closed.
var neverConnected = func() *core {
	p := &pump{stopped: true, ended: make(chan struct{})}
	close(p.ended)
	c := &core{pump: p}
	c.closing.Do(func() {})
	return c
}()

func (c *core) beginClose() {
	c.closing.Do(func() {
		failed := c.pump.startLast(func(event ccoord.Event) {
			if failed := event.Err(); failed != nil {
				c.closeErr = newError("close the client", failed)
			}
			event.Destroy()
			c.client.Destroy()
		}, c.client.Close)
		if failed != nil {
			c.closeErr = newError("close the client", failed)
			c.client.Destroy()
			c.pump.stop()
		}
	})
}

// abandon ends a client that nobody can close any more.
func (c *core) abandon() {
	c.report("a coord client was garbage-collected without Close; it is closed now")
	c.beginClose()
}

func (c *core) isClosed() bool {
	select {
	case <-c.pump.ended:
		return true
	default:
		return false
	}
}

// report tells of a mistake in the program that nobody can be returned an error for.
func (c *core) report(message string, details ...any) {
	logger := c.logger
	if logger == nil {
		logger = slog.Default()
	}
	logger.Warn(message, details...)
}

// runBy marks the contexts of the functions that a client runs, under a lock, as leader or for a key: what waits for their
// end must not be called inside.
type runBy struct{ core *core }
