package coord

import (
	"runtime"
	"time"
)

// Stats are a client's counters since it was connected.
type Stats struct {
	// Renewals of the session that were acknowledged.
	Renewals int64
	// FailedRenewals failed or were not answered in time.
	FailedRenewals int64
	// LastSlack is how much validity was left at the latest renewal; negative before the first.
	LastSlack time.Duration
	// LeastSlack is the least validity that was ever left at a renewal; negative before the first.
	LeastSlack time.Duration
	// Suspensions is how often the session was suspended.
	Suspensions int64
	// Losses is how many sessions were lost and replaced.
	Losses int64
	// Grants is how many holds were granted.
	Grants int64
	// UnknownGrants nobody asked for any more; they were given back.
	UnknownGrants int64
	// Timeouts is how many acquires ended at their time limit.
	Timeouts int64
	// NoticeGaps is how often the store's stream of notices was opened or had a gap.
	NoticeGaps int64
	// Kills is how many sessions of others this client declared dead.
	Kills int64
	// Held is how much is held at this moment.
	Held int64
	// Waiting is how many acquires wait at this moment.
	Waiting int64
	// StoreSessionSteps, StoreClaimSteps and StoreReads are what was asked of the store.
	StoreSessionSteps int64
	StoreClaimSteps   int64
	StoreReads        int64
}

// Stats returns the client's counters. It does not wait.
func (c *Client) Stats() (Stats, error) {
	defer runtime.KeepAlive(c)
	values, failed := c.inner().client.Stats()
	if failed != nil {
		return Stats{}, c.inner().newError("count", failed)
	}
	// In the order of their numbers in coord.h; a test compares the names.
	return Stats{
		Renewals:          values[0],
		FailedRenewals:    values[1],
		LastSlack:         time.Duration(values[2]) * time.Microsecond,
		LeastSlack:        time.Duration(values[3]) * time.Microsecond,
		Suspensions:       values[4],
		Losses:            values[5],
		Grants:            values[6],
		UnknownGrants:     values[7],
		Timeouts:          values[8],
		NoticeGaps:        values[9],
		Kills:             values[10],
		Held:              values[11],
		Waiting:           values[12],
		StoreSessionSteps: values[13],
		StoreClaimSteps:   values[14],
		StoreReads:        values[15],
	}, nil
}
