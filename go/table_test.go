package coord

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

type person struct {
	Name string   `bson:"name"`
	Age  int64    `bson:"age"`
	Tags []string `bson:"tags,omitempty"`
}

func tableOf[K, V any](t *testing.T, client *Client, name string) *Table[K, V] {
	t.Helper()
	table, err := OpenTable[K, V](client, name)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// done checks a write that went well.
func done(t *testing.T) func(*Written, error) *Written {
	return func(written *Written, err error) *Written {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if written.Position == 0 {
			t.Errorf("a write without a place: %+v", written)
		}
		return written
	}
}

func TestDocumentsAreWrittenAndRead(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		ctx, wrote := limited(t), done(t)
		table := tableOf[string, person](t, connect(t, url), "people")
		if table.Name() != "people" {
			t.Error(table.Name())
		}
		written := wrote(table.Insert(ctx, "ann", person{"Ann", 41, []string{"x"}}))
		if !written.Created || !written.HasRevision || written.Document.Lookup("_id").StringValue() != "ann" {
			t.Errorf("%+v", written)
		}
		_, err := table.Insert(ctx, "ann", person{})
		wants(t, err, ErrAlreadyExists)
		stored, err := table.Get(ctx, "ann")
		if err != nil || stored.Key != "ann" || !reflect.DeepEqual(stored.Value, person{"Ann", 41, []string{"x"}}) ||
			stored.Revision != written.Revision {
			t.Errorf("%+v, %v", stored, err)
		}
		wrote(table.Update(ctx, "ann", bson.M{"$inc": bson.M{"age": 1}}))
		_, err = table.ReplaceIf(ctx, "ann", person{Name: "late"}, stored.Revision)
		wants(t, err, ErrConflict)
		_, err = table.DeleteIf(ctx, "ann", stored.Revision)
		wants(t, err, ErrConflict)
		now := wrote(table.Locate(ctx, "ann", bson.D{{Key: "name", Value: "Anna"}}))
		wrote(table.ReplaceIf(ctx, "ann", person{Name: "Anne", Age: 7}, now.Revision))
		wrote(table.Put(ctx, "bob", person{Name: "Bob", Age: 9}))
		wrote(table.Upsert(ctx, "cid", bson.M{"$set": bson.M{"age": 3}}))
		if has, err := table.Contains(ctx, "cid"); err != nil || !has {
			t.Error(has, err)
		}
		gone := wrote(table.Delete(ctx, "cid"))
		if gone.HasRevision || gone.Document.Lookup("age").AsInt64() != 3 {
			t.Errorf("%+v", gone)
		}
		if has, err := table.Contains(ctx, "cid"); err != nil || has {
			t.Error(has, err)
		}
		_, err = table.Get(ctx, "cid")
		wants(t, err, ErrNotFound)
		_, err = table.Replace(ctx, "cid", person{})
		wants(t, err, ErrNotFound)
		if err := table.Health(ctx); err != nil {
			t.Error(err)
		}
		numbers := tableOf[int, person](t, table.client, "people")
		_, err = numbers.Find(ctx, nil)
		wants(t, err, ErrCorruptState)
	})
}

