package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"coord"
)

type (
	table    = coord.Table[any, bson.D]
	copied   = coord.CachedTable[any, bson.D]
	document = coord.Stored[any, bson.D]
)

// watched is a watch, and its delivery that is not acknowledged yet.
type watched struct {
	*coord.TableWatch[any, bson.D]
	out *coord.TableDelivery[any, bson.D]
}

// writable is what a table and its copy in memory have in common.
type writable interface {
	Insert(ctx context.Context, key any, value bson.D, options ...coord.WriteOption) (*coord.Written, error)
	Put(ctx context.Context, key any, value bson.D, options ...coord.WriteOption) (*coord.Written, error)
	Update(ctx context.Context, key, update any, options ...coord.WriteOption) (*coord.Written, error)
	Upsert(ctx context.Context, key, update any, options ...coord.WriteOption) (*coord.Written, error)
	Locate(ctx context.Context, key, fields any, options ...coord.WriteOption) (*coord.Written, error)
	Replace(ctx context.Context, key any, value bson.D, options ...coord.WriteOption) (*coord.Written, error)
	ReplaceIf(
		ctx context.Context, key any, value bson.D, revision coord.Revision, options ...coord.WriteOption,
	) (*coord.Written, error)
	Delete(ctx context.Context, key any, options ...coord.WriteOption) (*coord.Written, error)
	DeleteIf(ctx context.Context, key any, revision coord.Revision, options ...coord.WriteOption) (*coord.Written, error)
}

// withTables carries out a command about tables; it says whether it is one.
func (a *agent) withTables(w words) (reply *answer, err error, is bool) {
	ctx, cancel := bounded()
	defer cancel()
	switch w.verb {
	case "table":
		reply, err = a.table(ctx, w)
	case "watch_table":
		err = a.watchTable(w)
	case "done":
		err = a.done(w)
	case "log":
		err = a.log(w)
	case "cache":
		err = a.cache(ctx, w)
	case "cached":
		reply, err = a.cached(ctx, w)
	default:
		return nil, nil, false
	}
	return reply, err, true
}

func (a *agent) tableOf(w words) (*table, error) {
	client := a.clients[w.values["client"]]
	if client == nil {
		return nil, fmt.Errorf("there is no client '%s'", w.values["client"])
	}
	return coord.OpenTable[any, bson.D](client, w.values["table"])
}

func (a *agent) table(ctx context.Context, w words) (*answer, error) {
	t, err := a.tableOf(w)
	if err != nil {
		return nil, err
	}
	rights, err := a.rights(w)
	if err != nil {
		return nil, err
	}
	if reply, err, is := write(ctx, w, t, rights); is {
		return reply, err
	}
	filter, err := filterOf(w)
	if err != nil {
		return nil, err
	}
	switch op := w.values["op"]; op {
	case "update_many", "delete_many":
		var many coord.ManyWritten
		if op == "delete_many" {
			many, err = t.DeleteMany(ctx, filter, rights...)
		} else if update, wrong := valueOf(w, "document"); wrong != nil {
			return nil, wrong
		} else {
			many, err = t.UpdateMany(ctx, filter, update, rights...)
		}
		return say("ok").with("count", many.Count).with("position", many.Position), err
	case "get", "contains":
		key, err := valueOf(w, "key")
		if err != nil {
			return nil, err
		}
		if op == "contains" {
			has, err := t.Contains(ctx, key)
			return say("ok").with("contains", has), err
		}
		stored, err := t.Get(ctx, key)
		return sayStored(stored, err)
	case "find":
		options, err := findOptions(w)
		if err != nil {
			return nil, err
		}
		found, err := t.Find(ctx, filter, options...)
		return sayFound(found), err
	case "count":
		count, err := t.Count(ctx, filter)
		return say("ok").with("count", count), err
	case "aggregate":
		pipeline, err := valueOf(w, "document")
		if err != nil {
			return nil, err
		}
		results := bson.A{}
		for result, err := range t.Aggregate(ctx, pipeline) {
			if err != nil {
				return nil, err
			}
			results = append(results, result)
		}
		return say("ok").with("count", len(results)).with("documents", keyText(results)), nil
	case "ensure_indexes":
		indexes, err := indexesOf(w)
		if err != nil {
			return nil, err
		}
		return nil, t.EnsureIndexes(ctx, indexes...)
	case "drop":
		return nil, t.Drop(ctx)
	default:
		return nil, fmt.Errorf("there is no operation '%s' of a table", op)
	}
}

