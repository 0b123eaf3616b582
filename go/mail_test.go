package coord

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// mailServer is the mail server of all suites, tests/servers/smtp.py: requests and answers in JSON.
type mailServer struct {
	t    *testing.T
	in   io.Writer
	out  *bufio.Reader
	port int
}

func startMailServer(t *testing.T) *mailServer {
	t.Helper()
	const python = "../.venv/bin/python"
	if err := exec.Command(python, "-c", "import aiosmtpd").Run(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("in CI nothing may be left out: there is no Python with aiosmtpd in .venv")
		}
		t.Skip("there is no Python with aiosmtpd in .venv")
	}
	server := exec.Command(python, "../tests/servers/smtp.py")
	in, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	s := &mailServer{t: t, in: in, out: bufio.NewReader(out)}
	var ports struct{ Port int }
	s.answer(&ports)
	s.port = ports.Port
	return s
}

func (s *mailServer) answer(into any) {
	s.t.Helper()
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(line, into); err != nil {
		s.t.Fatal(err)
	}
}

func (s *mailServer) ask(request string, into any) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.in, request); err != nil {
		s.t.Fatal(err)
	}
	s.answer(into)
}

type arrivedMail struct {
	Rcpt      []string
	Subject   string
	Text      string
	MessageID string `json:"message_id"`
	Files     []struct{ Name, Type, Base64 string }
}

func (s *mailServer) messages() []arrivedMail {
	s.t.Helper()
	var answer struct{ Messages []arrivedMail }
	s.ask(`{"messages": true}`, &answer)
	return answer.Messages
}

// rule makes the server misbehave.
func (s *mailServer) rule(rule string) {
	s.t.Helper()
	s.ask(`{"rule": `+rule+`}`, &struct{}{})
}

// arrived waits until that many messages have arrived.
func (s *mailServer) arrived(count int) {
	s.t.Helper()
	becomes(s.t, "what is to arrive", func() bool { return len(s.messages()) >= count })
}

// commands is what the server was told.
func (s *mailServer) commands() []string {
	s.t.Helper()
	var answer struct{ Log [][2]any }
	s.ask(`{"log": true}`, &answer)
	var commands []string
	for _, entry := range answer.Log {
		commands = append(commands, fmt.Sprint(entry[1]))
	}
	return commands
}

// senders is by whom each mail was sent, as they called themselves.
func (s *mailServer) senders() []string {
	s.t.Helper()
	var answer struct{ Log [][2]any }
	s.ask(`{"log": true}`, &answer)
	hello := map[any]string{}
	var senders []string
	for _, entry := range answer.Log {
		command := fmt.Sprint(entry[1])
		if name, ok := strings.CutPrefix(command, "ehlo "); ok {
			hello[entry[0]] = name
		} else if strings.HasPrefix(command, "mail ") {
			senders = append(senders, hello[entry[0]])
		}
	}
	return senders
}

// mailer makes one with these options, each a name and a value, beside those of all tests.
func (s *mailServer) mailer(more ...string) *Mailer {
	s.t.Helper()
	url := fmt.Sprintf("smtp://127.0.0.1:%d?tls=none", s.port)
	options := map[string]string{"sender": "shop@example.org", "retry_min": "10ms", "retry_max": "20ms"}
	for pair := range slices.Chunk(more, 2) {
		options[pair[0]] = pair[1]
	}
	mailer, err := NewMailer(url, options)
	if err != nil {
		s.t.Fatal(err)
	}
	return mailer
}