func TestKeysAndValuesComeBackExactly(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		ctx, wrote, client := limited(t), done(t), connect(t, url)
		type compound struct {
			B int64  `bson:"b"`
			A string `bson:"a"`
		}
		pairs := tableOf[compound, bson.Raw](t, client, "pairs")
		decimal, err := bson.ParseDecimal128("0.10")
		if err != nil {
			t.Fatal(err)
		}
		document, err := bson.Marshal(bson.D{
			{Key: "_id", Value: compound{1, "x"}},
			{Key: "nan", Value: math.NaN()}, {Key: "inf", Value: math.Inf(-1)}, {Key: "zero", Value: math.Copysign(0, -1)},
			{Key: "int", Value: int32(5)}, {Key: "long", Value: int64(5)}, {Key: "most", Value: int64(math.MaxInt64)},
			{Key: "date", Value: bson.DateTime(-1)}, {Key: "far", Value: bson.DateTime(math.MaxInt64)},
			{Key: "bytes", Value: bson.Binary{Subtype: 0, Data: []byte{0, 255}}},
			{Key: "id", Value: bson.ObjectID{1, 2, 3}}, {Key: "exact", Value: decimal},
			{Key: "stamp", Value: bson.Timestamp{T: 3, I: 9}}, {Key: "pattern", Value: bson.Regex{Pattern: "^a", Options: "i"}},
			{Key: "text", Value: "a\x00b \U0001F600"}, {Key: "none", Value: nil}, {Key: "list", Value: bson.A{1, "x", bson.D{}}},
			{Key: "least", Value: bson.MinKey{}}, {Key: "most2", Value: bson.MaxKey{}},
		})
		if err != nil {
			t.Fatal(err)
		}
		wrote(pairs.Put(ctx, compound{1, "x"}, document))
		stored, err := pairs.Get(ctx, compound{1, "x"})
		if err != nil || !bytes.Equal(stored.Value, document) || stored.Key != (compound{1, "x"}) {
			t.Errorf("%v, %v", stored, err)
		}
		numbers := tableOf[int, bson.M](t, client, "numbers")
		wrote(numbers.Put(ctx, 7, bson.M{"n": 1}))
		if all, err := numbers.Find(ctx, nil); err != nil || len(all) != 1 || all[0].Key != 7 || all[0].Value["n"] != int32(1) {
			t.Errorf("%+v, %v", all, err)
		}
	})
}

// document is a slice that is a document in BSON.
type document bson.D

// tagged is a slice that makes a document of itself.
type tagged []string

func (t tagged) MarshalBSON() ([]byte, error) { return bson.Marshal(bson.M{"tags": []string(t)}) }

func TestASliceThatIsADocumentIsOne(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		ctx, wrote, client := limited(t), done(t), connect(t, url)
		table := tableOf[string, any](t, client, "slices")
		cached, err := table.Cached(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer cached.Close()
		for _, value := range []any{document{{Key: "a", Value: 1}}, []bson.E{{Key: "a", Value: 1}}, tagged{"x"}} {
			for what, written := range map[string]*Written{
				"put":     wrote(table.Put(ctx, "k", value)),
				"replace": wrote(table.Replace(ctx, "k", value)),
				"cached":  wrote(cached.Put(ctx, "k", value)),
				"insert":  wrote(table.Insert(ctx, fmt.Sprintf("%T", value), value)),
				"locate":  wrote(table.Locate(ctx, fmt.Sprintf("located %T", value), value)),
			} {
				if written.Document.Lookup("pipeline").Type != 0 {
					t.Errorf("%s of %T: %v", what, value, written.Document)
				}
			}
		}
		written := wrote(table.Update(ctx, "k", document{{Key: "$set", Value: bson.M{"b": 2}}}))
		if written.Document.Lookup("b").AsInt64() != 2 {
			t.Errorf("%v", written.Document)
		}
		for _, list := range []any{bson.A{}, []string{"a"}, []bson.D{{{Key: "$set", Value: 1}}}} {
			_, err := table.Put(ctx, "k", list)
			wants(t, err, ErrInvalidArgument)
		}
		pipeline := []bson.D{{{Key: "$set", Value: bson.M{"b": bson.M{"$add": bson.A{"$b", 1}}}}}}
		written, err = table.Update(ctx, "k", pipeline)
		if !strings.HasPrefix(url, "mongodb") {
			wants(t, err, ErrUnsupported)
		} else if err != nil || written.Document.Lookup("b").AsInt64() != 3 {
			t.Errorf("%+v, %v", written, err)
		}
		for _, update := range []any{nil, 1, []byte{1}, bson.ObjectID{}} {
			_, err := table.Update(ctx, "k", update)
			wants(t, err, ErrInvalidArgument)
		}
	})
}