// write carries out a write to one document; it says whether it is one.
func write(ctx context.Context, w words, to writable, rights []coord.WriteOption) (reply *answer, err error, is bool) {
	op := w.values["op"]
	switch op {
	case "insert", "put", "update", "upsert", "locate", "replace", "delete":
	default:
		return nil, nil, false
	}
	key, err := valueOf(w, "key")
	if err != nil {
		return nil, err, true
	}
	var value bson.D
	if op != "delete" {
		if value, err = documentOf(w, "document"); err != nil {
			return nil, err, true
		}
	}
	text, conditional := w.values["revision"]
	number, err := strconv.ParseUint(text, 10, 64)
	if conditional && err != nil {
		return nil, err, true
	}
	revision := coord.Revision(number)
	var written *coord.Written
	switch {
	case op == "insert":
		written, err = to.Insert(ctx, key, value, rights...)
	case op == "put":
		written, err = to.Put(ctx, key, value, rights...)
	case op == "update":
		written, err = to.Update(ctx, key, value, rights...)
	case op == "upsert":
		written, err = to.Upsert(ctx, key, value, rights...)
	case op == "locate":
		written, err = to.Locate(ctx, key, value, rights...)
	case op == "replace" && conditional:
		written, err = to.ReplaceIf(ctx, key, value, revision, rights...)
	case op == "replace":
		written, err = to.Replace(ctx, key, value, rights...)
	case conditional:
		written, err = to.DeleteIf(ctx, key, revision, rights...)
	default:
		written, err = to.Delete(ctx, key, rights...)
	}
	if err != nil {
		return nil, err, true
	}
	reply = say("ok").with("document", keyText(written.Document)).with("position", written.Position)
	reply.with("created", written.Created)
	return withRevision(reply, written.Revision, written.HasRevision), nil, true
}

func (a *agent) watchTable(w words) error {
	t, err := a.tableOf(w)
	if err != nil {
		return err
	}
	filter, err := filterOf(w)
	if err != nil {
		return err
	}
	var options []coord.TableWatchOption
	if text, ok := w.values["from"]; ok {
		position, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return err
		}
		options = append(options, coord.FromPosition(coord.Position(position)))
	}
	if w.values["previous"] == "true" {
		options = append(options, coord.WithPrevious())
	}
	watch, err := t.Watch(filter, options...)
	if err != nil {
		return err
	}
	a.watches[w.values["as"]] = &watched{TableWatch: watch}
	return nil
}

// next is the next delivery's event; acknowledged at once, unless it is kept for `done`.
func (t *watched) next(ctx context.Context, keep bool) (*answer, error) {
	delivery, err := t.Next(ctx)
	if err != nil {
		return nil, err
	}
	reply := say("ok").with("event", delivery.Change).with("position", delivery.Position).with("failures", delivery.Failures)
	if delivery.Key != nil {
		reply.with("key", keyText(delivery.Key))
	}
	if delivery.Value != nil {
		reply.with("document", keyText(*delivery.Value))
	}
	if delivery.Previous != nil {
		reply.with("previous", keyText(*delivery.Previous))
	}
	withRevision(reply, delivery.Revision, delivery.HasRevision)
	if keep {
		t.out = delivery
		return reply, nil
	}
	return reply, delivery.Done(nil)
}

