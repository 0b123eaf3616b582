//go:build cgo && linux

package ccoord

// #include <coord.h>
import "C"

// Table is a table of documents, which cross as BSON.
type Table struct{ h *C.coord_table_t }

// Fence is by which right writes are done. The zero value is none.
type Fence struct{ h *C.coord_fence_t }

// Cursor is results of a read.
type Cursor struct{ h *C.coord_cursor_t }

// Stored is a document as it was read.
type Stored struct {
	Key, Document []byte
	Revision      uint64
	HasRevision   bool
}

// Written is what a write has done.
type Written struct {
	Document             []byte
	Revision, Position   uint64
	HasRevision, Created bool
}

// What a write does.
const (
	WriteInsert  = C.COORD_WRITE_INSERT
	WritePut     = C.COORD_WRITE_PUT
	WriteUpdate  = C.COORD_WRITE_UPDATE
	WriteUpsert  = C.COORD_WRITE_UPSERT
	WriteLocate  = C.COORD_WRITE_LOCATE
	WriteReplace = C.COORD_WRITE_REPLACE
	WriteDelete  = C.COORD_WRITE_DELETE
)

// Write is a write to one document.
type Write struct {
	Action        int32
	Key, Document []byte
	// Revision is the condition, if there is one.
	Revision *uint64
	Fence    Fence
}

// Table makes the table of this name.
func (c Client) Table(name string) (Table, *Error) {
	stress()
	var table Table
	var e *C.coord_error_t
	at, length := lend(name)
	err := failure(C.coord_table_new(c.h, at, length, C.COORD_FORMAT_BSON, &table.h, &e), e)
	return table, err
}

// Fence makes the fence of the hold.
func (h Held) Fence(strict bool) (Fence, *Error) {
	stress()
	var fence Fence
	var e *C.coord_error_t
	err := failure(C.coord_held_fence(h.h, truth(strict), &fence.h, &e), e)
	return fence, err
}

// Fence makes the fence of the term.
func (t Term) Fence(strict bool) (Fence, *Error) {
	stress()
	var fence Fence
	var e *C.coord_error_t
	err := failure(C.coord_term_fence(t.h, truth(strict), &fence.h, &e), e)
	return fence, err
}

// Fence makes the fence of what the run is done under.
func (w Work) Fence(strict bool) (Fence, *Error) {
	stress()
	var fence Fence
	var e *C.coord_error_t
	err := failure(C.coord_work_fence(w.h, truth(strict), &fence.h, &e), e)
	return fence, err
}

func truth(is bool) C.int32_t {
	if is {
		return 1
	}
	return 0
}

// Destroy destroys the handle; the hold is not affected.
func (f Fence) Destroy() { C.coord_fence_destroy(f.h) }

// Destroy destroys the handle; the documents stay.
func (t Table) Destroy() { C.coord_table_destroy(t.h) }