func TestDocumentsAreFound(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		ctx, wrote := limited(t), done(t)
		table := tableOf[int, person](t, connect(t, url), "many")
		const count = 230 // more than two batches
		for i := range count {
			wrote(table.Insert(ctx, i, person{Age: int64(count - i)}))
		}
		seen := map[int]bool{}
		for stored, err := range table.Cursor(ctx, nil) {
			if err != nil {
				t.Fatal(err)
			}
			seen[stored.Key] = true
		}
		if len(seen) != count {
			t.Errorf("%d of %d", len(seen), count)
		}
		for range table.Cursor(ctx, nil) {
			break // what is left of it is given back
		}
		found, err := table.Find(ctx, bson.M{"age": bson.M{"$gt": 10}}, Sorted(bson.D{{Key: "age", Value: 1}}), Skipping(2),
			Limited(3), Projected(bson.D{{Key: "age", Value: 1}}))
		var ages []int64
		for _, stored := range found {
			ages = append(ages, stored.Value.Age)
		}
		if err != nil || !slices.Equal(ages, []int64{13, 14, 15}) {
			t.Errorf("%v, %v", ages, err)
		}
		if n, err := table.Count(ctx, bson.D{{Key: "age", Value: bson.M{"$lte": 5}}}); err != nil || n != 5 {
			t.Error(n, err)
		}
		many, err := table.UpdateMany(ctx, bson.M{"age": bson.M{"$lte": 5}}, bson.M{"$set": bson.M{"name": "few"}})
		if err != nil || many.Count != 5 || many.Position == 0 {
			t.Error(many, err)
		}
		if many, err = table.DeleteMany(ctx, bson.M{"name": "few"}); err != nil || many.Count != 5 {
			t.Error(many, err)
		}
		var most int64
		for result, err := range table.Aggregate(ctx, bson.A{bson.M{"$group": bson.M{"_id": nil, "most": bson.M{"$max": "$age"}}}}) {
			if !strings.HasPrefix(url, "mongodb") {
				wants(t, err, ErrUnsupported)
				most = count
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			most = result.Lookup("most").AsInt64()
		}
		if most != count {
			t.Error(most)
		}
		if !strings.HasPrefix(url, "mongodb") {
			_, err = table.Find(ctx, bson.M{"$where": "true"})
			wants(t, err, ErrUnsupported)
		}
	})
}

func TestIndexesAreKept(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		ctx := limited(t)
		table := tableOf[int, person](t, connect(t, url), "indexed")
		hour := time.Hour
		err := table.EnsureIndexes(ctx, Index{Fields: bson.D{{Key: "age", Value: -1}}, Unique: true},
			Index{Fields: bson.D{{Key: "at", Value: 1}}, Sparse: true, ExpireAfter: &hour, Name: "old"})
		if err != nil {
			t.Fatal(err)
		}
		done(t)(table.Insert(ctx, 1, person{Age: 1}))
		_, err = table.Insert(ctx, 2, person{Age: 1})
		wants(t, err, ErrAlreadyExists)
		wants(t, table.EnsureIndexes(ctx, Index{}), ErrInvalidArgument)
		wants(t, table.EnsureIndexes(ctx, Index{Fields: bson.D{{Key: "a", Value: 2}}}), ErrInvalidArgument)
		if err := table.Drop(ctx); err != nil {
			t.Fatal(err)
		}
		if n, err := table.Count(ctx, nil); err != nil || n != 0 {
			t.Error(n, err)
		}
	})
}

func TestAStaleHolderIsFenced(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		ctx, wrote, client := limited(t), done(t), connect(t, url)
		table := tableOf[string, person](t, client, "fenced")
		election, err := client.Election("e")
		if err != nil {
			t.Fatal(err)
		}
		term, err := election.Campaign(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		wrote(table.Put(ctx, "a", person{Age: 1}, Fenced(term), Strict()))
		if err := term.Resign(ctx); err != nil {
			t.Fatal(err)
		}
		again, err := election.Campaign(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		wrote(table.Delete(ctx, "a", Fenced(again)))
		runtime.KeepAlive(again)
		_, err = table.Upsert(ctx, "a", bson.M{"$set": bson.M{"age": 0}}, Fenced(term))
		wants(t, err, ErrNotHeld)
		held := acquire(t, lock(t, client, "l"))
		wrote(table.Put(ctx, "b", person{}, Fenced(held)))
		release(t, held)
		_, err = table.Put(ctx, "b", person{}, Fenced(held))
		wants(t, err, ErrNotHeld)
		_, err = table.Put(ctx, "b", person{}, Strict())
		wants(t, err, ErrInvalidArgument)
	})
}

