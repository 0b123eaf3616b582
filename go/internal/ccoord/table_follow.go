//go:build cgo && linux

package ccoord

// #include <coord.h>
import "C"

// TableWatch is the changes of a table.
type TableWatch struct{ h *C.coord_table_watch_t }

// Delivery is one event of a watch, until it is done.
type Delivery struct{ h *C.coord_delivery_t }

// Delivered is what a delivery says.
type Delivered struct {
	Type                    int32
	Key, Document, Previous []byte
	Revision, Position      uint64
	HasRevision             bool
	Failures                uint32
}

// TableLog is the log of a table.
type TableLog struct{ h *C.coord_table_log_t }

// LogEntry is one change of a document.
type LogEntry struct {
	Source             string
	Operation          int32
	AtMillis           int64
	Key                []byte
	Changed            []string
	Revision, Position uint64
	HasRevision        bool
}

// CachedTable is a table with a copy in memory.
type CachedTable struct{ h *C.coord_cached_table_t }

// What a delivery tells.
const (
	TableInit      = C.COORD_TABLE_INIT
	TableInitApply = C.COORD_TABLE_INIT_APPLY
	TableInitDone  = C.COORD_TABLE_INIT_DONE
	TableApply     = C.COORD_TABLE_APPLY
	TableDelete    = C.COORD_TABLE_DELETE
)

// Where a log begins, and what it tells.
const (
	LogFromNow       = C.COORD_LOG_FROM_NOW
	LogFromPosition  = C.COORD_LOG_FROM_POSITION
	LogFromTime      = C.COORD_LOG_FROM_TIME
	OperationInsert  = C.COORD_OPERATION_INSERT
	OperationUpdate  = C.COORD_OPERATION_UPDATE
	OperationReplace = C.COORD_OPERATION_REPLACE
	OperationDelete  = C.COORD_OPERATION_DELETE
)

// Watch makes a watch.
func (t Table) Watch(filter []byte, from *uint64, settings []Setting) (TableWatch, *Error) {
	stress()
	set, err := options(settings)
	if err != nil {
		return TableWatch{}, err
	}
	defer C.coord_options_destroy(set)
	var watch TableWatch
	var e *C.coord_error_t
	at, length := lendBytes(filter)
	err = failure(C.coord_table_watch(t.h, at, length, (*C.uint64_t)(from), set, &watch.h, &e), e)
	return watch, err
}

// Next starts waiting for the next delivery.
func (w TableWatch) Next(to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_table_watch_next_start(w.h, q, tag, op, e)
	})
}

// Destroy ends the watch.
func (w TableWatch) Destroy() { C.coord_table_watch_destroy(w.h) }

// TakeDelivery takes the delivery out of the event.
func (e Event) TakeDelivery() (Delivery, *Error) {
	var delivery Delivery
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_delivery(e.h, &delivery.h, &err), err)
	return delivery, failed
}

// Read copies what the delivery says.
func (d Delivery) Read() Delivered {
	return Delivered{
		Type:        int32(C.coord_delivery_type(d.h)),
		Key:         copied(C.coord_delivery_key(d.h), C.coord_delivery_key_length(d.h)),
		Document:    copied(C.coord_delivery_document(d.h), C.coord_delivery_document_length(d.h)),
		Previous:    copied(C.coord_delivery_previous(d.h), C.coord_delivery_previous_length(d.h)),
		Revision:    uint64(C.coord_delivery_revision(d.h)),
		HasRevision: C.coord_delivery_has_revision(d.h) != 0,
		Position:    uint64(C.coord_delivery_position(d.h)),
		Failures:    uint32(C.coord_delivery_failures(d.h)),
	}
}

// Done says how it went: failed, with what was wrong, or well.
func (d Delivery) Done(failed bool, message string) *Error {
	stress()
	var e *C.coord_error_t
	if !failed {
		return failure(C.coord_delivery_done(d.h, nil, 0, &e), e)
	}
	at, length := lend(message)
	return failure(C.coord_delivery_done(d.h, at, length, &e), e)
}

// Destroy destroys the delivery; one that was not done comes again.
func (d Delivery) Destroy() { C.coord_delivery_destroy(d.h) }

// Log starts opening the log.
func (t Table) Log(from int32, place uint64, timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_table_log_start(t.h, C.int32_t(from), C.uint64_t(place), C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeTableLog takes the log out of the event.
func (e Event) TakeTableLog() (TableLog, *Error) {
	var log TableLog
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_table_log(e.h, &log.h, &err), err)
	return log, failed
}

// Next starts waiting for the next entry.
func (l TableLog) Next(to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_table_log_next_start(l.h, q, tag, op, e)
	})
}

