//go:build cgo && linux

package ccoord

// #include <coord.h>
import "C"

// Holder is who holds a lock or waits for it.
type Holder struct {
	Name, Session, Host string
	PID                 uint32
	Token, SinceMillis  int64
	State               int32
	SilentMillis        int64
	IsSelf              bool
}

// What was observed of a holder.
const (
	HolderLive   = C.COORD_HOLDER_LIVE
	HolderSilent = C.COORD_HOLDER_SILENT
	HolderDead   = C.COORD_HOLDER_DEAD
)

// LockInfo is one lock of a list.
type LockInfo struct {
	Name     string
	Token    int64
	Breaking bool
	Holder   *Holder
	Waiters  []Holder
}

func copyHolder(h *C.coord_holder_t) *Holder {
	if h == nil {
		return nil
	}
	return &Holder{
		Name:         C.GoString(C.coord_holder_name(h)),
		Session:      C.GoString(C.coord_holder_session(h)),
		Host:         C.GoString(C.coord_holder_host(h)),
		PID:          uint32(C.coord_holder_pid(h)),
		Token:        int64(C.coord_holder_token(h)),
		SinceMillis:  int64(C.coord_holder_since_ms(h)),
		State:        int32(C.coord_holder_state(h)),
		SilentMillis: int64(C.coord_holder_silent_ms(h)),
		IsSelf:       C.coord_holder_is_self(h) != 0,
	}
}

func copyLocks(list *C.coord_lock_list_t) []LockInfo {
	locks := make([]LockInfo, C.coord_lock_list_count(list))
	for i := range locks {
		at := C.size_t(i)
		lock := LockInfo{
			Name:     C.GoString(C.coord_lock_list_name(list, at)),
			Token:    int64(C.coord_lock_list_token(list, at)),
			Breaking: C.coord_lock_list_is_breaking(list, at) != 0,
			Holder:   copyHolder(C.coord_lock_list_holder(list, at)),
		}
		for waiter := range C.coord_lock_list_waiter_count(list, at) {
			if holder := copyHolder(C.coord_lock_list_waiter(list, at, waiter)); holder != nil {
				lock.Waiters = append(lock.Waiters, *holder)
			}
		}
		locks[i] = lock
	}
	return locks
}
