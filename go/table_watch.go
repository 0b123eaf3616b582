package coord

import (
	"context"
	"iter"
	"runtime"
	"time"

	"coord/internal/ccoord"
)

// TableChange is what a watch of a table tells.
type TableChange int32

const (
	// TableInit: a snapshot begins; what is not shown up to TableInitDone is not there any more.
	TableInit TableChange = ccoord.TableInit
	// TableInitApply: a document of the snapshot.
	TableInitApply TableChange = ccoord.TableInitApply
	// TableInitDone: the snapshot is complete.
	TableInitDone TableChange = ccoord.TableInitDone
	// TableApply: a document was made or has changed, or matches the filter now.
	TableApply TableChange = ccoord.TableApply
	// TableDelete: a document was removed, or matches the filter no more.
	TableDelete TableChange = ccoord.TableDelete
)

// String returns "init", "init_apply", "init_done", "apply" or "delete".
func (c TableChange) String() string {
	switch c {
	case TableInit:
		return "init"
	case TableInitApply:
		return "init_apply"
	case TableInitDone:
		return "init_done"
	case TableApply:
		return "apply"
	case TableDelete:
		return "delete"
	}
	return "unknown"
}

// TableEvent is one event of a watch.
type TableEvent[K, V any] struct {
	Change TableChange
	// Key is the document's key; the zero value for TableInit and TableInitDone.
	Key K
	// Value is the document: as of this change, or on MongoDB perhaps as of a later one. nil where there is none.
	Value *V
	// Previous is what the document was before, where that was asked for and is known; else nil.
	Previous *V
	// Revision is the state of the document.
	Revision    Revision
	HasRevision bool
	// Position is up to where everything has been told, with this event: a later watch may begin here, and misses
	// nothing. That is the event's own place, or the one before while other changes of its place may follow: those of
	// one transaction on MongoDB, and every change on MongoDB 6.1 or later. Those of its place come again then. 0 within
	// a snapshot.
	Position Position
	// Failures is how often this event was delivered before.
	Failures int
}

// TableWatchOption changes how a table is watched.
type TableWatchOption func(*tableWatchOptions)

type tableWatchOptions struct {
	from     *Position
	previous bool
}

// FromPosition watches without a snapshot, from the change after this place on. If the store no longer has it, there is
// a snapshot after all. One that is still to come is ErrInvalidArgument in memory and on SQLite; on MongoDB the watch
// waits for it.
func FromPosition(position Position) TableWatchOption {
	return func(o *tableWatchOptions) { o.from = &position }
}

// WithPrevious also shows what a document was before a change, where the table keeps that: [TableOptions], always in
// memory.
func WithPrevious() TableWatchOption { return func(o *tableWatchOptions) { o.previous = true } }

// TableWatch is the changes of a table, each acknowledged. It is ended by Close, or when it is forgotten.
type TableWatch[K, V any] struct {
	table   *table
	watch   ccoord.TableWatch
	cleanup runtime.Cleanup
}

// Watch watches the documents that match: a snapshot in brackets, then changes, through outages of the store. It does not
// wait: the first Next begins.
func (t *Table[K, V]) Watch(filter any, options ...TableWatchOption) (*TableWatch[K, V], error) {
	defer runtime.KeepAlive(t.table)
	op := t.op("watch")
	where, err := filterOf(op, filter)
	if err != nil {
		return nil, err
	}
	var o tableWatchOptions
	for _, option := range options {
		if option != nil {
			option(&o)
		}
	}
	set := []ccoord.Setting{{Name: "previous", Number: number(o.previous)}}
	watch, failed := t.table.table.Watch(where, (*uint64)(o.from), set)
	if failed != nil {
		return nil, t.client.inner().newError(op, failed)
	}
	w := &TableWatch[K, V]{table: t.table, watch: watch}
	w.cleanup = runtime.AddCleanup(w, ccoord.TableWatch.Destroy, watch)
	return w, nil
}

// TableDelivery is one event of a watch, which Done acknowledges. One that is forgotten without that comes again.
type TableDelivery[K, V any] struct {
	TableEvent[K, V]
	op       string
	delivery ccoord.Delivery
	cleanup  runtime.Cleanup
}

