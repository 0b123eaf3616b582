//go:build cgo && linux

package ccoord

// #include <coord.h>
import "C"

// Election is an election by its name.
type Election struct{ h *C.coord_election_t }

// Term is a term of this client's.
type Term struct{ h *C.coord_term_t }

// LeaderWatch is the story of an election.
type LeaderWatch struct{ h *C.coord_leader_watch_t }

// Candidacy is a function that is to run in every term.
type Candidacy struct{ h *C.coord_candidacy_t }

// Elected is one call of such a function.
type Elected struct{ h *C.coord_elected_t }

// Leader is who leads at one moment.
type Leader struct {
	Session, Name, Host, Value string
	HasValue, IsSelf           bool
	PID                        uint32
	Labels                     map[string]string
	Token, SinceMillis         int64
}

// Candidate is who waits to lead.
type Candidate struct {
	Session, Name, Host string
	PID                 uint32
	Priority            int32
	IsSelf              bool
}

// LossResigned is the reason of a term that was resigned.
const LossResigned = C.COORD_LOSS_RESIGNED

// Election makes the election of this name.
func (c Client) Election(name string) (Election, *Error) {
	stress()
	var election Election
	var e *C.coord_error_t
	at, length := lend(name)
	err := failure(C.coord_election_new(c.h, at, length, &election.h, &e), e)
	return election, err
}

// Name is the full name.
func (l Election) Name() string { return C.GoString(C.coord_election_name(l.h)) }

// IsLeader is whether this client leads now.
func (l Election) IsLeader() bool {
	stress()
	return C.coord_election_is_leader(l.h) != 0
}