func TestAWatchAcknowledges(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		ctx, wrote := limited(t), done(t)
		table := tableOf[string, person](t, connect(t, url), "watched")
		wrote(table.Put(ctx, "a", person{Age: 1}))
		wrote(table.Put(ctx, "b", person{Age: -1}))
		watch, err := table.Watch(bson.M{"age": bson.M{"$gt": 0}})
		if err != nil {
			t.Fatal(err)
		}
		told := func(w *TableWatch[string, person], change TableChange, key string) *TableDelivery[string, person] {
			t.Helper()
			delivery, err := w.Next(ctx)
			if err != nil || delivery.Change != change || delivery.Key != key {
				t.Fatalf("want %v of %q, got %+v, %v", change, key, delivery, err)
			}
			return delivery
		}
		ok := func(d *TableDelivery[string, person]) *TableDelivery[string, person] {
			t.Helper()
			if err := d.Done(nil); err != nil {
				t.Fatal(err)
			}
			return d
		}
		ok(told(watch, TableInit, ""))
		if d := ok(told(watch, TableInitApply, "a")); d.Value == nil || d.Value.Age != 1 || !d.HasRevision {
			t.Errorf("%+v", d)
		}
		start := ok(told(watch, TableInitDone, "")).Position
		wrote(table.Put(ctx, "a", person{Age: 2}))
		wrote(table.Delete(ctx, "a"))
		for failures := range 3 {
			d := told(watch, TableApply, "a")
			if d.Failures != failures || d.Value.Age != 2 {
				t.Errorf("%+v", d)
			}
			if failures < 2 {
				if err := d.Done(errors.New("not now")); err != nil {
					t.Fatal(err)
				}
				continue
			}
			ok(d)
			wants(t, d.Done(nil), ErrNotHeld)
		}
		if d := ok(told(watch, TableDelete, "a")); d.Value != nil {
			t.Errorf("%+v", d)
		}
		// What is forgotten comes again.
		later := wrote(table.Put(ctx, "c", person{Age: 3})).Position
		told(watch, TableApply, "c")
		again := make(chan *TableDelivery[string, person], 1)
		go func() {
			d, _ := watch.Next(ctx)
			again <- d
		}()
		var d *TableDelivery[string, person]
		becomes(t, "the delivery that was forgotten", func() bool {
			runtime.GC()
			select {
			case d = <-again:
				return true
			default:
				return false
			}
		})
		if d == nil || d.Key != "c" || d.Failures != 1 || d.Position < later {
			t.Fatalf("%+v", d)
		}
		ok(d)
		watch.Close()
		watch.Close()
		_, err = watch.Next(ctx)
		wants(t, err, ErrClosed)

		// From a position on, with a function.
		watch, err = table.Watch(bson.M{"age": bson.M{"$gt": 0}}, FromPosition(start), WithPrevious(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Close()
		var changes []string
		inside, enough := context.WithCancel(ctx)
		defer enough()
		err = watch.Run(inside, func(_ context.Context, event TableEvent[string, person]) error {
			changes = append(changes, event.Change.String()+" "+event.Key)
			if event.Key == "c" {
				enough()
			}
			return nil
		})
		wants(t, err, ErrCancelled)
		if !slices.Contains(changes, "delete a") || changes[len(changes)-1] != "apply c" {
			t.Error(changes)
		}
	})
}