func (a *agent) done(w words) error {
	watch := a.watches[w.values["hold"]]
	if watch == nil || watch.out == nil {
		return errors.New("no delivery was kept")
	}
	delivery := watch.out
	watch.out = nil
	if failure, ok := w.values["failure"]; ok {
		return delivery.Done(errors.New(failure))
	}
	return delivery.Done(nil)
}

// log begins to read a log; `next` waits for what is to come.
func (a *agent) log(w words) error {
	t, err := a.tableOf(w)
	if err != nil {
		return err
	}
	from := coord.LogFromNow()
	for name, begin := range map[string]func(uint64) coord.LogFrom{
		"after":    func(n uint64) coord.LogFrom { return coord.LogAfter(coord.Position(n)) },
		"since_ms": func(n uint64) coord.LogFrom { return coord.LogSince(time.UnixMilli(int64(n))) },
	} {
		if text, ok := w.values[name]; ok {
			number, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				return err
			}
			from = begin(number)
		}
	}
	ctx, cancel := bounded()
	defer cancel()
	log, err := t.OpenLog(ctx, from)
	if err != nil {
		return err
	}
	a.closers[w.values["as"]] = log.Close
	a.feeds[w.values["as"]] = func(ctx context.Context) (*answer, error) {
		entry, err := log.Next(ctx)
		if err != nil {
			return nil, err
		}
		reply := say("ok").with("operation", entry.Operation).with("at_ms", entry.At.UnixMilli()).with("key", keyText(entry.Key))
		reply.with("changed", strings.Join(entry.ChangedFields, ",")).with("position", entry.Position)
		if entry.Source != "" {
			reply.with("source", entry.Source)
		}
		return withRevision(reply, entry.Revision, entry.HasRevision), nil
	}
	return nil
}

func (a *agent) cache(ctx context.Context, w words) error {
	t, err := a.tableOf(w)
	if err != nil {
		return err
	}
	filter, err := filterOf(w)
	if err != nil {
		return err
	}
	options := []coord.CacheOption{coord.CacheFilter(filter), coord.ReadYourWrites(w.values["read_your_writes"] != "false")}
	if text, ok := w.values["max_bytes"]; ok {
		most, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		options = append(options, coord.MaxBytes(most))
	}
	cached, err := t.Cached(ctx, options...)
	if err == nil {
		a.copies[w.values["as"]] = cached
		a.closers[w.values["as"]] = cached.Close
	}
	return err
}

func (a *agent) cached(ctx context.Context, w words) (*answer, error) {
	cached := a.copies[w.values["hold"]]
	if cached == nil {
		return nil, fmt.Errorf("there is no copy '%s'", w.values["hold"])
	}
	rights, err := a.rights(w)
	if err != nil {
		return nil, err
	}
	if reply, err, is := write(ctx, w, cached, rights); is {
		return reply, err
	}
	filter, err := filterOf(w)
	if err != nil {
		return nil, err
	}
	switch op := w.values["op"]; op {
	case "get", "get_fresh":
		key, err := valueOf(w, "key")
		if err != nil {
			return nil, err
		}
		if op == "get_fresh" {
			return sayStored(cached.GetFresh(ctx, key))
		}
		return sayStored(cached.Get(key))
	case "find":
		options, err := findOptions(w)
		if err != nil {
			return nil, err
		}
		found, err := cached.Find(filter, options...)
		return sayFound(found), err
	case "count":
		count, err := cached.Count(filter)
		return say("ok").with("count", count), err
	case "synced":
		return sayCopy(cached), nil
	case "wait_until":
		position, err := strconv.ParseUint(w.values["position"], 10, 64)
		if err != nil {
			return nil, err
		}
		return nil, cached.WaitUntil(ctx, coord.Position(position))
	default:
		return nil, fmt.Errorf("there is no operation '%s' of a copy", op)
	}
}