func TestAMessageArrives(t *testing.T) {
	server := startMailServer(t)
	mailer := server.mailer()
	if err := mailer.Health(limited(t)); err != nil {
		t.Fatal(err)
	}
	report, err := mailer.Send(limited(t), &Message{
		To:          []Address{{Name: "Ann Lee", Address: "ann@example.org"}},
		Cc:          To("Bob <bob@example.org>"),
		Subject:     "Grüße, 世界",
		Text:        "Hello.",
		HTML:        "<p>Hello.</p>",
		Attachments: []Attachment{{Name: "a.txt", Content: []byte("x")}},
		Headers:     [][2]string{{"X-Own", "1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !report.AllAccepted() || len(report.Recipients) != 2 || report.Recipients[0].Code != 250 {
		t.Errorf("the report is %+v", report)
	}
	got := server.messages()
	if len(got) != 1 || got[0].Subject != "Grüße, 世界" || got[0].Files[0].Name != "a.txt" || got[0].MessageID != report.MessageID {
		t.Errorf("what arrived is %+v", got)
	}
	if err := mailer.Close(limited(t)); err != nil {
		t.Fatal(err)
	}
	if err := mailer.Close(limited(t)); err != nil {
		t.Fatal(err)
	}
	_, err = mailer.Send(limited(t), &Message{To: To("a@example.org")})
	wants(t, err, ErrClosed)
}

func TestMistakesInMessagesNameTheirField(t *testing.T) {
	server := startMailServer(t)
	mailer := server.mailer()
	defer func() { _ = mailer.Close(limited(t)) }()
	for _, message := range []*Message{
		nil,
		{},
		{To: To("nobody")},
		{To: To("a@example.org"), Subject: "x\r\nBcc: e@example.org"},
		{To: To("a@example.org"), Attachments: []Attachment{{Path: "/nowhere"}}},
	} {
		_, err := mailer.Send(limited(t), message)
		wants(t, err, ErrInvalidArgument)
	}
	_, err := NewMailer("smtp://u:s3cret@", nil)
	wants(t, err, ErrInvalidArgument)
	server.ask(`{"rule": {"at": "dot", "do": "taken drop", "times": 1}}`, &struct{}{})
	_, err = mailer.Send(limited(t), &Message{To: To("a@example.org")})
	wants(t, err, ErrOutcomeUnknown)
	ctx, cancel := context.WithCancel(limited(t))
	cancel()
	_, err = mailer.Send(ctx, &Message{To: To("a@example.org")})
	wants(t, err, ErrCancelled)
}

type sent struct {
	report *Report
	err    error
}

// sending sends a message in the background.
func sending(ctx context.Context, mailer *Mailer, to ...string) <-chan sent {
	told := make(chan sent, 1)
	go func() {
		report, err := mailer.Send(ctx, &Message{To: To(to...)})
		told <- sent{report, err}
	}()
	return told
}

func TestWhoGivesUpAMessageAfterItsDotIsToldThatItsOutcomeIsUnknown(t *testing.T) {
	server := startMailServer(t)
	server.rule(`{"at": "dot", "do": "taken stall"}`)
	mailer := server.mailer()
	soon, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := mailer.Send(soon, &Message{To: To("ann@example.org")})
	wants(t, err, ErrOutcomeUnknown)
	server.arrived(1)

	ctx, cancel := context.WithCancel(limited(t))
	told := sending(ctx, mailer, "ann@example.org")
	server.arrived(2)
	cancel()
	wants(t, comes(t, "the end of the message", told).err, ErrOutcomeUnknown)

	ctx, cancel = context.WithCancel(limited(t))
	told = sending(ctx, mailer, "ann@example.org")
	server.arrived(3)
	ended, end := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer end()
	wants(t, mailer.Close(ended), ErrTimeout)
	_, err = mailer.Send(limited(t), &Message{To: To("bob@example.org")})
	wants(t, err, ErrClosed)
	cancel()
	wants(t, comes(t, "the end of the message", told).err, ErrOutcomeUnknown)
	if err := mailer.Close(limited(t)); err != nil {
		t.Error(err)
	}
}

func TestWhoWaitsForAMessageIsToldItsOutcomeThoughTheMailerIsClosed(t *testing.T) {
	server := startMailServer(t)
	server.rule(`{"at": "dot", "do": "until 1", "times": 1}`)
	mailer := server.mailer()
	told := sending(limited(t), mailer, "ann@example.org")
	becomes(t, "the message", func() bool { return slices.Contains(server.commands(), "data") })
	ended, end := context.WithCancel(context.Background())
	end()
	wants(t, mailer.Close(ended), ErrCancelled)
	other := server.mailer() // which the server waits for
	if _, err := other.Send(limited(t), &Message{To: To("bob@example.org")}); err != nil {
		t.Fatal(err)
	}
	if got := comes(t, "the end of the message", told); got.err != nil || !got.report.AllAccepted() {
		t.Errorf("%+v", got)
	}
	if err := mailer.Close(limited(t)); err != nil {
		t.Error(err)
	}

	// Between two attempts nothing is being sent, and the mailer is closed at once.
	server.rule(`{"at": "rcpt", "do": "450 later", "for": "eve@"}`)
	mailer = server.mailer("retry_min", "300ms", "retry_max", "300ms")
	told = sending(limited(t), mailer, "ann@example.org", "eve@example.org")
	server.arrived(2)
	if err := mailer.Close(limited(t)); err != nil {
		t.Error(err)
	}
	got := comes(t, "the end of the message", told)
	if got.err != nil || got.report.Recipients[0].Status != Accepted || got.report.Recipients[1].Status != Rejected {
		t.Errorf("%+v", got)
	}
}

func TestATimeLimitOfTheMailersOwnIsNotTheContexts(t *testing.T) {
	server := startMailServer(t)
	server.rule(`{"at": "rcpt", "do": "stall"}`)
	_, err := server.mailer("timeout", "50ms").Send(limited(t), &Message{To: To("ann@example.org")})
	wants(t, err, ErrTimeout)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the context has not ended: %v", err)
	}
	soon, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = server.mailer().Send(soon, &Message{To: To("ann@example.org")})
	wants(t, err, ErrTimeout)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the context has ended: %v", err)
	}
}

func TestWhatEndsABatchIsNoMessages(t *testing.T) {
	server := startMailServer(t)
	server.rule(`{"at": "rcpt", "do": "stall", "for": "r1@"}`)
	messages := []*Message{{To: To("r0@example.org")}, {To: To("r1@example.org")}}
	mailer := server.mailer("pool", "1")
	ctx, cancel := context.WithCancel(limited(t))
	defer cancel()
	var places []int
	for place, result := range mailer.SendMany(ctx, messages) {
		places = append(places, place)
		if place == 0 && result.Err == nil {
			cancel()
		} else {
			wants(t, result.Err, ErrCancelled)
		}
	}
	if !slices.Equal(places, []int{0, -1}) {
		t.Errorf("the places are %v", places)
	}

	// Closed in between, the batch ends as it would, and each message has its end.
	server.ask(`{"forget": true}`, &struct{}{})
	mailer = server.mailer("pool", "1")
	messages = append(messages, &Message{To: To("r2@example.org")})
	places = nil
	for place, result := range mailer.SendMany(limited(t), messages) {
		places = append(places, place)
		if code := CodeOf(result.Err); code != 0 && code != ErrClosed {
			t.Error(result.Err)
		}
		if err := mailer.Close(limited(t)); err != nil {
			t.Error(err)
		}
	}
	if slices.Sort(places); !slices.Equal(places, []int{0, 1, 2}) {
		t.Errorf("the places are %v", places)
	}
	for place, result := range mailer.SendMany(limited(t), messages) {
		if place != -1 {
			t.Errorf("the place is %d", place)
		}
		wants(t, result.Err, ErrClosed)
	}
}

func TestABatchTellsOfEachMessage(t *testing.T) {
	server := startMailServer(t)
	mailer := server.mailer()
	defer func() { _ = mailer.Close(limited(t)) }()
	messages := make([]*Message, 12)
	for i := range messages {
		messages[i] = &Message{To: To(fmt.Sprintf("r%d@example.org", i))}
	}
	messages[5] = &Message{}
	seen := map[int]bool{}
	for index, result := range mailer.SendMany(limited(t), messages) {
		seen[index] = true
		if (index == 5) != (CodeOf(result.Err) == ErrInvalidArgument) {
			t.Errorf("%d: %v", index, result.Err)
		}
	}
	if len(seen) != len(messages) || len(server.messages()) != len(messages)-1 {
		t.Errorf("told of %d", len(seen))
	}
}

func TestAnOutboxSendsWhatWasEnqueued(t *testing.T) {
	server := startMailServer(t)
	onEveryStore(t, func(t *testing.T, url string) { sendsWhatWasEnqueued(t, server, url) })
}

func sendsWhatWasEnqueued(t *testing.T, server *mailServer, url string) {
	server.ask(`{"forget": true}`, &struct{}{})
	client := connect(t, url)
	mailer, err := client.Mailer(fmt.Sprintf("smtp://127.0.0.1:%d?tls=none&sender=a@example.org", server.port), nil)
	if err != nil {
		t.Fatal(err)
	}
	outbox, err := client.Outbox("letters", mailer, map[string]string{"poll": "50ms"})
	if err != nil {
		t.Fatal(err)
	}
	first, err := outbox.Enqueue(limited(t), &Message{To: To("ann@example.org"), Text: "x"}, EnqueueOptions{Key: "k"})
	if err != nil || !first.New {
		t.Fatal(first, err)
	}
	again, err := outbox.Enqueue(limited(t), &Message{To: To("bob@example.org")}, EnqueueOptions{Key: "k"})
	if err != nil || again.New || again.ID != first.ID {
		t.Fatal(again, err)
	}
	var senders *Senders
	for event, err := range outbox.Watch(limited(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Event == "gap" {
			if senders, err = outbox.Start(2); err != nil {
				t.Fatal(err)
			}
		}
		if event.Mail != nil && event.Mail.State == MailSent {
			break
		}
	}
	mail, err := outbox.Get(limited(t), first.ID)
	if err != nil || mail.State != MailSent || mail.Recipients[0].Status != Accepted || mail.Attempts != 1 {
		t.Fatalf("%+v %v", mail, err)
	}
	if list, err := outbox.List(limited(t), MailSent, 10); err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if stats, err := outbox.Stats(limited(t)); err != nil || stats[MailSent] != 1 {
		t.Fatal(stats, err)
	}
	wants(t, outbox.Retry(limited(t), first.ID), ErrConflict)
	wants(t, outbox.Cancel(limited(t), "none"), ErrNotFound)
	_, err = outbox.Get(limited(t), "none")
	wants(t, err, ErrNotFound)
	if err := senders.Stop(limited(t)); err != nil {
		t.Fatal(err)
	}
	_, err = outbox.List(limited(t), "", -1)
	wants(t, err, ErrInvalidArgument)
	if count, err := outbox.Purge(limited(t), 0); err != nil || count != 1 {
		t.Fatal(count, err)
	}
	if got := server.messages(); len(got) != 1 || got[0].Rcpt[0] != "ann@example.org" {
		t.Errorf("what arrived is %+v", got)
	}
}

func TestAWatchOfAnOutboxEndsWithItsClient(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		for _, siblings := range []int{0, 1} {
			client, err := Connect(limited(t), url)
			if err != nil {
				t.Fatal(err)
			}
			for range siblings {
				other, err := client.OpenSession(limited(t))
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = other.Close(limited(t)) }()
			}
			mailer, err := client.Mailer("smtp://127.0.0.1?tls=none&sender=a@example.org", nil)
			if err != nil {
				t.Fatal(err)
			}
			outbox, err := client.Outbox("letters", mailer, nil)
			if err != nil {
				t.Fatal(err)
			}
			begun, ended := make(chan struct{}, 1), make(chan struct{})
			go func() {
				defer close(ended)
				for event, err := range outbox.Watch(context.Background()) {
					if err != nil || event.Event != "gap" {
						t.Error(event, err)
					}
					begun <- struct{}{}
				}
			}()
			comes(t, "the gap", begun)
			if err := client.Close(limited(t)); err != nil {
				t.Fatalf("%d siblings: %v", siblings, err)
			}
			comes(t, "the end of the watch", ended)
		}
	})
}

