package coord

import (
	"context"
	"errors"
	"iter"
	"runtime"

	"go.mongodb.org/mongo-driver/v2/bson"

	"coord/internal/ccoord"
)

// Table is a table of documents: on MongoDB a collection, also any existing one of other programs', on SQLite a table, in
// memory a map. Its methods may be called from any goroutine, and nothing has to be closed.
//
// A key K is a string, an integer, or a document for a compound key: a struct or a [bson.D]. A value V is a document: a
// struct with bson tags, a [bson.D] or [bson.M], or a [bson.Raw], which takes any document as it is. Filters, updates,
// sorts and projections are MongoDB's, in the form of any such document; nil as a filter is every document. What is
// beyond the part of them that means the same on every store fails with ErrUnsupported on SQLite and in memory.
type Table[K, V any] struct{ *table }

// table is a table whatever its types.
type table struct {
	client *Client
	table  ccoord.Table
	name   string
}

// Position is a place in the history of a store: it grows with every change.
type Position uint64

// Revision is the state of a document in which one has seen it. Only for comparing, and as a condition of writes.
type Revision uint64

// Stored is a document as it was read.
type Stored[K, V any] struct {
	Key   K
	Value V
	// Revision is its state; on MongoDB there is none if only a part of the document was read.
	Revision    Revision
	HasRevision bool
}

// Written is what a write has done.
type Written struct {
	// Document is the document as it is now, or as it was before it was deleted.
	Document bson.Raw
	// Revision is its state; there is none after a deletion.
	Revision    Revision
	HasRevision bool
	// Position is the change's place in the history: a watch or a cached table that has come to it has shown the change.
	Position Position
	// Created is whether there was no document before.
	Created bool
}

// ManyWritten is what a write to many documents has done.
type ManyWritten struct {
	// Count is how many were written.
	Count int64
	// Position is the place of the last of the changes in the history.
	Position Position
}

// OpenTable returns the table of this name: "name", or "database.collection" for any collection of a MongoDB server. It
// does not wait, and nothing is made before the first document.
func OpenTable[K, V any](client *Client, name string) (*Table[K, V], error) {
	defer runtime.KeepAlive(client)
	made, failed := client.inner().client.Table(name)
	if failed != nil {
		return nil, client.inner().newError("open table '"+name+"'", failed)
	}
	t := &table{client: client, table: made, name: name}
	runtime.AddCleanup(t, ccoord.Table.Destroy, made)
	return &Table[K, V]{t}, nil
}

// Name is the table's name.
func (t *table) Name() string { return t.name }

func (t *table) op(verb string) string { return verb + " table '" + t.name + "'" }

func (t *table) pump() *pump { return t.client.inner().pump }

// Insert makes the document of a key. It fails with ErrAlreadyExists if there is one, or if a unique index would be
// broken; with ErrInvalidArgument for what cannot be stored (over 16 MiB, nested too deeply, an _id that is not the key);
// with ErrFenced. After ErrUnavailable it is not known whether it was done.
func (t *Table[K, V]) Insert(ctx context.Context, key K, value V, options ...WriteOption) (*Written, error) {
	return t.write(ctx, "insert into", ccoord.WriteInsert, key, value, nil, options)
}

// Put makes the document of a key, or puts it in the place of the one that is there. It fails as Insert.
func (t *Table[K, V]) Put(ctx context.Context, key K, value V, options ...WriteOption) (*Written, error) {
	return t.write(ctx, "put into", ccoord.WritePut, key, value, nil, options)
}

// Update changes the document of a key: bson.M{"$set": …}, or on MongoDB a pipeline, which is a slice. It fails with
// ErrNotFound if there is none, and with ErrUnsupported for an update that only MongoDB knows.
func (t *Table[K, V]) Update(ctx context.Context, key K, update any, options ...WriteOption) (*Written, error) {
	return t.write(ctx, "update", ccoord.WriteUpdate, key, update, nil, options)
}

// Upsert changes the document of a key, or changes an empty one into it.
func (t *Table[K, V]) Upsert(ctx context.Context, key K, update any, options ...WriteOption) (*Written, error) {
	return t.write(ctx, "upsert into", ccoord.WriteUpsert, key, update, nil, options)
}

// Locate makes sure that the document of a key has these fields: makes it, or sets them in the one that is there.
func (t *Table[K, V]) Locate(ctx context.Context, key K, fields any, options ...WriteOption) (*Written, error) {
	return t.write(ctx, "locate in", ccoord.WriteLocate, key, fields, nil, options)
}

