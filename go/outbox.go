package coord

import (
	"context"
	"iter"
	"runtime"
	"sync/atomic"
	"time"

	"coord/internal/ccoord"
)

// Outbox is mails in the store, which any process sends. Its methods may be called from any goroutine.
type Outbox struct {
	client *Client
	mailer *Mailer
	outbox ccoord.Outbox
	name   string
}

// Mail is a mail of an outbox, at one moment.
type Mail struct {
	ID         string      `json:"id"`
	Key        string      `json:"key"`
	State      MailState   `json:"state"`
	Attempts   int         `json:"attempts"`
	MessageID  string      `json:"message_id"`
	Created    int64       `json:"created"`
	Due        int64       `json:"due"`
	Expires    *int64      `json:"expires"`
	Finished   *int64      `json:"finished"`
	MaybeSent  bool        `json:"maybe_sent"`
	Recipients []Recipient `json:"recipients"`
	Last       string      `json:"last"`
	Late       []string    `json:"late"`
	Sender     string      `json:"sender"`
}

// MailState is where a mail is on its way.
type MailState string

// The states of a mail.
const (
	// MailQueued: it waits for its time, or for a sender.
	MailQueued MailState = "queued"
	// MailSending: a sender is about to send it, or does.
	MailSending MailState = "sending"
	// MailSent: the server has taken it for everybody who can have it.
	MailSent MailState = "sent"
	// MailFailed: nobody can have it.
	MailFailed MailState = "failed"
	// MailParked: whether it was sent is not known, and a person decides.
	MailParked MailState = "parked"
	// MailExpired: its time was over before it could be sent.
	MailExpired MailState = "expired"
	// MailCancelled: a person took it back.
	MailCancelled MailState = "cancelled"
)

// Enqueued is a mail that is in the outbox.
type Enqueued struct {
	ID string `json:"id"`
	// New is false if there was one with this key.
	New bool `json:"new"`
}

// EnqueueOptions is how a mail is to be enqueued.
type EnqueueOptions struct {
	// Key makes it the same mail: a second one with this key is not accepted. Without one each is another.
	Key string
	// NotBefore is when it may be sent; the zero time: at once.
	NotBefore time.Time
	// Expires is when it is not to be sent any more; the zero time: never.
	Expires time.Time
}

// Outbox is the outbox of this name, whose mails go through this mailer. Options: on_doubt ("send" or "park"), rate,
// per_domain_rate ("100/m"), attempts, retry_min, retry_max, poll; see docs/mail.md. It does not wait, and sends nothing
// before [Outbox.Start].
func (c *Client) Outbox(name string, mailer *Mailer, options map[string]string) (*Outbox, error) {
	const op = "make an outbox"
	defer runtime.KeepAlive(c)
	if mailer == nil {
		return nil, &Error{Code: ErrInvalidArgument, Op: op, Message: "there is no mailer"}
	}
	defer runtime.KeepAlive(mailer)
	outbox, failed := c.inner().client.Outbox(name, mailer.core.mailer, optionsJSON(options))
	if failed != nil {
		return nil, c.inner().newError(op, failed)
	}
	o := &Outbox{client: c, mailer: mailer, outbox: outbox, name: name}
	runtime.AddCleanup(o, ccoord.Outbox.Destroy, outbox)
	return o, nil
}

// Enqueue puts a mail into the outbox, in one write, if there is none with its key. It fails with ErrInvalidArgument,
// which names the field; after ErrOutcomeUnknown, enqueue it again with the same key.
func (o *Outbox) Enqueue(ctx context.Context, message *Message, options EnqueueOptions) (*Enqueued, error) {
	defer runtime.KeepAlive(o)
	const op = "enqueue a mail"
	text, err := messageJSON(op, message)
	if err != nil {
		return nil, err
	}
	return read[*Enqueued](ctx, o.pump(), op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return o.outbox.Enqueue(text, options.Key, millis(options.NotBefore), millis(options.Expires), timeLimit(ctx), to)
	})
}

func millis(moment time.Time) int64 {
	if moment.IsZero() {
		return 0
	}
	return moment.UnixMilli()
}

func (o *Outbox) pump() *pump { return o.client.inner().pump }

// Get is the mail with this id; it fails with ErrNotFound if there is none.
func (o *Outbox) Get(ctx context.Context, id string) (*Mail, error) {
	defer runtime.KeepAlive(o)
	const op = "read a mail"
	mail, err := read[*Mail](ctx, o.pump(), op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return o.outbox.Get(id, timeLimit(ctx), to)
	})
	if err == nil && mail == nil {
		return nil, &Error{Code: ErrNotFound, Op: op, Message: "there is no mail '" + id + "' in the outbox"}
	}
	return mail, err
}