// Campaign starts campaigning. A time limit of 0 does not wait its turn.
func (l Election) Campaign(said string, settings []Setting, timeoutMillis int64, to Report) (Op, *Error) {
	set, err := options(settings)
	if err != nil {
		return Op{}, err
	}
	defer C.coord_options_destroy(set)
	at, length := lend(said)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_election_campaign_start(l.h, at, length, set, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeTerm takes the term out of the event.
func (e Event) TakeTerm() (Term, *Error) {
	var term Term
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_term(e.h, &term.h, &err), err)
	return term, failed
}

// Leader starts asking who leads.
func (l Election) Leader(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_election_leader_start(l.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeLeader copies the leader out of the event; nil when nobody leads.
func (e Event) TakeLeader() (*Leader, *Error) {
	var leader *C.coord_leader_t
	var err *C.coord_error_t
	if failed := failure(C.coord_event_take_leader(e.h, &leader, &err), err); failed != nil || leader == nil {
		return nil, failed
	}
	defer C.coord_leader_destroy(leader)
	return &Leader{
		Session:     C.GoString(C.coord_leader_session(leader)),
		Name:        C.GoString(C.coord_leader_name(leader)),
		Host:        C.GoString(C.coord_leader_host(leader)),
		Value:       C.GoString(C.coord_leader_value(leader)),
		HasValue:    C.coord_leader_has_value(leader) != 0,
		IsSelf:      C.coord_leader_is_self(leader) != 0,
		PID:         uint32(C.coord_leader_pid(leader)),
		Token:       int64(C.coord_leader_token(leader)),
		SinceMillis: int64(C.coord_leader_since_ms(leader)),
		Labels: labels(C.coord_leader_label_count(leader),
			func(i C.size_t) *C.char { return C.coord_leader_label_key(leader, i) },
			func(i C.size_t) *C.char { return C.coord_leader_label_value(leader, i) }),
	}, nil
}

// Candidates starts listing who waits to lead.
func (l Election) Candidates(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_election_candidates_start(l.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeCandidates copies the candidates out of the event.
func (e Event) TakeCandidates() ([]Candidate, *Error) {
	var list *C.coord_candidate_list_t
	var err *C.coord_error_t
	if failed := failure(C.coord_event_take_candidates(e.h, &list, &err), err); failed != nil {
		return nil, failed
	}
	defer C.coord_candidate_list_destroy(list)
	candidates := make([]Candidate, C.coord_candidate_list_count(list))
	for i := range candidates {
		at := C.size_t(i)
		candidates[i] = Candidate{
			Session:  C.GoString(C.coord_candidate_list_session(list, at)),
			Name:     C.GoString(C.coord_candidate_list_name(list, at)),
			Host:     C.GoString(C.coord_candidate_list_host(list, at)),
			PID:      uint32(C.coord_candidate_list_pid(list, at)),
			Priority: int32(C.coord_candidate_list_priority(list, at)),
			IsSelf:   C.coord_candidate_list_is_self(list, at) != 0,
		}
	}
	return candidates, nil
}

// Observe starts beginning to observe.
func (l Election) Observe(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_election_observe_start(l.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeLeaderWatch takes the watch out of the event.
func (e Event) TakeLeaderWatch() (LeaderWatch, *Error) {
	var watch LeaderWatch
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_leader_watch(e.h, &watch.h, &err), err)
	return watch, failed
}

// Next starts waiting for the next event, a leader.
func (w LeaderWatch) Next(to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_leader_watch_next_start(w.h, q, tag, op, e)
	})
}

// Destroy ends the watch.
func (w LeaderWatch) Destroy() { C.coord_leader_watch_destroy(w.h) }

// WhenElected registers a function.
func (l Election) WhenElected(said string, settings []Setting) (Candidacy, *Error) {
	stress()
	var candidacy Candidacy
	set, err := options(settings)
	if err != nil {
		return candidacy, err
	}
	defer C.coord_options_destroy(set)
	var e *C.coord_error_t
	at, length := lend(said)
	err = failure(C.coord_election_when_elected(l.h, at, length, set, &candidacy.h, &e), e)
	return candidacy, err
}

// Destroy destroys the handle.
func (l Election) Destroy() { C.coord_election_destroy(l.h) }

// Next starts waiting for the next call.
func (c Candidacy) Next(to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_candidacy_next_start(c.h, q, tag, op, e)
	})
}

// TakeElected takes the call out of the event.
func (e Event) TakeElected() (Elected, *Error) {
	var elected Elected
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_elected(e.h, &elected.h, &err), err)
	return elected, failed
}

// Close starts ending the candidacy.
func (c Candidacy) Close(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_candidacy_close_start(c.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Destroy ends the candidacy without waiting.
func (c Candidacy) Destroy() { C.coord_candidacy_destroy(c.h) }

// Term is the term of the call.
func (c Elected) Term() (Term, *Error) {
	var term Term
	var e *C.coord_error_t
	err := failure(C.coord_elected_term(c.h, &term.h, &e), e)
	return term, err
}

// Complete says that the function has returned, with an error unless it is empty.
func (c Elected) Complete(failed bool, message string) *Error {
	var e *C.coord_error_t
	if !failed {
		return failure(C.coord_elected_complete(c.h, nil, 0, &e), e)
	}
	at, length := lend(message)
	return failure(C.coord_elected_complete(c.h, at, length, &e), e)
}

// Destroy destroys the call, which has failed unless it was completed.
func (c Elected) Destroy() { C.coord_elected_destroy(c.h) }

// Name is the full name of the election.
func (t Term) Name() string { return C.GoString(C.coord_term_name(t.h)) }

// Token is the fencing token.
func (t Term) Token() int64 {
	stress()
	return int64(C.coord_term_token(t.h))
}

// RemainingMillis is how long the term stays valid without another renewal.
func (t Term) RemainingMillis() int64 {
	stress()
	return int64(C.coord_term_remaining_ms(t.h))
}

// Loss is why the term is over.
func (t Term) Loss() int32 {
	stress()
	return int32(C.coord_term_loss(t.h))
}

// Value is what is published.
func (t Term) Value() (string, *Error) {
	stress()
	var text *C.coord_text_t
	var e *C.coord_error_t
	if err := failure(C.coord_term_value(t.h, &text, &e), e); err != nil {
		return "", err
	}
	return takeText(text), nil
}

// Check checks that this client leads now.
func (t Term) Check() *Error {
	stress()
	// Without an error to fill, a check that succeeds allocates nothing.
	if C.coord_term_check(t.h, nil) == C.COORD_OK {
		return nil
	}
	var e *C.coord_error_t
	return failure(C.coord_term_check(t.h, &e), e)
}

// Ensure starts making sure that the term stays valid.
func (t Term) Ensure(durationMillis, timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_term_ensure_start(t.h, C.int64_t(durationMillis), C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// WaitLost starts waiting for the end of the term.
func (t Term) WaitLost(to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_term_wait_lost_start(t.h, q, tag, op, e)
	})
}

// Proclaim starts publishing another value.
func (t Term) Proclaim(said string, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(said)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_term_proclaim_start(t.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Resign starts ending the term.
func (t Term) Resign(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_term_resign_start(t.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Transfer starts handing the term over.
func (t Term) Transfer(session string, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(session)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_term_transfer_start(t.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Destroy destroys the handle, and resigns in the background a term that was campaigned for.
func (t Term) Destroy() { C.coord_term_destroy(t.h) }