func TestSendersAreStoppedThoughTheContextHasEnded(t *testing.T) {
	server := startMailServer(t)
	client := connect(t, memory(t))
	start := func(name string) (*Outbox, *Senders) {
		outbox, err := client.Outbox("letters", server.mailer("hello", name+".example.org"), map[string]string{"poll": "50ms"})
		if err != nil {
			t.Fatal(err)
		}
		senders, err := outbox.Start(1)
		if err != nil {
			t.Fatal(err)
		}
		return outbox, senders
	}
	outbox, senders := start("first")
	ended, end := context.WithCancel(context.Background())
	end()
	wants(t, senders.Stop(ended), ErrCancelled)
	_, second := start("second")
	for sent := range 10 {
		if _, err := outbox.Enqueue(limited(t), &Message{To: To("ann@example.org")}, EnqueueOptions{}); err != nil {
			t.Fatal(err)
		}
		server.arrived(sent + 1)
	}
	byFirst := 0
	for _, by := range server.senders() {
		if by == "first.example.org" {
			byFirst++
		}
	}
	// A look for mails that had begun before may still find one.
	if byFirst > 1 {
		t.Errorf("%d of 10 were sent by those that were stopped", byFirst)
	}
	for _, one := range []*Senders{senders, second} {
		if err := one.Stop(limited(t)); err != nil {
			t.Error(err)
		}
	}
}

func TestForgottenSendersAreStoppedAndReported(t *testing.T) {
	var report record
	client := connect(t, memory(t), WithLogger(slog.New(slog.NewTextHandler(&report, nil))))
	mailer, err := client.Mailer("smtp://127.0.0.1?tls=none&sender=a@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	outbox, err := client.Outbox("letters", mailer, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, stop := range []bool{true, false} {
		func() {
			senders, err := outbox.Start(1)
			if err != nil {
				t.Fatal(err)
			}
			if stop {
				err = senders.Stop(limited(t))
			}
			if err != nil {
				t.Error(err)
			}
		}()
		if stop {
			runtime.GC()
		}
	}
	becomes(t, "the report", func() bool { runtime.GC(); return report.has("without Stop") && report.has("outbox=letters") })
	if text := report.text.String(); strings.Count(text, "without Stop") != 1 {
		t.Errorf("what was stopped is reported, too: %s", text)
	}
}
