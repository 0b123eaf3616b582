//go:build cgo && linux

package ccoord

// #include <coord.h>
import "C"

// Client is a connection to a store.
type Client struct{ h *C.coord_client_t }

// Config is how to connect. Used by one goroutine at a time.
type Config struct{ h *C.coord_config_t }

// Session is the session of a client at one moment.
type Session struct{ h *C.coord_session_t }

// The states of a session.
const (
	SessionOpening   = C.COORD_SESSION_OPENING
	SessionLive      = C.COORD_SESSION_LIVE
	SessionSuspended = C.COORD_SESSION_SUSPENDED
	SessionLost      = C.COORD_SESSION_LOST
)

// SessionInfo is what a session says of itself.
type SessionInfo struct {
	State, Loss                int32
	ID, Name, Host             string
	RemainingMillis, TTLMillis int64
}

// NewConfig reads a URL; an empty one stands for the environment, or the default file.
func NewConfig(url string) (Config, *Error) {
	stress()
	var config Config
	var e *C.coord_error_t
	if url == "" {
		err := failure(C.coord_config_new(C.COORD_ABI_VERSION, nil, 0, &config.h, &e), e)
		return config, err
	}
	at, length := lend(url)
	err := failure(C.coord_config_new(C.COORD_ABI_VERSION, at, length, &config.h, &e), e)
	return config, err
}

// Set sets one option.
func (c Config) Set(key, value string) *Error {
	var e *C.coord_error_t
	k, keyLength := lend(key)
	v, valueLength := lend(value)
	return failure(C.coord_config_set(c.h, k, keyLength, v, valueLength, &e), e)
}

// Destroy destroys the configuration.
func (c Config) Destroy() { C.coord_config_destroy(c.h) }

// Connect starts connecting.
func (c Config) Connect(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_client_connect_start(c.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// OpenSession starts opening another session.
func (c Client) OpenSession(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_client_open_session_start(c.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Close starts closing.
func (c Client) Close(to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_client_close_start(c.h, -1, q, tag, op, e)
	})
}

// Health starts asking the store.
func (c Client) Health(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_client_health_start(c.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// BreakLock starts ending somebody's hold.
func (c Client) BreakLock(name string, token int64, force bool, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(name)
	var forced C.int32_t
	if force {
		forced = 1
	}
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_client_break_lock_start(
			c.h, at, length, C.int64_t(token), forced, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Locks starts listing locks.
func (c Client) Locks(prefix string, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(prefix)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_client_locks_start(c.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// LockInfo starts looking at one lock.
func (c Client) LockInfo(name string, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(name)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_client_lock_info_start(c.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Session is the session as it is now.
func (c Client) Session() (Session, *Error) {
	stress()
	var session Session
	var e *C.coord_error_t
	err := failure(C.coord_client_session(c.h, &session.h, &e), e)
	return session, err
}

// SessionWait starts waiting for the session to differ from the one seen.
func (c Client) SessionWait(seen Session, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_client_session_wait_start(c.h, seen.h, q, tag, op, e)
	})
}

// Stats are the client's counters, in the order of their numbers.
func (c Client) Stats() ([]int64, *Error) {
	stress()
	var stats *C.coord_stats_t
	var e *C.coord_error_t
	if err := failure(C.coord_client_stats(c.h, &stats, &e), e); err != nil {
		return nil, err
	}
	defer C.coord_stats_destroy(stats)
	values := make([]int64, StatCount)
	for i := range values {
		values[i] = int64(C.coord_stats_value(stats, C.int32_t(i)))
	}
	return values, nil
}

// StatCount is how many counters the header knows.
const StatCount = C.COORD_STAT_STORE_READS + 1

// StatName is the name of a counter, empty where the library has no more.
func StatName(stat int) string { return C.GoString(C.coord_stat_name(C.int32_t(stat))) }

// Destroy destroys the handle; the client is closed in the background.
func (c Client) Destroy() { C.coord_client_destroy(c.h) }

// Info copies what the session says.
func (s Session) Info() SessionInfo {
	return SessionInfo{
		State:           int32(C.coord_session_state(s.h)),
		Loss:            int32(C.coord_session_loss(s.h)),
		ID:              C.GoString(C.coord_session_id(s.h)),
		Name:            C.GoString(C.coord_session_name(s.h)),
		Host:            C.GoString(C.coord_session_host(s.h)),
		RemainingMillis: int64(C.coord_session_remaining_ms(s.h)),
		TTLMillis:       int64(C.coord_session_ttl_ms(s.h)),
	}
}

// Destroy destroys the snapshot.
func (s Session) Destroy() { C.coord_session_destroy(s.h) }
