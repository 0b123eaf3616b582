package coord

import (
	"context"
	"encoding/json"
	"iter"
	"runtime"
	"sync"

	"coord/internal/ccoord"
)

// Message is a mail. Nothing of it is checked before it is sent or enqueued; then ErrInvalidArgument names the field
// ("to[1]", "attachments[0].path"), and nothing was sent.
type Message struct {
	// From is who sends it; without one, the mailer's sender.
	From *Address `json:"from,omitempty"`
	// To, Cc and Bcc are who gets it. Nobody sees Bcc.
	To  []Address `json:"to,omitempty"`
	Cc  []Address `json:"cc,omitempty"`
	Bcc []Address `json:"bcc,omitempty"`
	// ReplyTo is where replies go; without one, to the mailer's reply_to or the sender.
	ReplyTo []Address `json:"reply_to,omitempty"`
	// Subject may have any characters, on one line.
	Subject string `json:"subject,omitempty"`
	// Text and HTML are shown one instead of the other.
	Text string `json:"text,omitempty"`
	HTML string `json:"html,omitempty"`
	// Attachments are files that go with it, or that the HTML shows.
	Attachments []Attachment `json:"attachments,omitempty"`
	// Headers are further headers, each a name and a value.
	Headers [][2]string `json:"headers,omitempty"`
	// MessageID is "<left@right>"; without one it gets its own, the same in every attempt.
	MessageID string `json:"message_id,omitempty"`
	// DateMillis is its date in milliseconds since 1970; without one, now.
	DateMillis int64 `json:"date,omitempty"`
}

// Address is a mailbox: a name for people, and an address; or both in Address, as "Ann <ann@example.org>".
type Address struct {
	Name    string
	Address string
}

// To makes addresses of texts such as "ann@example.org" and "Ann <ann@example.org>".
func To(texts ...string) []Address {
	list := make([]Address, len(texts))
	for i, text := range texts {
		list[i].Address = text
	}
	return list
}

// MarshalJSON writes a text, or an object with name and address.
func (a Address) MarshalJSON() ([]byte, error) {
	if a.Name == "" {
		return json.Marshal(a.Address)
	}
	return json.Marshal(map[string]string{"name": a.Name, "address": a.Address})
}

// Attachment is a file that goes with a message: the one at Path, or Content under Name.
type Attachment struct {
	// Path is a file, which is read when the message is sent or enqueued.
	Path string
	// Content is what it has, where there is no path.
	Content []byte
	// Name is what it is called; without one, as the file at Path.
	Name string
	// Type is a media type such as "application/pdf"; without one it is guessed from the name.
	Type string
	// CID makes it a file that the HTML shows: <img src="cid:...">.
	CID string
}

// MarshalJSON writes the attachment as the library reads it.
func (a Attachment) MarshalJSON() ([]byte, error) {
	fields := map[string]any{}
	if a.Path != "" {
		fields["path"] = a.Path
	}
	if a.Path == "" || a.Content != nil {
		content := a.Content
		if content == nil {
			content = []byte{}
		}
		fields["base64"] = content
	}
	for name, value := range map[string]string{"name": a.Name, "type": a.Type, "cid": a.CID} {
		if value != "" {
			fields[name] = value
		}
	}
	return json.Marshal(fields)
}

// Report is what a server said about each recipient of a message.
type Report struct {
	MessageID  string      `json:"message_id"`
	Attempts   int         `json:"attempts"`
	Recipients []Recipient `json:"recipients"`
}

// AllAccepted is whether the server has taken the message for everybody.
func (r *Report) AllAccepted() bool {
	for _, recipient := range r.Recipients {
		if recipient.Status != Accepted {
			return false
		}
	}
	return true
}

// Recipient is what became of a message for one address.
type Recipient struct {
	Address string          `json:"address"`
	Status  RecipientStatus `json:"status"`
	// Code and Text are the server's; Code is 0 where it gave none.
	Code int    `json:"code"`
	Text string `json:"text"`
	// Permanent is whether it is useless to try again.
	Permanent bool `json:"permanent"`
}

