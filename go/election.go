package coord

import (
	"context"
	"iter"
	"runtime"
	"time"

	"coord/internal/ccoord"
)

// Election is an election by its name: one leader at a time, who publishes a value. Nothing is asked for before
// somebody campaigns or observes, and nothing has to be closed. Its methods may be called from any goroutine.
type Election struct {
	client   *Client
	election ccoord.Election
	name     string
}

// CampaignOption changes how one campaigns.
type CampaignOption func(*[]ccoord.Setting)

// Priority is -2048 to 2047, 0 by default: of those who wait, the highest wins the next term. A leader is not pushed
// out by a higher one, and a low one can wait for ever.
func Priority(priority int) CampaignOption {
	return func(set *[]ccoord.Setting) {
		*set = append(*set, ccoord.Setting{Name: "priority", Number: int64(priority)})
	}
}

// Leader is who leads, as the store knows it.
type Leader struct {
	// Session is the id of its session, new at every start of a client and after every loss.
	Session string
	// Name is the name that its client was given; empty if none was.
	Name string
	// Host and PID are where it runs, as it says itself.
	Host string
	PID  int
	// Labels are those that its client was given.
	Labels map[string]string
	// Value is what it has published. HasValue is false in the moment between its win and that.
	Value    string
	HasValue bool
	// Token is the fencing token of its term.
	Token int64
	// Since is when its term began, by the store's clock: for people, never for decisions.
	Since time.Time
	// Self is whether it is the client that asked.
	Self bool
}

// Candidate is who waits to lead.
type Candidate struct {
	// Session is the id of its session; Term.TransferTo takes it.
	Session string
	// Name is the name that its client was given; empty if none was.
	Name string
	// Host and PID are where it runs, as it says itself.
	Host string
	PID  int
	// Priority is the one that it campaigns with.
	Priority int
	// Self is whether it is the client that asked.
	Self bool
}

// LeaderEvent is what an observer of an election is told.
type LeaderEvent struct {
	// Leader leads now, or has published another value; nil when nobody leads.
	Leader *Leader
}

// Election returns the election of this name: "name", "scope/name" or "namespace/scope/name", as of a lock. It does not
// wait.
func (c *Client) Election(name string) (*Election, error) {
	defer runtime.KeepAlive(c)
	election, failed := c.inner().client.Election(name)
	if failed != nil {
		return nil, c.inner().newError("make an election", failed)
	}
	l := &Election{client: c, election: election, name: election.Name()}
	// The handle is a little memory, and no claim to anything.
	runtime.AddCleanup(l, ccoord.Election.Destroy, election)
	return l, nil
}

// Name is the election's full name, "namespace/scope/name".
func (l *Election) Name() string { return l.name }

// Campaign campaigns until this client leads, and publishes value, at most 64 KiB. It waits its turn, also through
// outages of the store, until ctx ends. It fails with ErrQueueFull, ErrLost (the session died while waiting; the next
// call uses a new one), ErrClosed, and the errors of the store that waiting cannot cure. A call that fails leaves
// nothing behind.
func (l *Election) Campaign(ctx context.Context, value string, options ...CampaignOption) (*Term, error) {
	return l.campaign(ctx, value, timeLimit(ctx), options)
}

// TryCampaign campaigns if nobody leads and nobody waits, and fails with ErrContended otherwise; the error names the
// leader. It fails with ErrUnavailable while the store cannot be reached.
func (l *Election) TryCampaign(ctx context.Context, value string) (*Term, error) {
	return l.campaign(ctx, value, 0, nil)
}

func (l *Election) campaign(ctx context.Context, value string, timeLimit int64, options []CampaignOption) (*Term, error) {
	defer runtime.KeepAlive(l)
	var set []ccoord.Setting
	for _, option := range options {
		if option != nil {
			option(&set)
		}
	}
	op := l.op("campaign in")
	event, err := l.client.inner().pump.await(ctx, op, true, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return l.election.Campaign(value, set, timeLimit, to)
	})
	if err != nil {
		return nil, err
	}
	defer event.Destroy()
	term, failed := event.TakeTerm()
	if failed != nil {
		return nil, newError(op, failed)
	}
	return newCampaignedTerm(l.client, term), nil
}

