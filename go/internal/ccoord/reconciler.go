//go:build cgo && linux

package ccoord

// #include <coord.h>
import "C"

import "unsafe"

// Source is where the keys of a reconciler come from.
type Source struct{ h *C.coord_source_t }

// Reconciler is a function that is to run for every key of a source.
type Reconciler struct{ h *C.coord_reconciler_t }

// Work is one run of one key.
type Work struct{ h *C.coord_work_t }

// WorkInfo is what a run is about.
type WorkInfo struct {
	// Key and Document are BSON; Document is nil where there is none.
	Key, Document []byte
	HasRevision   bool
	Revision      uint64
	Attempt       uint32
	Token         int64
}

// ReconcilerStats are the counters of a reconciler, in the order of their numbers, and the shards of this replica.
type ReconcilerStats struct {
	Values []int64
	Shards []uint32
}

// ParkedKey is a key that cannot be reconciled.
type ParkedKey struct {
	Key          []byte
	Reason       string
	ParkedMillis int64
}

// The outcomes of a run.
const (
	OutcomeDone         = C.COORD_OUTCOME_DONE
	OutcomeRequeueAfter = C.COORD_OUTCOME_REQUEUE_AFTER
	OutcomeError        = C.COORD_OUTCOME_ERROR
	OutcomeErrorAfter   = C.COORD_OUTCOME_ERROR_AFTER
	OutcomeTerminal     = C.COORD_OUTCOME_TERMINAL
)

// ReconcilerStatCount is how many counters of a reconciler the header knows.
const ReconcilerStatCount = C.COORD_RECONCILER_STAT_PAUSED + 1

// ReconcilerStatName is the name of a counter, empty where the library has no more.
func ReconcilerStatName(stat int) string {
	return C.GoString(C.coord_reconciler_stat_name(C.int32_t(stat)))
}

// SourceTable makes a source of the documents of a table that match, which is BSON; nil for all of them.
func (c Client) SourceTable(name string, filter []byte) (Source, *Error) {
	stress()
	var source Source
	var table *C.coord_table_t
	var e *C.coord_error_t
	at, length := lend(name)
	if err := failure(C.coord_table_new(c.h, at, length, C.COORD_FORMAT_BSON, &table, &e), e); err != nil {
		return source, err
	}
	defer C.coord_table_destroy(table)
	which, size := lendBytes(filter)
	err := failure(C.coord_source_table(table, which, size, &source.h, &e), e)
	return source, err
}

// SourceObserver makes a source of the services that an observer sees.
func SourceObserver(pattern string) (Source, *Error) {
	stress()
	var source Source
	var e *C.coord_error_t
	at, length := lend(pattern)
	err := failure(C.coord_source_observer(at, length, &source.h, &e), e)
	return source, err
}

// SourceReleasedLocks makes a source of the locks that became free.
func SourceReleasedLocks(prefix string) (Source, *Error) {
	stress()
	var source Source
	var e *C.coord_error_t
	at, length := lend(prefix)
	err := failure(C.coord_source_released_locks(at, length, &source.h, &e), e)
	return source, err
}

// SourceManual makes a source of keys that are added by hand.
func SourceManual() (Source, *Error) {
	stress()
	var source Source
	var e *C.coord_error_t
	err := failure(C.coord_source_manual(&source.h, &e), e)
	return source, err
}

// Destroy destroys the source; what was made from it goes on.
func (s Source) Destroy() { C.coord_source_destroy(s.h) }

// Reconcile starts starting a reconciler, whose keys and documents are BSON.
func (c Client) Reconcile(name string, source Source, settings []Setting, timeoutMillis int64, to Report) (Op, *Error) {
	set, err := options(settings)
	if err != nil {
		return Op{}, err
	}
	defer C.coord_options_destroy(set)
	at, length := lend(name)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_client_reconcile_start(
			c.h, at, length, source.h, C.COORD_FORMAT_BSON, set, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeReconciler takes the reconciler out of the event.
func (e Event) TakeReconciler() (Reconciler, *Error) {
	var reconciler Reconciler
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_reconciler(e.h, &reconciler.h, &err), err)
	return reconciler, failed
}

// Name is the full name.
func (r Reconciler) Name() string { return C.GoString(C.coord_reconciler_name(r.h)) }

// Next starts waiting for the next run.
func (r Reconciler) Next(to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_reconciler_next_start(r.h, q, tag, op, e)
	})
}

// TakeWork takes the run out of the event.
func (e Event) TakeWork() (Work, *Error) {
	var work Work
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_work(e.h, &work.h, &err), err)
	return work, failed
}

// Add runs a key, and returns whether that was news.
func (r Reconciler) Add(key []byte) (bool, *Error) {
	stress()
	var news C.int32_t
	var e *C.coord_error_t
	at, length := lendBytes(key)
	err := failure(C.coord_reconciler_add(r.h, at, length, &news, &e), e)
	return news != 0, err
}

// AddAfter runs a key later, and returns whether that was news.
func (r Reconciler) AddAfter(key []byte, delayMillis int64) (bool, *Error) {
	stress()
	var news C.int32_t
	var e *C.coord_error_t
	at, length := lendBytes(key)
	err := failure(C.coord_reconciler_add_after(r.h, at, length, C.int64_t(delayMillis), &news, &e), e)
	return news != 0, err
}