// Next waits for the next delivery, and until the last one is done. When ctx ends first, nothing is lost. It fails with
// ErrClosed when the watch or the client is closed, and with ErrUnsupported if the store cannot watch, or not by this
// filter. ErrCorruptState tells of a document that is no V; its delivery comes again, after a pause: watch a table of
// [bson.Raw] where others write.
func (w *TableWatch[K, V]) Next(ctx context.Context) (*TableDelivery[K, V], error) {
	defer runtime.KeepAlive(w)
	op := w.table.op("watch")
	delivery, err := next(ctx, w.table.client.inner(), op, w.watch.Next, ccoord.Event.TakeDelivery)
	if err != nil {
		return nil, err
	}
	event, err := eventAs[K, V](op, delivery.Read())
	if err != nil {
		delivery.Destroy()
		return nil, err
	}
	d := &TableDelivery[K, V]{TableEvent: event, op: op, delivery: delivery}
	d.cleanup = runtime.AddCleanup(d, ccoord.Delivery.Destroy, delivery)
	return d, nil
}

func eventAs[K, V any](op string, told ccoord.Delivered) (TableEvent[K, V], error) {
	event := TableEvent[K, V]{
		Change: TableChange(told.Type), Revision: Revision(told.Revision), HasRevision: told.HasRevision,
		Position: Position(told.Position), Failures: int(told.Failures),
	}
	var err error
	if len(told.Key) > 0 {
		if event.Key, err = keyAs[K](op, told.Key); err != nil {
			return event, err
		}
	}
	for _, part := range []struct {
		document []byte
		place    **V
	}{{told.Document, &event.Value}, {told.Previous, &event.Previous}} {
		if len(part.document) == 0 {
			continue
		}
		value, err := decode[V](op, part.document)
		if err != nil {
			return event, err
		}
		*part.place = &value
	}
	return event, nil
}

// Done says how it went: nil for well; after an error the event comes again, after 5 ms at first, up to 1000 s, and
// nothing comes before it. A second call fails with ErrNotHeld.
func (d *TableDelivery[K, V]) Done(err error) error {
	defer runtime.KeepAlive(d)
	message := ""
	if err != nil {
		message = readable(err.Error())
	}
	failed := d.delivery.Done(err != nil, message)
	d.giveBack()
	if failed == nil {
		return nil
	}
	e := newError(d.op, failed)
	if Code(failed.Code) == ErrHandle {
		e.Code, e.Message = ErrNotHeld, "the delivery was done before"
	}
	return e
}

// giveBack ends the handle: the event comes again if it is not done.
func (d *TableDelivery[K, V]) giveBack() {
	d.cleanup.Stop()
	d.delivery.Destroy()
}

// Run has f called with every event, one after the other; an error of f has its event come again, and so does a panic,
// which goes on to the caller. It ends with nil when the watch or the client is closed, and fails when ctx ends, or as
// Next.
func (w *TableWatch[K, V]) Run(ctx context.Context, f func(ctx context.Context, event TableEvent[K, V]) error) error {
	for {
		delivery, err := w.Next(ctx)
		if CodeOf(err) == ErrClosed {
			return nil
		}
		if err != nil {
			return err
		}
		if err := delivery.handle(ctx, f); err != nil {
			return err
		}
	}
}

// handle has f called with the event. One that f leaves by a panic is given back, so that whoever calls Run again, or
// Next, does not wait for the garbage collector.
func (d *TableDelivery[K, V]) handle(ctx context.Context, f func(context.Context, TableEvent[K, V]) error) error {
	defer d.giveBack()
	return d.Done(f(ctx, d.TableEvent))
}

// Close ends the watch. Closing twice is no error.
func (w *TableWatch[K, V]) Close() {
	defer runtime.KeepAlive(w)
	w.cleanup.Stop()
	w.watch.Destroy()
}

// TableOperation is what was done to a document.
type TableOperation int32

const (
	// Inserted: it was made.
	Inserted TableOperation = ccoord.OperationInsert
	// Updated: some of its fields were changed.
	Updated TableOperation = ccoord.OperationUpdate
	// Replaced: it was replaced by another one.
	Replaced TableOperation = ccoord.OperationReplace
	// Deleted: it was removed.
	Deleted TableOperation = ccoord.OperationDelete
)

// String returns "insert", "update", "replace" or "delete".
func (o TableOperation) String() string {
	switch o {
	case Inserted:
		return "insert"
	case Updated:
		return "update"
	case Replaced:
		return "replace"
	case Deleted:
		return "delete"
	}
	return "unknown"
}