// Replace puts a document in the place of the one that is there. It fails with ErrNotFound if there is none.
func (t *Table[K, V]) Replace(ctx context.Context, key K, value V, options ...WriteOption) (*Written, error) {
	return t.write(ctx, "replace in", ccoord.WriteReplace, key, value, nil, options)
}

// ReplaceIf is Replace if the document is still as it was read, with this revision; else it fails with ErrConflict.
func (t *Table[K, V]) ReplaceIf(
	ctx context.Context, key K, value V, revision Revision, options ...WriteOption,
) (*Written, error) {
	return t.write(ctx, "replace in", ccoord.WriteReplace, key, value, &revision, options)
}

// Delete removes the document of a key. It fails with ErrNotFound if there is none.
func (t *Table[K, V]) Delete(ctx context.Context, key K, options ...WriteOption) (*Written, error) {
	return t.write(ctx, "delete from", ccoord.WriteDelete, key, nil, nil, options)
}

// DeleteIf is Delete if the document is still as it was read, with this revision; else it fails with ErrConflict.
func (t *Table[K, V]) DeleteIf(ctx context.Context, key K, revision Revision, options ...WriteOption) (*Written, error) {
	return t.write(ctx, "delete from", ccoord.WriteDelete, key, nil, &revision, options)
}

func (t *Table[K, V]) write(
	ctx context.Context, verb string, action int32, key, document any, revision *Revision, options []WriteOption,
) (*Written, error) {
	defer runtime.KeepAlive(t.table)
	return written(ctx, t.table, verb, t.table.table.Write, action, key, document, revision, options)
}

// written does one write, to a table or through its copy in memory.
func written(
	ctx context.Context, t *table, verb string,
	start func(ccoord.Write, int64, ccoord.Report) (ccoord.Op, *ccoord.Error),
	action int32, key, document any, revision *Revision, options []WriteOption,
) (*Written, error) {
	op := t.op(verb)
	write := ccoord.Write{Action: action, Revision: (*uint64)(revision)}
	var err error
	if write.Key, err = keyBytes(op, key); err != nil {
		return nil, err
	}
	switch action {
	case ccoord.WriteDelete:
	case ccoord.WriteUpdate, ccoord.WriteUpsert:
		write.Document, err = updateOf(op, document)
	default:
		write.Document, err = encoded(op, "document", document)
	}
	if err != nil {
		return nil, err
	}
	if write.Fence, err = fenceOf(op, options); err != nil {
		return nil, err
	}
	defer write.Fence.Destroy()
	done, err := next(ctx, t.client.inner(), op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return start(write, timeLimit(ctx), to)
	}, ccoord.Event.TakeWritten)
	if err != nil {
		return nil, err
	}
	return &Written{
		Document: done.Document, Revision: Revision(done.Revision), HasRevision: done.HasRevision,
		Position: Position(done.Position), Created: done.Created,
	}, nil
}

// UpdateMany changes every document that matches. Not atomic as a group. It fails with ErrFenced if a later holder has
// written some of them: these were left out, and the others written.
func (t *Table[K, V]) UpdateMany(ctx context.Context, filter, update any, options ...WriteOption) (ManyWritten, error) {
	change, err := updateOf(t.op("update"), update)
	if err != nil {
		return ManyWritten{}, err
	}
	return t.writeMany(ctx, "update", filter, change, options)
}

// DeleteMany removes every document that matches. It fails as UpdateMany.
func (t *Table[K, V]) DeleteMany(ctx context.Context, filter any, options ...WriteOption) (ManyWritten, error) {
	return t.writeMany(ctx, "delete from", filter, nil, options)
}

func (t *table) writeMany(
	ctx context.Context, verb string, filter any, update []byte, options []WriteOption,
) (ManyWritten, error) {
	defer runtime.KeepAlive(t)
	op := t.op(verb)
	where, err := filterOf(op, filter)
	if err != nil {
		return ManyWritten{}, err
	}
	fence, err := fenceOf(op, options)
	if err != nil {
		return ManyWritten{}, err
	}
	defer fence.Destroy()
	return next(ctx, t.client.inner(), op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return t.table.WriteMany(where, update, fence, timeLimit(ctx), to)
	}, func(event ccoord.Event) (ManyWritten, *ccoord.Error) {
		count, position, failed := event.TakeManyWritten()
		return ManyWritten{int64(count), Position(position)}, failed
	})
}