// Cancel forgets what is planned for a key, and returns whether there was anything.
func (r Reconciler) Cancel(key []byte) (bool, *Error) {
	stress()
	var was C.int32_t
	var e *C.coord_error_t
	at, length := lendBytes(key)
	err := failure(C.coord_reconciler_cancel(r.h, at, length, &was, &e), e)
	return was != 0, err
}

// Pause begins no run until Resume.
func (r Reconciler) Pause() *Error {
	stress()
	var e *C.coord_error_t
	return failure(C.coord_reconciler_pause(r.h, &e), e)
}

// Resume ends a pause.
func (r Reconciler) Resume() *Error {
	stress()
	var e *C.coord_error_t
	return failure(C.coord_reconciler_resume(r.h, &e), e)
}

// Drain starts draining.
func (r Reconciler) Drain(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_reconciler_drain_start(r.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Close starts ending the reconciler.
func (r Reconciler) Close(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_reconciler_close_start(r.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// WaitUntilReconciled starts waiting until every change of a key up to this position has been run.
func (r Reconciler) WaitUntilReconciled(key []byte, position uint64, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lendBytes(key)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_reconciler_wait_until_reconciled_start(
			r.h, at, length, C.uint64_t(position), C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Stats are the counters.
func (r Reconciler) Stats() (ReconcilerStats, *Error) {
	stress()
	var stats *C.coord_reconciler_stats_t
	var e *C.coord_error_t
	if err := failure(C.coord_reconciler_stats(r.h, &stats, &e), e); err != nil {
		return ReconcilerStats{}, err
	}
	defer C.coord_reconciler_stats_destroy(stats)
	taken := ReconcilerStats{
		Values: make([]int64, ReconcilerStatCount),
		Shards: make([]uint32, C.coord_reconciler_stats_shard_count(stats)),
	}
	for i := range taken.Values {
		taken.Values[i] = int64(C.coord_reconciler_stats_value(stats, C.int32_t(i)))
	}
	for i := range taken.Shards {
		taken.Shards[i] = uint32(C.coord_reconciler_stats_shard(stats, C.size_t(i)))
	}
	return taken, nil
}

// Parked are the keys that cannot be reconciled.
func (r Reconciler) Parked() ([]ParkedKey, *Error) {
	stress()
	var list *C.coord_parked_list_t
	var e *C.coord_error_t
	if err := failure(C.coord_reconciler_parked(r.h, &list, &e), e); err != nil {
		return nil, err
	}
	defer C.coord_parked_list_destroy(list)
	parked := make([]ParkedKey, C.coord_parked_list_count(list))
	for i := range parked {
		at := C.size_t(i)
		parked[i] = ParkedKey{
			Key:          copied(C.coord_parked_list_key(list, at), C.coord_parked_list_key_length(list, at)),
			Reason:       C.GoString(C.coord_parked_list_reason(list, at)),
			ParkedMillis: int64(C.coord_parked_list_parked_ms(list, at)),
		}
	}
	return parked, nil
}

// Destroy ends the reconciler without waiting.
func (r Reconciler) Destroy() { C.coord_reconciler_destroy(r.h) }

// Info copies what the run is about.
func (w Work) Info() WorkInfo {
	stress()
	info := WorkInfo{
		Key:         copied(C.coord_work_key(w.h), C.coord_work_key_length(w.h)),
		HasRevision: C.coord_work_has_revision(w.h) != 0,
		Revision:    uint64(C.coord_work_revision(w.h)),
		Attempt:     uint32(C.coord_work_attempt(w.h)),
		Token:       int64(C.coord_work_token(w.h)),
	}
	if C.coord_work_has_document(w.h) != 0 {
		info.Document = copied(C.coord_work_document(w.h), C.coord_work_document_length(w.h))
	}
	return info
}

// IsCancelled is whether the run is asked to stop.
func (w Work) IsCancelled() bool {
	stress()
	return C.coord_work_is_cancelled(w.h) != 0
}

// Check checks that the run may go on.
func (w Work) Check() *Error {
	stress()
	// Without an error to fill, a check that succeeds allocates nothing.
	if C.coord_work_check(w.h, nil) == C.COORD_OK {
		return nil
	}
	var e *C.coord_error_t
	return failure(C.coord_work_check(w.h, &e), e)
}

// WaitCancelled starts waiting until the run is asked to stop.
func (w Work) WaitCancelled(to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_work_wait_cancelled_start(w.h, q, tag, op, e)
	})
}

// Complete says what the run has come to. Only an error has a message.
func (w Work) Complete(outcome int32, afterMillis int64, message string) *Error {
	stress()
	var e *C.coord_error_t
	if outcome == OutcomeDone || outcome == OutcomeRequeueAfter {
		return failure(C.coord_work_complete(w.h, C.int32_t(outcome), C.int64_t(afterMillis), nil, 0, &e), e)
	}
	at, length := lend(message)
	return failure(C.coord_work_complete(w.h, C.int32_t(outcome), C.int64_t(afterMillis), at, length, &e), e)
}

// Destroy destroys the run, which has failed unless it was completed.
func (w Work) Destroy() { C.coord_work_destroy(w.h) }

// lendBytes gives C bytes for the length of one call; nil is NULL.
func lendBytes(bytes []byte) (unsafe.Pointer, C.size_t) {
	return unsafe.Pointer(unsafe.SliceData(bytes)), C.size_t(len(bytes))
}

// copied copies bytes that C lends.
func copied(at *C.char, length C.size_t) []byte {
	return C.GoBytes(unsafe.Pointer(at), C.int(length))
}