// LogEntry is one change of a document.
type LogEntry[K any] struct {
	// Source is the name of the client that wrote; empty if that is not known: another program, a client without a name,
	// and any deletion on MongoDB.
	Source    string
	Operation TableOperation
	// At is when, by the store's clock.
	At  time.Time
	Key K
	// ChangedFields are the paths that an update has changed or removed, in order; none for other operations.
	ChangedFields []string
	// Revision is the state of the document after it; there is none after a deletion. On MongoDB of an update perhaps a
	// later state, and none if the document was gone when the log was read.
	Revision    Revision
	HasRevision bool
	// Position is up to where everything has been told with it: a later log may begin after it, and misses nothing. Its
	// place in the history, or the one before while other changes of its place may follow: the changes of one
	// transaction on MongoDB, and every change on MongoDB 6.1 or later. Those of its place come again then.
	Position Position
}

// LogFrom is where a log begins.
type LogFrom struct {
	kind  int32
	place uint64
}

// LogFromNow begins with the changes to come.
func LogFromNow() LogFrom { return LogFrom{kind: ccoord.LogFromNow} }

// LogAfter begins with the change after a position. One that is still to come is ErrInvalidArgument in memory and on
// SQLite; on MongoDB the log waits for it.
func LogAfter(position Position) LogFrom {
	return LogFrom{kind: ccoord.LogFromPosition, place: uint64(position)}
}

// LogSince begins with the first change at this moment or after it, by the store's clock.
func LogSince(moment time.Time) LogFrom {
	return LogFrom{kind: ccoord.LogFromTime, place: uint64(max(moment.UnixMilli(), 0))}
}

// TableLog is the log of a table, which is being read. It is ended by Close, or when it is forgotten.
type TableLog[K any] struct {
	table   *table
	log     ccoord.TableLog
	cleanup runtime.Cleanup
}

// OpenLog reads who has changed what and when, from there on: no change after it returns is missed. On MongoDB the log is
// the oplog, which also has what other programs wrote, without their names; elsewhere the history of the table, which is
// trimmed by age. It fails with ErrCompacted if the store no longer has it so far back.
func (t *Table[K, V]) OpenLog(ctx context.Context, from LogFrom) (*TableLog[K], error) {
	defer runtime.KeepAlive(t.table)
	opened, err := next(ctx, t.client.inner(), t.op("read the log of"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return t.table.table.Log(from.kind, from.place, timeLimit(ctx), to)
	}, ccoord.Event.TakeTableLog)
	if err != nil {
		return nil, err
	}
	l := &TableLog[K]{table: t.table, log: opened}
	l.cleanup = runtime.AddCleanup(l, ccoord.TableLog.Destroy, opened)
	return l, nil
}

// Next waits for the next entry, through outages of the store. When ctx ends first, nothing is lost. It fails with
// ErrCompacted when changes are missing from here on; the next call goes on after them. ErrClosed when the log or the
// client is closed.
func (l *TableLog[K]) Next(ctx context.Context) (*LogEntry[K], error) {
	defer runtime.KeepAlive(l)
	op := l.table.op("read the log of")
	entry, err := next(ctx, l.table.client.inner(), op, l.log.Next, ccoord.Event.TakeLogEntry)
	if err != nil {
		return nil, err
	}
	return entryAs[K](op, entry)
}

// Close ends the log. Closing twice is no error.
func (l *TableLog[K]) Close() {
	defer runtime.KeepAlive(l)
	l.cleanup.Stop()
	l.log.Destroy()
}

// Log is OpenLog for a range loop: it yields until ctx ends or the client is closed. An error ends it.
func (t *Table[K, V]) Log(ctx context.Context, from LogFrom) iter.Seq2[*LogEntry[K], error] {
	return func(yield func(*LogEntry[K], error) bool) {
		log, err := t.OpenLog(ctx, from)
		if err != nil {
			yield(nil, err)
			return
		}
		defer log.Close()
		for entry, err := range feed(ctx, log.Next) {
			if !yield(entry, err) {
				return
			}
		}
	}
}

func entryAs[K any](op string, entry ccoord.LogEntry) (*LogEntry[K], error) {
	key, err := keyAs[K](op, entry.Key)
	if err != nil {
		return nil, err
	}
	return &LogEntry[K]{
		Source: entry.Source, Operation: TableOperation(entry.Operation), At: time.UnixMilli(entry.AtMillis), Key: key,
		ChangedFields: entry.Changed, Revision: Revision(entry.Revision), HasRevision: entry.HasRevision,
		Position: Position(entry.Position),
	}, nil
}
