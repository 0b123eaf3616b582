package coord

import (
	"context"
	"runtime"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"coord/internal/ccoord"
)

// Fencer is what writes are done under: a [Held], a [Term], or the [Work] of a reconciler that is not of [ModeAll].
type Fencer interface {
	fence(strict bool) (ccoord.Fence, *ccoord.Error)
}

func (h *Held) fence(strict bool) (ccoord.Fence, *ccoord.Error) {
	defer runtime.KeepAlive(h)
	return h.held.Fence(strict)
}

func (t *Term) fence(strict bool) (ccoord.Fence, *ccoord.Error) {
	defer runtime.KeepAlive(t)
	return t.term.Fence(strict)
}

func (w *Work) fence(strict bool) (ccoord.Fence, *ccoord.Error) {
	defer runtime.KeepAlive(w)
	return w.work.Fence(strict)
}

// WriteOption changes by whose right a write is done.
type WriteOption func(*writeSettings)

type writeSettings struct {
	fencer Fencer
	strict bool
}

// Fenced has a write done under a hold: after it no write with an older hold of the same lock touches that document,
// deletions and new insertions included; a stale holder gets ErrFenced, and one
// that has given up the hold itself ErrNotHeld; work whose shard or leadership is lost or given up, ErrFenced at once.
func Fenced(by Fencer) WriteOption { return func(s *writeSettings) { s.fencer = by } }

// Strict also refuses a fenced write when the hold has ended although nobody has written since. Free on memory and SQLite,
// which always do; on MongoDB the write becomes a transaction.
func Strict() WriteOption { return func(s *writeSettings) { s.strict = true } }

// fenceOf makes the fence of a write, none if no hold was given.
func fenceOf(op string, options []WriteOption) (ccoord.Fence, error) {
	var set writeSettings
	for _, option := range options {
		if option != nil {
			option(&set)
		}
	}
	if set.fencer == nil {
		if set.strict {
			return ccoord.Fence{}, invalid(op, "a strict write needs the hold that it is done under")
		}
		return ccoord.Fence{}, nil
	}
	fence, failed := set.fencer.fence(set.strict)
	if failed != nil {
		e := newError(op, failed)
		if Code(failed.Code) == ErrHandle {
			e.Code, e.Message = ErrNotHeld, "what the write is to be done under is released"
		}
		return fence, e
	}
	return fence, nil
}

// FindOption changes which documents are read, and how.
type FindOption func(*findOptions)

type findOptions struct {
	sort, projection any
	skip, limit      int64
	limited          bool
}

// Sorted reads documents in this order: bson.D{{"a", 1}, {"b", -1}}. Without one, and among equals, they come in no
// particular order.
func Sorted(by any) FindOption { return func(o *findOptions) { o.sort = by } }

// Projected reads these fields only: bson.D{{"a", 1}}.
func Projected(fields any) FindOption { return func(o *findOptions) { o.projection = fields } }

// Skipping leaves out the first so many documents.
func Skipping(count int64) FindOption { return func(o *findOptions) { o.skip = count } }

// Limited reads at most so many documents.
func Limited(count int64) FindOption {
	return func(o *findOptions) { o.limit, o.limited = count, true }
}

func findSettings(op string, options []FindOption) ([]ccoord.Setting, error) {
	var o findOptions
	for _, option := range options {
		if option != nil {
			option(&o)
		}
	}
	var set []ccoord.Setting
	for _, document := range []struct {
		name  string
		value any
	}{{"sort", o.sort}, {"projection", o.projection}} {
		if document.value == nil {
			continue
		}
		bytes, err := encoded(op, document.name, document.value)
		if err != nil {
			return nil, err
		}
		set = append(set, ccoord.Setting{Name: document.name, Document: bytes})
	}
	if o.skip != 0 {
		set = append(set, ccoord.Setting{Name: "skip", Number: o.skip})
	}
	if o.limited {
		set = append(set, ccoord.Setting{Name: "limit", Number: o.limit})
	}
	return set, nil
}

// Index is an index to be there.
type Index struct {
	// Fields are its paths: 1 for ascending, -1 for descending.
	Fields bson.D
	// Name is its name; made of the fields if it is empty, as MongoDB does.
	Name string
	// Unique: no two documents have the same values in it.
	Unique bool
	// Sparse: documents without its fields are not in it.
	Sparse bool
	// ExpireAfter: a document is removed when the date in the index's only field is as long ago; in whole seconds, rounded up.
	// nil: never.
	ExpireAfter *time.Duration
}