func TestTheLogTellsWhoWrote(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		ctx, wrote := limited(t), done(t)
		table := tableOf[string, person](t, connect(t, url, WithName("ann")), "logged")
		// Not long before: a server that was busy remembers little.
		begun := time.Now()
		start := wrote(table.Put(ctx, "a", person{Age: 1})).Position
		wrote(table.Update(ctx, "a", bson.M{"$set": bson.M{"name": "A", "age": 2}}))
		wrote(table.Delete(ctx, "a"))
		var entries []LogEntry[string]
		for entry, err := range table.Log(ctx, LogAfter(start)) {
			if err != nil {
				t.Fatal(err)
			}
			if entries = append(entries, *entry); entry.Operation == Deleted {
				break
			}
		}
		if len(entries) != 2 || entries[0].Operation != Updated || entries[0].Source != "ann" || entries[0].Key != "a" ||
			!slices.Equal(entries[0].ChangedFields, []string{"age", "name"}) || entries[1].Operation != Deleted ||
			entries[1].HasRevision || time.Since(entries[0].At).Abs() > time.Hour {
			t.Errorf("%+v", entries)
		}
		for entry, err := range table.Log(ctx, LogSince(begun)) {
			if err != nil || entry.Operation != Inserted {
				t.Errorf("%+v, %v", entry, err)
			}
			break
		}
		stopped, stop := context.WithCancel(ctx)
		stop()
		for _, err := range table.Log(stopped, LogFromNow()) {
			wants(t, err, ErrCancelled)
		}
	})
}

func TestACachedTableShowsOnesOwnWrites(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		ctx, wrote := limited(t), done(t)
		table := tableOf[string, person](t, connect(t, url), "cached")
		wrote(table.Put(ctx, "a", person{Age: 1}))
		_, err := table.Cached(ctx, MaxBytes(10))
		wants(t, err, ErrInvalidArgument)
		cached, err := table.Cached(ctx, CacheFilter(bson.M{"age": bson.M{"$exists": true}}), ReadYourWrites(true))
		if err != nil {
			t.Fatal(err)
		}
		defer cached.Close()
		written := wrote(cached.Put(ctx, "b", person{Age: 2}))
		if stored, err := cached.Get("b"); err != nil || stored.Value.Age != 2 || stored.Revision != written.Revision {
			t.Errorf("%+v, %v", stored, err)
		}
		if !cached.Synced() || cached.Bytes() == 0 || cached.Position() < written.Position {
			t.Error(cached.Synced(), cached.Bytes(), cached.Position())
		}
		wrote(cached.Locate(ctx, "b", bson.M{"name": "B"}))
		wrote(cached.Update(ctx, "b", bson.M{"$inc": bson.M{"age": 1}}))
		wrote(cached.Upsert(ctx, "c", bson.M{"$set": bson.M{"age": 9}}))
		wrote(cached.Insert(ctx, "d", person{Age: 4}))
		replaced := wrote(cached.Replace(ctx, "d", person{Age: 5}))
		_, err = cached.DeleteIf(ctx, "d", replaced.Revision+1)
		wants(t, err, ErrConflict)
		wrote(cached.ReplaceIf(ctx, "d", person{Age: 6}, replaced.Revision))
		wrote(cached.Delete(ctx, "d"))
		found, err := cached.Find(bson.M{"age": bson.M{"$gt": 1}}, Sorted(bson.D{{Key: "age", Value: -1}}))
		if err != nil || len(found) != 2 || found[0].Key != "c" || found[1].Value.Age != 3 || found[1].Value.Name != "B" {
			t.Errorf("%+v, %v", found, err)
		}
		others := wrote(table.Put(ctx, "e", person{Age: 7}))
		if err := cached.WaitUntil(ctx, others.Position); err != nil {
			t.Fatal(err)
		}
		if n, err := cached.Count(nil); err != nil || n != 4 {
			t.Error(n, err)
		}
		if stored, err := cached.GetFresh(ctx, "e"); err != nil || stored.Value.Age != 7 {
			t.Error(stored, err)
		}
		_, err = cached.Get("z")
		wants(t, err, ErrNotFound)
		cached.Close()
		_, err = cached.Get("a")
		wants(t, err, ErrClosed)
	})
}