// IsLeader is whether this client leads now: it has a term that is valid at this moment. It reads a clock and nothing
// else.
func (l *Election) IsLeader() bool {
	defer runtime.KeepAlive(l)
	return l.election.IsLeader()
}

// Leader returns who leads at this moment, nil when nobody does. One or two reads, which may be a moment old: what a
// leader itself goes by is Term.Check.
func (l *Election) Leader(ctx context.Context) (*Leader, error) {
	defer runtime.KeepAlive(l)
	leader, err := next(ctx, l.client.inner(), l.op("ask who leads"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return l.election.Leader(timeLimit(ctx), to)
	}, ccoord.Event.TakeLeader)
	return newLeader(leader), err
}

// Candidates lists who waits to lead, in the order in which they would win. One or two reads.
func (l *Election) Candidates(ctx context.Context) ([]Candidate, error) {
	defer runtime.KeepAlive(l)
	list, err := next(ctx, l.client.inner(), l.op("list candidates"), func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return l.election.Candidates(timeLimit(ctx), to)
	}, ccoord.Event.TakeCandidates)
	if err != nil {
		return nil, err
	}
	candidates := make([]Candidate, len(list))
	for i, c := range list {
		candidates[i] = Candidate{c.Session, c.Name, c.Host, int(c.PID), int(c.Priority), c.IsSelf}
	}
	return candidates, nil
}

// LeaderWatch is the story of an election. It is ended by Close, or when it is forgotten.
type LeaderWatch struct {
	client  *Client
	watch   ccoord.LeaderWatch
	op      string
	cleanup runtime.Cleanup
}

// Observe begins to observe the election: Next gives the present state, then every change, always with a moment of no
// leader between two terms. The stream of changes is shared by everything that this client observes.
func (l *Election) Observe(ctx context.Context) (*LeaderWatch, error) {
	defer runtime.KeepAlive(l)
	op := l.op("observe")
	watch, err := next(ctx, l.client.inner(), op, func(to ccoord.Report) (ccoord.Op, *ccoord.Error) {
		return l.election.Observe(timeLimit(ctx), to)
	}, ccoord.Event.TakeLeaderWatch)
	if err != nil {
		return nil, err
	}
	w := &LeaderWatch{client: l.client, watch: watch, op: op}
	w.cleanup = runtime.AddCleanup(w, ccoord.LeaderWatch.Destroy, watch)
	return w, nil
}

// Next waits for the next event. It goes on through outages of the store; after one, with the state of then. When ctx
// ends first, no event is lost. It fails with ErrClosed when the watch or the client is closed.
func (w *LeaderWatch) Next(ctx context.Context) (LeaderEvent, error) {
	defer runtime.KeepAlive(w)
	leader, err := next(ctx, w.client.inner(), w.op, w.watch.Next, ccoord.Event.TakeLeader)
	return LeaderEvent{newLeader(leader)}, err
}

// Events returns the events for as long as it is ranged over. It ends when the watch or the client is closed, and with
// an error when ctx ends.
func (w *LeaderWatch) Events(ctx context.Context) iter.Seq2[LeaderEvent, error] {
	return feed(ctx, w.Next)
}

// Close ends the watch. Closing again is no error.
func (w *LeaderWatch) Close() {
	w.cleanup.Stop()
	w.watch.Destroy()
	runtime.KeepAlive(w)
}

func (l *Election) op(verb string) string { return verb + " election '" + l.name + "'" }

func newLeader(l *ccoord.Leader) *Leader {
	if l == nil {
		return nil
	}
	return &Leader{
		Session:  l.Session,
		Name:     l.Name,
		Host:     l.Host,
		PID:      int(l.PID),
		Labels:   l.Labels,
		Value:    l.Value,
		HasValue: l.HasValue,
		Token:    l.Token,
		Since:    time.UnixMilli(l.SinceMillis),
		Self:     l.IsSelf,
	}
}