// EnsureIndexes makes those indexes that are not there; the others stay. It fails with ErrInvalidArgument if there is
// another index of the same name, and with ErrAlreadyExists if documents break a unique one.
func (t *table) EnsureIndexes(ctx context.Context, indexes ...Index) error {
	defer runtime.KeepAlive(t)
	op := t.op("index")
	list := bson.A{}
	for _, index := range indexes {
		document := bson.D{
			{Key: "fields", Value: index.Fields}, {Key: "name", Value: index.Name},
			{Key: "unique", Value: index.Unique}, {Key: "sparse", Value: index.Sparse},
		}
		if index.Fields == nil {
			document[0].Value = bson.D{}
		}
		if index.ExpireAfter != nil {
			document = append(document, bson.E{Key: "expire_after_s", Value: units(*index.ExpireAfter, time.Second)})
		}
		list = append(list, document)
	}
	bytes, err := encoded(op, "indexes", bson.D{{Key: "indexes", Value: list}})
	if err != nil {
		return err
	}
	return t.pump().finish(ctx, op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return t.table.EnsureIndexes(bytes, timeLimit(ctx), to)
	})
}

// TableOptions is how a table is kept.
type TableOptions struct {
	// Previous keeps what each document was before a change, for watches that ask for it. On MongoDB 6.0 or later this
	// sets the collection's changeStreamPreAndPostImages; before, it is ErrUnsupported.
	Previous bool
}

// Configure sets how the table is kept.
func (t *table) Configure(ctx context.Context, options TableOptions) error {
	defer runtime.KeepAlive(t)
	set := []ccoord.Setting{{Name: "previous", Number: number(options.Previous)}}
	return t.pump().finish(ctx, t.op("configure"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return t.table.Configure(set, timeLimit(ctx), to)
	})
}

// Drop removes the table with its documents, indexes and options. It is no error if there is none.
func (t *table) Drop(ctx context.Context) error {
	defer runtime.KeepAlive(t)
	return t.pump().finish(ctx, t.op("drop"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return t.table.Drop(timeLimit(ctx), to)
	})
}

// Health asks the store whether it could be written to now.
func (t *table) Health(ctx context.Context) error { return t.client.Health(ctx) }

func invalid(op, message string) *Error {
	return &Error{Code: ErrInvalidArgument, Op: op, Message: message}
}

// encoded is a document as BSON; what says which argument it is.
func encoded(op, what string, document any) ([]byte, error) {
	bytes, err := bson.Marshal(document)
	if err != nil {
		return nil, invalid(op, what+": this is no document: "+err.Error())
	}
	return bytes, nil
}

func filterOf(op string, filter any) ([]byte, error) {
	if filter == nil {
		return nil, nil
	}
	return encoded(op, "filter", filter)
}

// updateOf is a document, or the list of a pipeline's stages in the one field of a document. Which of both it is, BSON
// says: a slice may be a document, as a bson.D is.
func updateOf(op string, update any) ([]byte, error) {
	if kind, _, err := bson.MarshalValue(update); err == nil && kind == bson.TypeArray {
		return encoded(op, "update", bson.D{{Key: "pipeline", Value: update}})
	}
	return encoded(op, "update", update)
}

// keyBytes makes {_id} of a key.
func keyBytes(op string, key any) ([]byte, error) {
	bytes, err := bson.Marshal(bson.D{{Key: "_id", Value: key}})
	if err != nil {
		return nil, invalid(op, "this is no key: "+err.Error())
	}
	return bytes, nil
}

// decode puts a document into a value of any type.
func decode[T any](op string, document []byte) (T, error) {
	var value T
	if raw, ok := any(&value).(*bson.Raw); ok {
		*raw = document
		return value, nil
	}
	if err := bson.Unmarshal(document, &value); err != nil {
		return value, &Error{Code: ErrCorruptState, Op: op, Message: "the document is not what was asked for: " + err.Error()}
	}
	return value, nil
}

func keyAs[K any](op string, key []byte) (K, error) {
	var value K
	if err := bson.Raw(key).Lookup("_id").Unmarshal(&value); err != nil {
		return value, &Error{Code: ErrCorruptState, Op: op, Message: "the key is not what was asked for: " + err.Error()}
	}
	return value, nil
}

func storedAs[K, V any](op string, stored ccoord.Stored) (*Stored[K, V], error) {
	key, err := keyAs[K](op, stored.Key)
	if err != nil {
		return nil, err
	}
	value, err := decode[V](op, stored.Document)
	if err != nil {
		return nil, err
	}
	return &Stored[K, V]{Key: key, Value: value, Revision: Revision(stored.Revision), HasRevision: stored.HasRevision}, nil
}