// Write starts writing; its event has what was written.
func (t Table) Write(w Write, timeoutMillis int64, to Report) (Op, *Error) {
	key, keyLength := lendBytes(w.Key)
	document, length := lendBytes(w.Document)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_table_write_start(t.h, C.int32_t(w.Action), key, keyLength, document, length,
			(*C.uint64_t)(w.Revision), w.Fence.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeWritten copies what was written out of the event.
func (e Event) TakeWritten() (Written, *Error) {
	var written *C.coord_written_t
	var err *C.coord_error_t
	if failed := failure(C.coord_event_take_written(e.h, &written, &err), err); failed != nil {
		return Written{}, failed
	}
	defer C.coord_written_destroy(written)
	return Written{
		Document:    copied(C.coord_written_document(written), C.coord_written_document_length(written)),
		Revision:    uint64(C.coord_written_revision(written)),
		HasRevision: C.coord_written_has_revision(written) != 0,
		Position:    uint64(C.coord_written_position(written)),
		Created:     C.coord_written_created(written) != 0,
	}, nil
}

// WriteMany starts writing every document that matches: updates, or deletes without an update.
func (t Table) WriteMany(filter, update []byte, fence Fence, timeoutMillis int64, to Report) (Op, *Error) {
	action := C.int32_t(WriteDelete)
	if update != nil {
		action = WriteUpdate
	}
	f, filterLength := lendBytes(filter)
	u, updateLength := lendBytes(update)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_table_write_many_start(t.h, action, f, filterLength, u, updateLength, fence.h,
			C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeManyWritten copies out of the event how many were written, and the position of the last.
func (e Event) TakeManyWritten() (count, position uint64, failed *Error) {
	var c, p C.uint64_t
	var err *C.coord_error_t
	failed = failure(C.coord_event_take_many_written(e.h, &c, &p, &err), err)
	return uint64(c), uint64(p), failed
}

// Get starts reading the document of a key.
func (t Table) Get(key []byte, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lendBytes(key)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_table_get_start(t.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeStored copies the document out of the event.
func (e Event) TakeStored() (Stored, *Error) {
	var stored *C.coord_stored_t
	var err *C.coord_error_t
	if failed := failure(C.coord_event_take_stored(e.h, &stored, &err), err); failed != nil {
		return Stored{}, failed
	}
	defer C.coord_stored_destroy(stored)
	return copyStored(stored), nil
}

func copyStored(stored *C.coord_stored_t) Stored {
	return Stored{
		Key:         copied(C.coord_stored_key(stored), C.coord_stored_key_length(stored)),
		Document:    copied(C.coord_stored_document(stored), C.coord_stored_document_length(stored)),
		Revision:    uint64(C.coord_stored_revision(stored)),
		HasRevision: C.coord_stored_has_revision(stored) != 0,
	}
}

// takeList copies a list of documents, and destroys it.
func takeList(list *C.coord_stored_list_t) []Stored {
	defer C.coord_stored_list_destroy(list)
	documents := make([]Stored, C.coord_stored_list_count(list))
	for i := range documents {
		documents[i] = copyStored(C.coord_stored_list_at(list, C.size_t(i)))
	}
	return documents
}

// Find starts a read.
func (t Table) Find(filter []byte, settings []Setting, timeoutMillis int64, to Report) (Op, *Error) {
	set, err := options(settings)
	if err != nil {
		return Op{}, err
	}
	defer C.coord_options_destroy(set)
	at, length := lendBytes(filter)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_table_find_start(t.h, at, length, set, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Aggregate starts an aggregation.
func (t Table) Aggregate(pipeline []byte, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lendBytes(pipeline)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_table_aggregate_start(t.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeCursor takes the cursor out of the event.
func (e Event) TakeCursor() (Cursor, *Error) {
	var cursor Cursor
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_cursor(e.h, &cursor.h, &err), err)
	return cursor, failed
}

// Next starts fetching the next documents.
func (c Cursor) Next(most int, timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_cursor_next_start(c.h, C.size_t(most), C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeStoredList copies the documents out of the event.
func (e Event) TakeStoredList() ([]Stored, *Error) {
	var list *C.coord_stored_list_t
	var err *C.coord_error_t
	if failed := failure(C.coord_event_take_stored_list(e.h, &list, &err), err); failed != nil {
		return nil, failed
	}
	return takeList(list), nil
}

// Destroy destroys the cursor.
func (c Cursor) Destroy() { C.coord_cursor_destroy(c.h) }

// Count starts counting the documents that match.
func (t Table) Count(filter []byte, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lendBytes(filter)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_table_count_start(t.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeNumber copies the number out of the event.
func (e Event) TakeNumber() (uint64, *Error) {
	var number C.uint64_t
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_number(e.h, &number, &err), err)
	return uint64(number), failed
}

// EnsureIndexes starts making indexes.
func (t Table) EnsureIndexes(indexes []byte, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lendBytes(indexes)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_table_ensure_indexes_start(t.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Configure starts setting how the table is kept.
func (t Table) Configure(settings []Setting, timeoutMillis int64, to Report) (Op, *Error) {
	set, err := options(settings)
	if err != nil {
		return Op{}, err
	}
	defer C.coord_options_destroy(set)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_table_configure_start(t.h, set, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Drop starts removing the table.
func (t Table) Drop(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_table_drop_start(t.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}
