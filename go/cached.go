package coord

import (
	"context"
	"runtime"

	"coord/internal/ccoord"
)

// CachedTable is a table with a copy in memory, which is kept fresh: Get, Find and Count need no I/O, but Find and Count
// look at each document. What it shows is what the table was at one moment, a little ago. It is ended by Close, or when it
// is forgotten.
type CachedTable[K, V any] struct {
	table   *table
	cached  ccoord.CachedTable
	cleanup runtime.Cleanup
}

// CacheOption changes how a table is kept in memory.
type CacheOption func(*cacheOptions)

type cacheOptions struct {
	filter any
	set    []ccoord.Setting
}

// CacheFilter keeps the documents that match only.
func CacheFilter(filter any) CacheOption { return func(o *cacheOptions) { o.filter = filter } }

// MaxBytes is the most that the documents may take, in bytes of BSON; 256 MiB by default. While a snapshot is read anew
// there may be as much again. When they become more, every read of the copy fails with ErrInvalidArgument; writes go on.
func MaxBytes(most int64) CacheOption {
	return func(o *cacheOptions) { o.set = append(o.set, ccoord.Setting{Name: "max_bytes", Number: most}) }
}

// ReadYourWrites says whether a write through the cached table returns only when the copy shows it, or has ended. It does by
// default.
func ReadYourWrites(wait bool) CacheOption {
	return func(o *cacheOptions) {
		o.set = append(o.set, ccoord.Setting{Name: "read_your_writes", Number: number(wait)})
	}
}

// Cached copies the table into memory, and returns when the copy is complete. It fails with ErrInvalidArgument if the
// documents are more than MaxBytes.
func (t *Table[K, V]) Cached(ctx context.Context, options ...CacheOption) (*CachedTable[K, V], error) {
	defer runtime.KeepAlive(t.table)
	op := t.op("cache")
	var o cacheOptions
	for _, option := range options {
		if option != nil {
			option(&o)
		}
	}
	where, err := filterOf(op, o.filter)
	if err != nil {
		return nil, err
	}
	cached, err := next(ctx, t.client.inner(), op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return t.table.table.Cached(where, o.set, timeLimit(ctx), to)
	}, ccoord.Event.TakeCachedTable)
	if err != nil {
		return nil, err
	}
	c := &CachedTable[K, V]{table: t.table, cached: cached}
	c.cleanup = runtime.AddCleanup(c, ccoord.CachedTable.Destroy, cached)
	return c, nil
}

// Table is the table itself: what is asked of it is asked of the store.
func (c *CachedTable[K, V]) Table() *Table[K, V] { return &Table[K, V]{c.table} }

// Get is the document of a key, from memory; it fails with ErrNotFound if there is none, with ErrInvalidArgument when the
// documents have become more than MaxBytes, and with ErrClosed.
func (c *CachedTable[K, V]) Get(key K) (*Stored[K, V], error) {
	defer runtime.KeepAlive(c)
	op := c.table.op("read")
	bytes, err := keyBytes(op, key)
	if err != nil {
		return nil, err
	}
	stored, failed := c.cached.Get(bytes)
	if failed != nil {
		return nil, newError(op, failed)
	}
	return storedAs[K, V](op, stored)
}

// GetFresh is the document of a key, from the store.
func (c *CachedTable[K, V]) GetFresh(ctx context.Context, key K) (*Stored[K, V], error) {
	return c.Table().Get(ctx, key)
}

// Find is the documents that match, from memory: it looks at each. It fails with ErrUnsupported for what only MongoDB
// knows, also there: ask Table then.
func (c *CachedTable[K, V]) Find(filter any, options ...FindOption) ([]Stored[K, V], error) {
	defer runtime.KeepAlive(c)
	op := c.table.op("read")
	where, err := filterOf(op, filter)
	if err != nil {
		return nil, err
	}
	set, err := findSettings(op, options)
	if err != nil {
		return nil, err
	}
	found, failed := c.cached.Find(where, set)
	if failed != nil {
		return nil, newError(op, failed)
	}
	all := make([]Stored[K, V], len(found))
	for i, stored := range found {
		read, err := storedAs[K, V](op, stored)
		if err != nil {
			return nil, err
		}
		all[i] = *read
	}
	return all, nil
}