// List is the mails in this state ("": in any), oldest first, at most so many. It fails with ErrInvalidArgument for
// another state and a limit below 0.
func (o *Outbox) List(ctx context.Context, state MailState, limit int) ([]Mail, error) {
	defer runtime.KeepAlive(o)
	const op = "list mails"
	if limit < 0 {
		return nil, invalid(op, "limit is 0 or more")
	}
	return read[[]Mail](ctx, o.pump(), op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return o.outbox.List(string(state), uint64(limit), timeLimit(ctx), to)
	})
}

// Stats is how many mails are in each state.
func (o *Outbox) Stats(ctx context.Context) (map[MailState]int, error) {
	defer runtime.KeepAlive(o)
	return read[map[MailState]int](ctx, o.pump(), "count mails", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return o.outbox.Stats(timeLimit(ctx), to)
	})
}

// Retry sends a mail (again) that has failed, is parked or waits for its time, at once. A second copy can come of it. It
// fails with ErrNotFound, and with ErrConflict for other states.
func (o *Outbox) Retry(ctx context.Context, id string) error {
	defer runtime.KeepAlive(o)
	return o.pump().finish(ctx, "retry a mail", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return o.outbox.Retry(id, timeLimit(ctx), to)
	})
}

// Cancel takes back a mail that is queued or parked. It stays, so that its key stays used, until it is purged. It fails
// with ErrNotFound, and with ErrConflict for other states.
func (o *Outbox) Cancel(ctx context.Context, id string) error {
	defer runtime.KeepAlive(o)
	return o.pump().finish(ctx, "cancel a mail", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return o.outbox.Cancel(id, timeLimit(ctx), to)
	})
}

// Purge removes mails that came to their end so long ago; returns how many. After that their keys are accepted again.
func (o *Outbox) Purge(ctx context.Context, olderThan time.Duration) (int, error) {
	defer runtime.KeepAlive(o)
	return read[int](ctx, o.pump(), "purge mails", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return o.outbox.Purge(uint64(max(olderThan.Milliseconds(), 0)), timeLimit(ctx), to)
	})
}

// OutboxEvent is a change in an outbox.
type OutboxEvent struct {
	// Event is "gap" (changes may be missing: list what is there; the first of every watch), "mail" or "purged".
	Event string `json:"event"`
	// Mail is the mail that is new or has changed.
	Mail *Mail `json:"mail"`
	// ID is that of a mail that was purged.
	ID string `json:"id"`
}

// Watch yields every change of every mail, by whatever process, until ctx ends or the client is closed.
func (o *Outbox) Watch(ctx context.Context) iter.Seq2[*OutboxEvent, error] {
	return func(yield func(*OutboxEvent, error) bool) {
		defer runtime.KeepAlive(o)
		const op = "watch an outbox"
		watch, failed := o.outbox.Watch()
		if failed != nil {
			yield(nil, newError(op, failed))
			return
		}
		defer watch.Destroy()
		for {
			event, err := read[*OutboxEvent](ctx, o.pump(), op, watch.Next)
			if CodeOf(err) == ErrClosed {
				return
			}
			if !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// Senders send the mails of an outbox in this process, until Stop. Keep them: those that nobody keeps are stopped when the
// garbage collector finds them, with a warning.
type Senders struct {
	outbox  *Outbox
	senders ccoord.Senders
	// stopped is shared with what is left of them.
	stopped *atomic.Bool
}

// Start starts to send, up to so many mails at a time, from 1 to 32; the mailer's option "pool" bounds the connections as
// well. Other processes may do the same: each mail is sent by one of them. It fails with ErrInvalidArgument for another
// number, and with ErrClosed if the client or the mailer is closed.
func (o *Outbox) Start(senders int) (*Senders, error) {
	defer runtime.KeepAlive(o)
	started, failed := o.outbox.Start(uint32(min(max(senders, 0), 1000)))
	if failed != nil {
		return nil, newError("start to send", failed)
	}
	s := &Senders{outbox: o, senders: started, stopped: new(atomic.Bool)}
	runtime.AddCleanup(s, forgottenSenders.stop, forgottenSenders{o.client.inner(), started, o.name, s.stopped})
	return s, nil
}

// forgottenSenders is what is left of Senders that were collected.
type forgottenSenders struct {
	core    *core
	senders ccoord.Senders
	outbox  string
	stopped *atomic.Bool
}

func (f forgottenSenders) stop() {
	if !f.stopped.Load() && !f.core.isClosed() {
		f.core.report("senders of a coord outbox were garbage-collected without Stop; they are stopped now", "outbox", f.outbox)
	}
	f.senders.Destroy()
}

// Stop begins nothing new, and waits until what has begun is finished and recorded. When ctx ends first, also before the
// call, that goes on in the background. It fails with ErrClosed if the mailer or the client was closed before:
// then they had ended without it, and the mails wait in the outbox for other senders.
func (s *Senders) Stop(ctx context.Context) error {
	defer runtime.KeepAlive(s)
	s.stopped.Store(true)
	return s.outbox.pump().finishAnyway(ctx, "stop sending", s.senders.Stop)
}
