package coord

import (
	"strconv"
	"time"

	"coord/internal/ccoord"
)

// ReconcileOption changes how a reconciler works. [Backoff] is one, too.
type ReconcileOption interface{ reconcile(*[]ccoord.Setting) }

type reconcileOption []ccoord.Setting

func (o reconcileOption) reconcile(set *[]ccoord.Setting) { *set = append(*set, o...) }

// Mode says which of several replicas, reconcilers of one name, run a key.
type Mode string

const (
	// ModeAll: every replica runs every key.
	ModeAll Mode = "all"
	// ModeLeader: the elected one runs every key. The election is "reconcile:NAME".
	ModeLeader Mode = "leader"
	// ModeSharded: each key belongs to one of [Shards], and each shard to one replica.
	ModeSharded Mode = "sharded"
)

// InMode sets which of several replicas run a key. The default is ModeAll.
func InMode(mode Mode) ReconcileOption {
	return reconcileOption{{Name: "mode", Text: string(mode), IsText: true}}
}

// Shards is how many shards there are in ModeSharded: the same for all replicas, for ever. The default is 64.
func Shards(shards int) ReconcileOption {
	return reconcileOption{{Name: "shards", Number: int64(shards)}}
}

// Workers is how many keys are run at once, 1 to 10,000. The default is 1.
func Workers(workers int) ReconcileOption {
	return reconcileOption{{Name: "workers", Number: int64(workers)}}
}

// Rate bounds how many runs may begin in a second, and how many at once after a time without any. There is no bound by
// default.
func Rate(perSecond float64, burst int) ReconcileOption {
	return reconcileOption{
		{Name: "rate_per_second", Text: strconv.FormatFloat(perSecond, 'g', -1, 64), IsText: true},
		{Name: "rate_burst", Number: int64(burst)},
	}
}

// Resync sets how often every key is run although nothing has changed; at least a second apart, never by default. Keys
// that wait after an error keep waiting, and parked ones stay parked.
func Resync(every time.Duration) ReconcileOption {
	return reconcileOption{{Name: "resync_ms", Number: roundedUp(every)}}
}

// MoveGrace is how long a run may go on when its shard is to move to another replica, before it is asked to stop; 10 s by
// default. However long it takes, the shard moves after its end.
func MoveGrace(grace time.Duration) ReconcileOption {
	return reconcileOption{{Name: "move_grace_ms", Number: roundedUp(grace)}}
}

// BackoffOption is how long to wait after errors.
type BackoffOption struct{ least, most time.Duration }

func (o BackoffOption) change(set *[]ccoord.Setting) {
	o.named("min_backoff_ms", "max_backoff_ms", set)
}

func (o BackoffOption) reconcile(set *[]ccoord.Setting) {
	o.named("backoff_min_ms", "backoff_max_ms", set)
}

func (o BackoffOption) named(least, most string, set *[]ccoord.Setting) {
	*set = append(*set,
		ccoord.Setting{Name: least, Number: roundedUp(o.least)}, ccoord.Setting{Name: most, Number: roundedUp(o.most)})
}

// Backoff is how long to wait after errors: least after the first, twice as long after the next, up to most. They count
// in whole milliseconds, rounded up.
//
// Of a candidacy it says for how long this client does not campaign after a call that failed, a second to a minute by
// default. Of a reconciler it says when a key is run again, and a random part of up to a quarter is added; 5 ms to 1000 s
// by default.
func Backoff(least, most time.Duration) BackoffOption { return BackoffOption{least, most} }
