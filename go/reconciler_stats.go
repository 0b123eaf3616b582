package coord

import (
	"runtime"
	"time"
)

// ReconcilerStats is what a reconciler is doing and has done.
type ReconcilerStats struct {
	// Ready keys wait for a worker, Delayed ones are due later, InFlight ones are being run, Parked ones are parked.
	Ready, Delayed, InFlight, Parked int64
	// Oldest is how long the first of the ready keys has been ready.
	Oldest time.Duration
	// LongestRun is how long the longest of the present runs has been going on.
	LongestRun time.Duration
	// Runs have ended; Errors of them with an error, terminal ones included.
	Runs, Errors int64
	// Retries are runs that began after an error of their key.
	Retries int64
	// Terminal runs ended with a terminal error, Requeued ones asked for another one later.
	Terminal, Requeued int64
	// Fenced runs did not count, because their shard or the leadership was lost.
	Fenced int64
	// Dropped runs were given up without a result.
	Dropped int64
	// RunTime is how long all runs that have ended took together, LongestEndedRun how long the longest of them took.
	RunTime, LongestEndedRun time.Duration
	// QueueTime is how long all keys together were ready before they were run.
	QueueTime time.Duration
	// Synced is whether every key of the source has been seen.
	Synced bool
	// Paused is whether it is paused.
	Paused bool
	// Shards are those that this replica holds, in ascending order; 0 alone for the leadership; none in ModeAll.
	Shards []int
}

// Stats returns what the reconciler is doing and has done, also after its end. It does not wait.
func (r *Reconciler) Stats() (ReconcilerStats, error) {
	defer runtime.KeepAlive(r)
	stats, failed := r.reconciler.Stats()
	if failed != nil {
		return ReconcilerStats{}, newError("count runs", failed)
	}
	// In the order of their numbers in coord.h; a test compares the names.
	v := stats.Values
	micros := func(value int64) time.Duration { return time.Duration(value) * time.Microsecond }
	taken := ReconcilerStats{
		Ready: v[0], Delayed: v[1], InFlight: v[2], Parked: v[3],
		Oldest: micros(v[4]), LongestRun: micros(v[5]),
		Runs: v[6], Errors: v[7], Retries: v[8], Terminal: v[9], Requeued: v[10], Fenced: v[11], Dropped: v[12],
		RunTime: micros(v[13]), LongestEndedRun: micros(v[14]), QueueTime: micros(v[15]),
		Synced: v[16] == 1, Paused: v[17] == 1,
		Shards: make([]int, len(stats.Shards)),
	}
	for i, shard := range stats.Shards {
		taken.Shards[i] = int(shard)
	}
	return taken, nil
}

// ParkedKey is a key that is not run before it changes or is added by hand.
type ParkedKey struct {
	// Key is the key, as [Work.Key] gives it.
	Key any
	// Reason is what the function's terminal error said.
	Reason string
	// For is how long it has been parked.
	For time.Duration
}

// Parked lists the keys whose function said that they cannot be reconciled. It does not wait.
func (r *Reconciler) Parked() ([]ParkedKey, error) {
	defer runtime.KeepAlive(r)
	list, failed := r.reconciler.Parked()
	if failed != nil {
		return nil, newError("list parked keys", failed)
	}
	parked := make([]ParkedKey, len(list))
	for i, key := range list {
		parked[i] = ParkedKey{keyOf(key.Key), key.Reason, time.Duration(key.ParkedMillis) * time.Millisecond}
	}
	return parked, nil
}