func TestBadInputToTables(t *testing.T) {
	ctx, client := limited(t), connect(t, memory(t))
	for _, name := range []string{"", "a b", "/", "a.system.b", strings.Repeat("a", 200)} {
		_, err := OpenTable[string, person](client, name)
		wants(t, err, ErrInvalidArgument)
	}
	_, err := OpenTable[string, person](nil, "t")
	wants(t, err, ErrClosed)
	floats := tableOf[float64, bson.M](t, client, "t")
	_, err = floats.Put(ctx, 1.5, bson.M{})
	wants(t, err, ErrInvalidArgument)
	table := tableOf[string, any](t, client, "t")
	for _, value := range []any{nil, 1, "a", make(chan int), bson.M{"_fence": 1}, bson.M{"_id": "other"}, []byte{1, 2}} {
		_, err := table.Put(ctx, "a", value)
		wants(t, err, ErrInvalidArgument)
	}
	_, err = table.Put(ctx, "a", bson.M{"b": strings.Repeat("b", 16<<20)})
	wants(t, err, ErrInvalidArgument)
	for _, filter := range []any{1, "a", bson.A{}, bson.M{"$or": 1}, make(chan int)} {
		_, err := table.Find(ctx, filter)
		wants(t, err, ErrInvalidArgument)
		if !strings.Contains(err.Error(), "filter") {
			t.Errorf("%v does not say that the filter is wrong", err)
		}
		_, err = table.Watch(filter)
		wants(t, err, ErrInvalidArgument)
	}
	_, err = table.Update(ctx, "a", bson.M{"name": 1})
	wants(t, err, ErrInvalidArgument)
	_, err = table.Find(ctx, nil, Limited(-1))
	wants(t, err, ErrInvalidArgument)
	_, err = table.Find(ctx, nil, Sorted(bson.M{"a": "b"}))
	wants(t, err, ErrInvalidArgument)
	if n, err := table.Count(ctx, nil); err != nil || n != 0 {
		t.Error(n, err)
	}
	stopped, stop := context.WithCancel(ctx)
	stop()
	_, err = table.Get(stopped, "a")
	wants(t, err, ErrCancelled)
}

func TestAnEventWhoseErrorIsNoTextComesAgain(t *testing.T) {
	ctx, client := limited(t), connect(t, memory(t))
	table := tableOf[string, person](t, client, "watched")
	watch, err := table.Watch(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	inside, enough := context.WithCancel(ctx)
	defer enough()
	var inits []int
	err = watch.Run(inside, func(_ context.Context, event TableEvent[string, person]) error {
		if event.Change == TableInitDone {
			enough()
			return nil
		}
		switch inits = append(inits, event.Failures); event.Failures {
		case 0:
			return errors.New("bad \xff text")
		case 1:
			return errors.New(strings.Repeat("ä", 1<<16))
		}
		return nil
	})
	wants(t, err, ErrCancelled)
	if !slices.Equal(inits, []int{0, 1, 2}) {
		t.Error(inits)
	}
}

func TestAnEventWhoseFunctionPanicsComesAgain(t *testing.T) {
	// The collector is not what gives it back.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	ctx, client := limited(t), connect(t, memory(t))
	watch, err := tableOf[string, person](t, client, "watched").Watch(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	func() {
		defer func() {
			if panicked := recover(); panicked != "on purpose" {
				t.Errorf("the panic does not go on: %v", panicked)
			}
		}()
		_ = watch.Run(ctx, func(context.Context, TableEvent[string, person]) error { panic("on purpose") })
	}()
	again, err := watch.Next(ctx)
	if err != nil || again.Change != TableInit || again.Failures != 1 {
		t.Fatalf("%+v, %v", again, err)
	}
	if err := again.Done(nil); err != nil {
		t.Error(err)
	}
}

func TestATimeToExpireIsRoundedUp(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		ctx := limited(t)
		table := tableOf[int, person](t, connect(t, url), "expiring")
		after := func(d time.Duration) Index {
			return Index{Fields: bson.D{{Key: "at", Value: 1}}, Name: "old", ExpireAfter: &d}
		}
		wants(t, table.EnsureIndexes(ctx, after(-time.Millisecond)), ErrInvalidArgument)
		for _, same := range []time.Duration{500 * time.Millisecond, time.Second} {
			if err := table.EnsureIndexes(ctx, after(same)); err != nil {
				t.Errorf("%v: %v", same, err)
			}
		}
		wants(t, table.EnsureIndexes(ctx, after(1001*time.Millisecond)), ErrInvalidArgument)
	})
}