// Count is how many documents match, from memory.
func (c *CachedTable[K, V]) Count(filter any) (int64, error) {
	defer runtime.KeepAlive(c)
	op := c.table.op("count")
	where, err := filterOf(op, filter)
	if err != nil {
		return 0, err
	}
	count, failed := c.cached.Count(where)
	if failed != nil {
		return 0, newError(op, failed)
	}
	return int64(count), nil
}

// Insert is [Table.Insert]; with ReadYourWrites it returns when the copy shows it, like all writes here.
func (c *CachedTable[K, V]) Insert(ctx context.Context, key K, value V, options ...WriteOption) (*Written, error) {
	return c.write(ctx, "insert into", ccoord.WriteInsert, key, value, nil, options)
}

// Put is [Table.Put].
func (c *CachedTable[K, V]) Put(ctx context.Context, key K, value V, options ...WriteOption) (*Written, error) {
	return c.write(ctx, "put into", ccoord.WritePut, key, value, nil, options)
}

// Update is [Table.Update].
func (c *CachedTable[K, V]) Update(ctx context.Context, key K, update any, options ...WriteOption) (*Written, error) {
	return c.write(ctx, "update", ccoord.WriteUpdate, key, update, nil, options)
}

// Upsert is [Table.Upsert].
func (c *CachedTable[K, V]) Upsert(ctx context.Context, key K, update any, options ...WriteOption) (*Written, error) {
	return c.write(ctx, "upsert into", ccoord.WriteUpsert, key, update, nil, options)
}

// Locate is [Table.Locate].
func (c *CachedTable[K, V]) Locate(ctx context.Context, key K, fields any, options ...WriteOption) (*Written, error) {
	return c.write(ctx, "locate in", ccoord.WriteLocate, key, fields, nil, options)
}

// Replace is [Table.Replace].
func (c *CachedTable[K, V]) Replace(ctx context.Context, key K, value V, options ...WriteOption) (*Written, error) {
	return c.write(ctx, "replace in", ccoord.WriteReplace, key, value, nil, options)
}

// ReplaceIf is [Table.ReplaceIf].
func (c *CachedTable[K, V]) ReplaceIf(
	ctx context.Context, key K, value V, revision Revision, options ...WriteOption,
) (*Written, error) {
	return c.write(ctx, "replace in", ccoord.WriteReplace, key, value, &revision, options)
}

// Delete is [Table.Delete].
func (c *CachedTable[K, V]) Delete(ctx context.Context, key K, options ...WriteOption) (*Written, error) {
	return c.write(ctx, "delete from", ccoord.WriteDelete, key, nil, nil, options)
}

// DeleteIf is [Table.DeleteIf].
func (c *CachedTable[K, V]) DeleteIf(
	ctx context.Context, key K, revision Revision, options ...WriteOption,
) (*Written, error) {
	return c.write(ctx, "delete from", ccoord.WriteDelete, key, nil, &revision, options)
}

func (c *CachedTable[K, V]) write(
	ctx context.Context, verb string, action int32, key, document any, revision *Revision, options []WriteOption,
) (*Written, error) {
	defer runtime.KeepAlive(c)
	return written(ctx, c.table, verb, c.cached.Write, action, key, document, revision, options)
}

// WaitUntil waits until the copy shows everything up to this place.
func (c *CachedTable[K, V]) WaitUntil(ctx context.Context, position Position) error {
	defer runtime.KeepAlive(c)
	return c.table.pump().finish(ctx, c.table.op("wait for"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return c.cached.WaitUntil(uint64(position), timeLimit(ctx), to)
	})
}

// Position is up to which place in the history the copy shows everything.
func (c *CachedTable[K, V]) Position() Position {
	defer runtime.KeepAlive(c)
	return Position(c.cached.Position())
}

// Synced is whether the copy follows the store at this moment; false while the store cannot be reached, when it shows
// what was there before.
func (c *CachedTable[K, V]) Synced() bool {
	defer runtime.KeepAlive(c)
	return c.cached.IsSynced()
}

// Bytes is how many bytes of BSON the copy takes.
func (c *CachedTable[K, V]) Bytes() int {
	defer runtime.KeepAlive(c)
	return c.cached.Bytes()
}

// Close ends the copy. Closing twice is no error.
func (c *CachedTable[K, V]) Close() {
	defer runtime.KeepAlive(c)
	c.cleanup.Stop()
	c.cached.Destroy()
}