// RecipientStatus is whether a server has taken a message for a recipient.
type RecipientStatus string

// What can become of a message for a recipient.
const (
	// Accepted: from now on the message is the server's.
	Accepted RecipientStatus = "accepted"
	// Rejected: it has not taken it.
	Rejected RecipientStatus = "rejected"
	// StatusUnknown: the connection broke between all of the message and the server's answer.
	StatusUnknown RecipientStatus = "unknown"
)

// Mailer is a mail server to send through. Its methods may be called from any goroutine. It is ended by Close.
type Mailer struct {
	core *mailerCore
}

type mailerCore struct {
	mailer ccoord.Mailer
	pump   *pump

	closing sync.Once
	// closed is closed when the library has closed the mailer; closeErr is valid then.
	closed   chan struct{}
	closeErr error
}

// NewMailer makes a mailer for the server at this URL, "smtp://user:password@host:587" (with STARTTLS) or "smtps://…"
// (with TLS from the first byte). The options are those of the URL's query, by their names, and win over it; see
// docs/mail.md. It does not wait: [Mailer.Health] asks the server.
func NewMailer(url string, options map[string]string) (*Mailer, error) {
	return newMailer(nil, url, options)
}

// Mailer is NewMailer. The mailer outlives the client.
func (c *Client) Mailer(url string, options map[string]string) (*Mailer, error) {
	defer runtime.KeepAlive(c)
	core := c.inner()
	if core == neverConnected || core.isClosed() {
		return nil, &Error{Code: ErrClosed, Op: "make a mailer", Message: "the client is closed"}
	}
	return newMailer(&core.client, url, options)
}

func newMailer(client *ccoord.Client, url string, options map[string]string) (*Mailer, error) {
	const op = "make a mailer"
	mailer, failed := ccoord.NewMailer(client, url, optionsJSON(options))
	if failed != nil {
		return nil, newError(op, failed)
	}
	p, err := newPump(mailer.Destroy)
	if err != nil {
		mailer.Destroy()
		return nil, err
	}
	m := &Mailer{core: &mailerCore{mailer: mailer, pump: p, closed: make(chan struct{})}}
	// Whoever waits keeps m: nobody does then.
	runtime.AddCleanup(m, (*pump).stop, p)
	return m, nil
}

func optionsJSON(options map[string]string) string {
	text, err := json.Marshal(options)
	if err != nil || options == nil {
		return "{}"
	}
	return string(text)
}

// beginClose closes the mailer, and has its pump end with the last of those who wait for it: what became of a message that
// was being sent is theirs to know.
func (m *Mailer) beginClose() {
	c := m.core
	c.closing.Do(func() {
		ended := func(failed *ccoord.Error) {
			if failed != nil && Code(failed.Code) != ErrClosed {
				c.closeErr = newError("close the mailer", failed)
			}
			close(c.closed)
		}
		failed := c.pump.startLast(func(event ccoord.Event) {
			ended(event.Err())
			event.Destroy()
			runtime.KeepAlive(m) // until here, also where nobody waits
		}, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) { return c.mailer.Close(-1, to) })
		if failed != nil {
			ended(failed)
		}
	})
}

func (c *mailerCore) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// Location is where the server is, without user and password.
func (m *Mailer) Location() string {
	defer runtime.KeepAlive(m)
	return m.core.mailer.Location()
}

// Send sends a message, with what is temporary tried again, within the mailer's option "timeout" and until ctx ends. It
// returns what the server said about each recipient, also where it refused all of them, and also when ctx ends and some
// had been answered for. Nothing is sent twice: without the server's answer to all of the message it fails with
// ErrOutcomeUnknown, whatever ended the wait for that.
//
// It fails with ErrInvalidArgument, which names the field; ErrUnavailable, ErrTimeout, ErrCancelled, ErrClosed,
// ErrUnauthorized (login or certificate) and ErrUnsupported, when nothing was sent.
func (m *Mailer) Send(ctx context.Context, message *Message) (*Report, error) {
	defer runtime.KeepAlive(m)
	const op = "send a message"
	text, err := messageJSON(op, message)
	if err != nil {
		return nil, err
	}
	return read[*Report](ctx, m.core.pump, op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return m.core.mailer.Send(text, timeLimit(ctx), to)
	})
}