// Destroy ends the log.
func (l TableLog) Destroy() { C.coord_table_log_destroy(l.h) }

// TakeLogEntry copies the entry out of the event.
func (e Event) TakeLogEntry() (LogEntry, *Error) {
	var entry *C.coord_log_entry_t
	var err *C.coord_error_t
	if failed := failure(C.coord_event_take_log_entry(e.h, &entry, &err), err); failed != nil {
		return LogEntry{}, failed
	}
	defer C.coord_log_entry_destroy(entry)
	changed := make([]string, C.coord_log_entry_changed_count(entry))
	for i := range changed {
		changed[i] = C.GoString(C.coord_log_entry_changed_at(entry, C.size_t(i)))
	}
	return LogEntry{
		Source:      C.GoString(C.coord_log_entry_source(entry)),
		Operation:   int32(C.coord_log_entry_operation(entry)),
		AtMillis:    int64(C.coord_log_entry_at_ms(entry)),
		Key:         copied(C.coord_log_entry_key(entry), C.coord_log_entry_key_length(entry)),
		Changed:     changed,
		Revision:    uint64(C.coord_log_entry_revision(entry)),
		HasRevision: C.coord_log_entry_has_revision(entry) != 0,
		Position:    uint64(C.coord_log_entry_position(entry)),
	}, nil
}

// Cached starts copying the table into memory.
func (t Table) Cached(filter []byte, settings []Setting, timeoutMillis int64, to Report) (Op, *Error) {
	set, err := options(settings)
	if err != nil {
		return Op{}, err
	}
	defer C.coord_options_destroy(set)
	at, length := lendBytes(filter)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_cached_table_open_start(t.h, at, length, set, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeCachedTable takes the cached table out of the event.
func (e Event) TakeCachedTable() (CachedTable, *Error) {
	var cached CachedTable
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_cached_table(e.h, &cached.h, &err), err)
	return cached, failed
}

// Get reads the document of a key from memory.
func (c CachedTable) Get(key []byte) (Stored, *Error) {
	stress()
	var stored *C.coord_stored_t
	var e *C.coord_error_t
	at, length := lendBytes(key)
	if failed := failure(C.coord_cached_table_get(c.h, at, length, &stored, &e), e); failed != nil {
		return Stored{}, failed
	}
	defer C.coord_stored_destroy(stored)
	return copyStored(stored), nil
}

// Find reads documents from memory.
func (c CachedTable) Find(filter []byte, settings []Setting) ([]Stored, *Error) {
	stress()
	set, failed := options(settings)
	if failed != nil {
		return nil, failed
	}
	defer C.coord_options_destroy(set)
	var list *C.coord_stored_list_t
	var e *C.coord_error_t
	at, length := lendBytes(filter)
	if failed := failure(C.coord_cached_table_find(c.h, at, length, set, &list, &e), e); failed != nil {
		return nil, failed
	}
	return takeList(list), nil
}

// Count counts documents in memory.
func (c CachedTable) Count(filter []byte) (uint64, *Error) {
	stress()
	var count C.uint64_t
	var e *C.coord_error_t
	at, length := lendBytes(filter)
	failed := failure(C.coord_cached_table_count(c.h, at, length, &count, &e), e)
	return uint64(count), failed
}

// Write starts writing to the store; its event has what was written.
func (c CachedTable) Write(w Write, timeoutMillis int64, to Report) (Op, *Error) {
	key, keyLength := lendBytes(w.Key)
	document, length := lendBytes(w.Document)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_cached_table_write_start(c.h, C.int32_t(w.Action), key, keyLength, document, length,
			(*C.uint64_t)(w.Revision), w.Fence.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// WaitUntil starts waiting until the copy shows a position.
func (c CachedTable) WaitUntil(position uint64, timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_cached_table_wait_until_start(c.h, C.uint64_t(position), C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Position is up to where the copy shows everything.
func (c CachedTable) Position() uint64 { return uint64(C.coord_cached_table_position(c.h)) }

// IsSynced is whether the copy follows the store.
func (c CachedTable) IsSynced() bool { return C.coord_cached_table_is_synced(c.h) != 0 }

// Bytes is how many bytes the copy takes.
func (c CachedTable) Bytes() int { return int(C.coord_cached_table_bytes(c.h)) }

// Destroy ends the copy.
func (c CachedTable) Destroy() { C.coord_cached_table_destroy(c.h) }
