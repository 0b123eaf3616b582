//go:build cgo && linux

package ccoord

// #include <coord.h>
import "C"

// Mailer is a mail server to send through.
type Mailer struct{ h *C.coord_mailer_t }

// MailBatch is messages that are being sent.
type MailBatch struct{ h *C.coord_mail_batch_t }

// Outbox is mails on their way.
type Outbox struct{ h *C.coord_outbox_t }

// OutboxWatch is what happens in an outbox.
type OutboxWatch struct{ h *C.coord_outbox_watch_t }

// Senders send the mails of an outbox.
type Senders struct{ h *C.coord_senders_t }

// NewMailer makes a mailer, of a client if there is one. The options are JSON.
func NewMailer(client *Client, url, options string) (Mailer, *Error) {
	stress()
	var of *C.coord_client_t
	if client != nil {
		of = client.h
	}
	var mailer Mailer
	var e *C.coord_error_t
	u, urlLength := lend(url)
	o, optionsLength := lend(options)
	err := failure(C.coord_mailer_new(of, u, urlLength, o, optionsLength, &mailer.h, &e), e)
	return mailer, err
}

// Location is where the server is.
func (m Mailer) Location() string { return C.GoString(C.coord_mailer_location(m.h)) }

// Send starts sending a message; its event has a text.
func (m Mailer) Send(message string, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(message)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_mailer_send_start(m.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// SendMany begins to send a list of messages.
func (m Mailer) SendMany(messages string) (MailBatch, *Error) {
	stress()
	var batch MailBatch
	var e *C.coord_error_t
	at, length := lend(messages)
	err := failure(C.coord_mailer_send_many(m.h, at, length, &batch.h, &e), e)
	return batch, err
}

// Health starts asking the server.
func (m Mailer) Health(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_mailer_health_start(m.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Close starts closing.
func (m Mailer) Close(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_mailer_close_start(m.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Destroy destroys the handle.
func (m Mailer) Destroy() { C.coord_mailer_destroy(m.h) }

// Next starts waiting for the next message that has ended; its event has a text, or none at the end.
func (b MailBatch) Next(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_mail_batch_next_start(b.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Destroy destroys the handle: what has not begun is not sent.
func (b MailBatch) Destroy() { C.coord_mail_batch_destroy(b.h) }

// Outbox makes the outbox of this name. The options are JSON.
func (c Client) Outbox(name string, mailer Mailer, options string) (Outbox, *Error) {
	stress()
	var outbox Outbox
	var e *C.coord_error_t
	at, length := lend(name)
	o, optionsLength := lend(options)
	err := failure(C.coord_outbox_new(c.h, at, length, mailer.h, o, optionsLength, &outbox.h, &e), e)
	return outbox, err
}

// Enqueue starts putting a mail into the outbox, without a key if that is empty; its event has a text.
func (o Outbox) Enqueue(message, key string, notBeforeMillis, expiresMillis, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(message)
	k, keyLength := lend(key)
	if key == "" {
		k = nil
	}
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_outbox_enqueue_start(o.h, at, length, k, keyLength, C.int64_t(notBeforeMillis),
			C.int64_t(expiresMillis), C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Get starts reading one mail; its event has a text, or none.
func (o Outbox) Get(id string, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(id)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_outbox_get_start(o.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// List starts listing mails, in any state if that is empty; its event has a text.
func (o Outbox) List(state string, limit uint64, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(state)
	if state == "" {
		at = nil
	}
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_outbox_list_start(o.h, at, length, C.uint64_t(limit), C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Stats starts counting mails; its event has a text.
func (o Outbox) Stats(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_outbox_stats_start(o.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Retry starts having a mail sent again.
func (o Outbox) Retry(id string, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(id)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_outbox_retry_start(o.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Cancel starts taking a mail back.
func (o Outbox) Cancel(id string, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(id)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_outbox_cancel_start(o.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Purge starts removing mails that ended so long ago; its event has a text.
func (o Outbox) Purge(olderThanMillis uint64, timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_outbox_purge_start(o.h, C.uint64_t(olderThanMillis), C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Watch makes a watch, which begins with its first Next.
func (o Outbox) Watch() (OutboxWatch, *Error) {
	stress()
	var watch OutboxWatch
	var e *C.coord_error_t
	err := failure(C.coord_outbox_watch_new(o.h, &watch.h, &e), e)
	return watch, err
}

// Start starts to send the mails of the outbox.
func (o Outbox) Start(senders uint32) (Senders, *Error) {
	stress()
	var started Senders
	var e *C.coord_error_t
	err := failure(C.coord_outbox_start(o.h, C.uint32_t(senders), &started.h, &e), e)
	return started, err
}

// Destroy destroys the handle.
func (o Outbox) Destroy() { C.coord_outbox_destroy(o.h) }

// Next starts waiting for the next event of the outbox; its event has a text.
func (w OutboxWatch) Next(to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_outbox_watch_next_start(w.h, -1, q, tag, op, e)
	})
}

// Destroy ends the watch.
func (w OutboxWatch) Destroy() { C.coord_outbox_watch_destroy(w.h) }

// Stop starts waiting for what has begun to end.
func (s Senders) Stop(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_senders_stop_start(s.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Destroy destroys the handle: nothing new is begun.
func (s Senders) Destroy() { C.coord_senders_destroy(s.h) }

// TakeText takes the text out of the event, and whether there is one.
func (e Event) TakeText() (string, bool, *Error) {
	var text *C.coord_text_t
	var err *C.coord_error_t
	if failed := failure(C.coord_event_take_text(e.h, &text, &err), err); failed != nil {
		return "", false, failed
	}
	if text == nil {
		return "", false, nil
	}
	defer C.coord_text_destroy(text)
	return C.GoStringN(C.coord_text_data(text), C.int(C.coord_text_length(text))), true, nil
}