// Get is the document of a key; it fails with ErrNotFound if there is none, and with ErrCorruptState if the document is
// no V.
func (t *Table[K, V]) Get(ctx context.Context, key K) (*Stored[K, V], error) {
	stored, err := t.get(ctx, key)
	if err != nil {
		return nil, err
	}
	return storedAs[K, V](t.op("read"), stored)
}

// Contains is whether there is a document of this key.
func (t *Table[K, V]) Contains(ctx context.Context, key K) (bool, error) {
	_, err := t.get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (t *table) get(ctx context.Context, key any) (ccoord.Stored, error) {
	defer runtime.KeepAlive(t)
	op := t.op("read")
	encoded, err := keyBytes(op, key)
	if err != nil {
		return ccoord.Stored{}, err
	}
	return next(ctx, t.client.inner(), op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return t.table.Get(encoded, timeLimit(ctx), to)
	}, ccoord.Event.TakeStored)
}

// Find is the documents that match, all at once; see Cursor for more than fit into memory, on MongoDB.
func (t *Table[K, V]) Find(ctx context.Context, filter any, options ...FindOption) ([]Stored[K, V], error) {
	var all []Stored[K, V]
	for stored, err := range t.Cursor(ctx, filter, options...) {
		if err != nil {
			return nil, err
		}
		all = append(all, *stored)
	}
	return all, nil
}

// Cursor yields the documents that match, and fetches them as they are taken. On MongoDB the store, too, reads some at a
// time; SQLite and memory read all of them first, as of one moment. An error ends it.
func (t *Table[K, V]) Cursor(ctx context.Context, filter any, options ...FindOption) iter.Seq2[*Stored[K, V], error] {
	op := t.op("read")
	return func(yield func(*Stored[K, V], error) bool) {
		where, err := filterOf(op, filter)
		if err != nil {
			yield(nil, err)
			return
		}
		set, err := findSettings(op, options)
		if err != nil {
			yield(nil, err)
			return
		}
		for stored, err := range t.results(ctx, op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
			return t.table.table.Find(where, set, timeLimit(ctx), to)
		}) {
			if err != nil {
				yield(nil, err)
				return
			}
			read, err := storedAs[K, V](op, stored)
			if !yield(read, err) || err != nil {
				return
			}
		}
	}
}

// Aggregate yields the results of an aggregation pipeline, a slice of stages. MongoDB only: ErrUnsupported on other
// stores. A pipeline that writes is ErrInvalidArgument.
func (t *table) Aggregate(ctx context.Context, pipeline any) iter.Seq2[bson.Raw, error] {
	op := t.op("aggregate")
	return func(yield func(bson.Raw, error) bool) {
		stages, err := encoded(op, "pipeline", bson.D{{Key: "pipeline", Value: pipeline}})
		if err != nil {
			yield(nil, err)
			return
		}
		for result, err := range t.results(ctx, op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
			return t.table.Aggregate(stages, timeLimit(ctx), to)
		}) {
			if !yield(result.Document, err) || err != nil {
				return
			}
		}
	}
}

// batch is how many documents are fetched at a time.
const batch = 100

// results yields what a cursor gives, to its end or to the first error.
func (t *table) results(ctx context.Context, op string, begin begin) iter.Seq2[ccoord.Stored, error] {
	return func(yield func(ccoord.Stored, error) bool) {
		defer runtime.KeepAlive(t)
		core := t.client.inner()
		cursor, err := next(ctx, core, op, begin, ccoord.Event.TakeCursor)
		if err != nil {
			yield(ccoord.Stored{}, err)
			return
		}
		defer cursor.Destroy()
		for {
			documents, err := next(ctx, core, op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
				return cursor.Next(batch, timeLimit(ctx), to)
			}, ccoord.Event.TakeStoredList)
			if err != nil {
				yield(ccoord.Stored{}, err)
				return
			}
			for _, document := range documents {
				if !yield(document, nil) {
					return
				}
			}
			if len(documents) < batch {
				return
			}
		}
	}
}

// Count is how many documents match.
func (t *table) Count(ctx context.Context, filter any) (int64, error) {
	defer runtime.KeepAlive(t)
	op := t.op("count")
	where, err := filterOf(op, filter)
	if err != nil {
		return 0, err
	}
	count, err := next(ctx, t.client.inner(), op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return t.table.Count(where, timeLimit(ctx), to)
	}, ccoord.Event.TakeNumber)
	return int64(count), err
}