func messageJSON(op string, message *Message) (string, error) {
	if message == nil {
		return "", &Error{Code: ErrInvalidArgument, Op: op, Message: "there is no message"}
	}
	text, err := json.Marshal(message)
	if err != nil {
		return "", &Error{Code: ErrInvalidArgument, Op: op, Message: err.Error()}
	}
	return string(text), nil
}

// read waits for an event with a text, and reads that as JSON; the zero value where there is no text.
func read[T any](ctx context.Context, p *pump, op string, begin begin) (T, error) {
	var into T
	event, err := p.await(ctx, op, false, begin)
	if err != nil {
		return into, err
	}
	defer event.Destroy()
	text, some, failed := event.TakeText()
	if failed != nil {
		return into, newError(op, failed)
	}
	if !some {
		return into, nil
	}
	if err := json.Unmarshal([]byte(text), &into); err != nil {
		return into, &Error{Code: ErrUnknown, Op: op, Message: err.Error()}
	}
	return into, nil
}

// SendMany sends messages, as many at a time as the mailer has connections, and yields what became of each as it ends:
// its place in the list, and what Send would return. Leaving the loop ends it: what has not begun is not sent.
//
// What ends the batch, and is no message's, comes last and in the place -1: an error of ctx, ErrClosed, or
// ErrInvalidArgument for the list as a whole.
func (m *Mailer) SendMany(ctx context.Context, messages []*Message) iter.Seq2[int, SendResult] {
	const op = "send messages"
	return func(yield func(int, SendResult) bool) {
		defer runtime.KeepAlive(m)
		const noMessage = -1
		text, err := json.Marshal(messages)
		if err != nil {
			yield(noMessage, SendResult{Err: &Error{Code: ErrInvalidArgument, Op: op, Message: err.Error()}})
			return
		}
		// Also while the caller looks at a result, and nobody waits for the next.
		letGo, failed := m.core.pump.hold()
		if failed != nil {
			yield(noMessage, SendResult{Err: newError(op, failed)})
			return
		}
		defer letGo()
		batch, failed := m.core.mailer.SendMany(string(text))
		if failed != nil {
			yield(noMessage, SendResult{Err: newError(op, failed)})
			return
		}
		defer batch.Destroy()
		for {
			sent, err := read[*sentJSON](ctx, m.core.pump, op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
				return batch.Next(timeLimit(ctx), to)
			})
			if err != nil {
				yield(noMessage, SendResult{Err: err})
				return
			}
			if sent == nil {
				return
			}
			result := SendResult{Report: sent.Report}
			if sent.Error != nil {
				result.Err = &Error{
					Code: Code(sent.Error.Code), Op: op, Message: sent.Error.Message, Retryable: sent.Error.Retryable,
				}
			}
			if !yield(sent.Index, result) {
				return
			}
		}
	}
}

// sentJSON is what the library says of a message that has ended.
type sentJSON struct {
	Index  int
	Report *Report
	Error  *struct {
		Code      int32
		Message   string
		Retryable bool
	}
}

// SendResult is what became of one message of SendMany.
type SendResult struct {
	Report *Report
	Err    error
}

// Health connects, logs in, and asks the server whether it answers.
func (m *Mailer) Health(ctx context.Context) error {
	defer runtime.KeepAlive(m)
	return m.core.pump.finish(ctx, "ask for the mail server's health", func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return m.core.mailer.Health(timeLimit(ctx), to)
	})
}

// Close refuses new messages, waits for those that are being sent, and says goodbye to the server. When ctx ends first, it
// goes on in the background, and whoever waits for a message is told what became of it. Closing again waits for the same
// end, and is no error.
func (m *Mailer) Close(ctx context.Context) error {
	defer runtime.KeepAlive(m)
	m.beginClose()
	select {
	case <-m.core.closed:
	case <-ctx.Done():
		if !m.core.isClosed() {
			return interrupted(ctx, "close the mailer", "goes on in the background")
		}
	}
	return m.core.closeErr
}