func sayCopy(cached *copied) *answer {
	return say("ok").with("synced", cached.Synced()).with("position", cached.Position()).with("bytes", cached.Bytes())
}

// rights is by whose right a write is done: of a hold, a term, or a run of a reconciler.
func (a *agent) rights(w words) ([]coord.WriteOption, error) {
	var rights []coord.WriteOption
	if name, ok := w.values["fence"]; ok {
		switch {
		case a.works[name] != nil:
			rights = append(rights, coord.Fenced(a.works[name].work))
		case a.terms[name] != nil:
			rights = append(rights, coord.Fenced(a.terms[name]))
		case a.holds[name] != nil:
			rights = append(rights, coord.Fenced(a.holds[name]))
		default:
			return nil, fmt.Errorf("there is no hold '%s'", name)
		}
	}
	if w.values["strict"] == "true" {
		rights = append(rights, coord.Strict())
	}
	return rights, nil
}

// valueOf is any value in Extended JSON.
func valueOf(w words, name string) (any, error) {
	text, ok := w.values[name]
	if !ok {
		return nil, fmt.Errorf("the argument '%s' is missing", name)
	}
	var holder bson.D
	if err := bson.UnmarshalExtJSON([]byte(`{"v":`+text+`}`), false, &holder); err != nil {
		return nil, fmt.Errorf("'%s' is no Extended JSON: %w", name, err)
	}
	return holder[0].Value, nil
}

// documentOf is a document: the types of the library let nothing else in, so what is none is refused here.
func documentOf(w words, name string) (bson.D, error) {
	value, err := valueOf(w, name)
	if err != nil {
		return nil, err
	}
	document, ok := value.(bson.D)
	if !ok {
		return nil, fmt.Errorf("'%s' is no document", name)
	}
	return document, nil
}

func filterOf(w words) (any, error) {
	if _, ok := w.values["filter"]; !ok {
		return nil, nil
	}
	return documentOf(w, "filter")
}

func findOptions(w words) ([]coord.FindOption, error) {
	var options []coord.FindOption
	for name, option := range map[string]func(any) coord.FindOption{"sort": coord.Sorted, "projection": coord.Projected} {
		if _, ok := w.values[name]; ok {
			document, err := documentOf(w, name)
			if err != nil {
				return nil, err
			}
			options = append(options, option(document))
		}
	}
	for name, option := range map[string]func(int64) coord.FindOption{"skip": coord.Skipping, "limit": coord.Limited} {
		if text, ok := w.values[name]; ok {
			number, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return nil, err
			}
			options = append(options, option(number))
		}
	}
	return options, nil
}

func indexesOf(w words) ([]coord.Index, error) {
	var holder struct {
		V []struct {
			Fields         bson.D
			Name           string
			Unique, Sparse bool
		}
	}
	if err := bson.UnmarshalExtJSON([]byte(`{"v":`+w.values["document"]+`}`), false, &holder); err != nil {
		return nil, fmt.Errorf("'document' is no array of indexes: %w", err)
	}
	indexes := make([]coord.Index, len(holder.V))
	for i, index := range holder.V {
		indexes[i] = coord.Index{Fields: index.Fields, Name: index.Name, Unique: index.Unique, Sparse: index.Sparse}
	}
	return indexes, nil
}

func sayStored(stored *document, err error) (*answer, error) {
	if err != nil {
		return nil, err
	}
	reply := say("ok").with("key", keyText(stored.Key)).with("document", keyText(stored.Value))
	return withRevision(reply, stored.Revision, stored.HasRevision), nil
}

func sayFound(found []document) *answer {
	documents := make(bson.A, len(found))
	for i, stored := range found {
		documents[i] = stored.Value
	}
	return say("ok").with("count", len(documents)).with("documents", keyText(documents))
}

func withRevision(reply *answer, revision coord.Revision, has bool) *answer {
	if has {
		reply.with("revision", revision)
	}
	return reply
}
