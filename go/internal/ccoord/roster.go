//go:build cgo && linux

package ccoord

// #include <coord.h>
import "C"

// Owner is a session.
type Owner struct {
	Session, Name, Host            string
	PID                            uint32
	Labels                         map[string]string
	SinceMillis, LastRenewalMillis int64
	State                          int32
	Holds, Services                []string
}

// OwnerWatch is sessions as they come and go.
type OwnerWatch struct{ h *C.coord_owner_watch_t }

// OwnerEvent is what a watch of owners tells.
type OwnerEvent struct {
	Type  int32
	Owner *Owner
}

// What a watch of owners tells.
const (
	OwnerSnapshotStart = C.COORD_OWNER_SNAPSHOT_START
	OwnerSnapshotEnd   = C.COORD_OWNER_SNAPSHOT_END
	OwnerJoined        = C.COORD_OWNER_JOINED
	OwnerLeft          = C.COORD_OWNER_LEFT
	OwnerExpired       = C.COORD_OWNER_EXPIRED
)

// Provider is a service that a client provides.
type Provider struct{ h *C.coord_provider_t }

// ProviderEvent is what happens to a provider.
type ProviderEvent struct{ Type, Loss int32 }

// What happens to a provider.
const (
	ProviderRegistered   = C.COORD_PROVIDER_REGISTERED
	ProviderLost         = C.COORD_PROVIDER_LOST
	ProviderReregistered = C.COORD_PROVIDER_REREGISTERED
	ProviderClosed       = C.COORD_PROVIDER_CLOSED
)

// Observer is the providers of some services.
type Observer struct{ h *C.coord_observer_t }

// ProviderInfo is a provider as an observer sees it.
type ProviderInfo struct {
	Service, InstanceID, Session, Name, Host, Metadata string
	PID                                                uint32
	Labels                                             map[string]string
}

// ObserverEvent is what an observer is told.
type ObserverEvent struct {
	Type     int32
	Service  string
	Provider *ProviderInfo
}

// What an observer is told.
const (
	ObservedSnapshotStart = C.COORD_OBSERVED_SNAPSHOT_START
	ObservedSnapshotEnd   = C.COORD_OBSERVED_SNAPSHOT_END
	ObservedFirstUp       = C.COORD_OBSERVED_FIRST_UP
	ObservedLastDown      = C.COORD_OBSERVED_LAST_DOWN
	ObservedJoined        = C.COORD_OBSERVED_JOINED
	ObservedLeft          = C.COORD_OBSERVED_LEFT
	ObservedChanged       = C.COORD_OBSERVED_CHANGED
)

// Owners starts listing the sessions that are alive.
func (c Client) Owners(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_client_owners_start(c.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeOwners copies the list of owners out of the event.
func (e Event) TakeOwners() ([]Owner, *Error) {
	var list *C.coord_owner_list_t
	var err *C.coord_error_t
	if failed := failure(C.coord_event_take_owners(e.h, &list, &err), err); failed != nil {
		return nil, failed
	}
	defer C.coord_owner_list_destroy(list)
	owners := make([]Owner, C.coord_owner_list_count(list))
	for i := range owners {
		owners[i] = *copyOwner(C.coord_owner_list_at(list, C.size_t(i)))
	}
	return owners, nil
}

// WatchOwners starts beginning a watch.
func (c Client) WatchOwners(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_client_watch_owners_start(c.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeOwnerWatch takes the watch out of the event.
func (e Event) TakeOwnerWatch() (OwnerWatch, *Error) {
	var watch OwnerWatch
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_owner_watch(e.h, &watch.h, &err), err)
	return watch, failed
}

// Next starts waiting for the next event of the watch.
func (w OwnerWatch) Next(to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_owner_watch_next_start(w.h, q, tag, op, e)
	})
}

// TakeOwnerEvent copies what the watch tells out of the event.
func (e Event) TakeOwnerEvent() (OwnerEvent, *Error) {
	var told *C.coord_owner_event_t
	var err *C.coord_error_t
	if failed := failure(C.coord_event_take_owner_event(e.h, &told, &err), err); failed != nil {
		return OwnerEvent{}, failed
	}
	defer C.coord_owner_event_destroy(told)
	return OwnerEvent{int32(C.coord_owner_event_type(told)), copyOwner(C.coord_owner_event_owner(told))}, nil
}

// Destroy ends the watch.
func (w OwnerWatch) Destroy() { C.coord_owner_watch_destroy(w.h) }

func copyOwner(o *C.coord_owner_t) *Owner {
	if o == nil {
		return nil
	}
	owner := &Owner{
		Session: C.GoString(C.coord_owner_session(o)),
		Name:    C.GoString(C.coord_owner_name(o)),
		Host:    C.GoString(C.coord_owner_host(o)),
		PID:     uint32(C.coord_owner_pid(o)),
		Labels: labels(C.coord_owner_label_count(o),
			func(i C.size_t) *C.char { return C.coord_owner_label_key(o, i) },
			func(i C.size_t) *C.char { return C.coord_owner_label_value(o, i) }),
		SinceMillis:       int64(C.coord_owner_since_ms(o)),
		LastRenewalMillis: int64(C.coord_owner_last_renewal_ms(o)),
		State:             int32(C.coord_owner_state(o)),
	}
	for i := range C.coord_owner_hold_count(o) {
		owner.Holds = append(owner.Holds, C.GoString(C.coord_owner_hold(o, i)))
	}
	for i := range C.coord_owner_service_count(o) {
		owner.Services = append(owner.Services, C.GoString(C.coord_owner_service(o, i)))
	}
	return owner
}

// Provide starts registering a provider.
func (c Client) Provide(service, metadata string, settings []Setting, timeoutMillis int64, to Report) (Op, *Error) {
	set, err := options(settings)
	if err != nil {
		return Op{}, err
	}
	defer C.coord_options_destroy(set)
	s, serviceLength := lend(service)
	m, metadataLength := lend(metadata)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_client_provide_start(
			c.h, s, serviceLength, m, metadataLength, set, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeProvider takes the provider out of the event.
func (e Event) TakeProvider() (Provider, *Error) {
	var provider Provider
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_provider(e.h, &provider.h, &err), err)
	return provider, failed
}

// Service is the full name.
func (p Provider) Service() string { return C.GoString(C.coord_provider_service(p.h)) }

// InstanceID tells it apart from others of the service in its session.
func (p Provider) InstanceID() string { return C.GoString(C.coord_provider_instance_id(p.h)) }

// IsRegistered is whether it is registered now.
func (p Provider) IsRegistered() bool {
	stress()
	return C.coord_provider_is_registered(p.h) != 0
}

// Metadata is what was given last.
func (p Provider) Metadata() (string, *Error) {
	stress()
	var text *C.coord_text_t
	var e *C.coord_error_t
	if err := failure(C.coord_provider_metadata(p.h, &text, &e), e); err != nil {
		return "", err
	}
	return takeText(text), nil
}

// Update starts replacing the metadata.
func (p Provider) Update(metadata string, timeoutMillis int64, to Report) (Op, *Error) {
	m, length := lend(metadata)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_provider_update_start(p.h, m, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Next starts waiting for the next event of the provider.
func (p Provider) Next(to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_provider_next_start(p.h, q, tag, op, e)
	})
}

// TakeProviderEvent takes what has happened to the provider out of the event.
func (e Event) TakeProviderEvent() (ProviderEvent, *Error) {
	var kind, loss C.int32_t
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_provider_event(e.h, &kind, &loss, &err), err)
	return ProviderEvent{int32(kind), int32(loss)}, failed
}

// Close starts withdrawing the provider.
func (p Provider) Close(timeoutMillis int64, to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_provider_close_start(p.h, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Destroy destroys the handle, and withdraws the provider in the background if it was not closed.
func (p Provider) Destroy() { C.coord_provider_destroy(p.h) }

// Observe starts observing.
func (c Client) Observe(pattern string, settings []Setting, timeoutMillis int64, to Report) (Op, *Error) {
	set, err := options(settings)
	if err != nil {
		return Op{}, err
	}
	defer C.coord_options_destroy(set)
	at, length := lend(pattern)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_client_observe_start(c.h, at, length, set, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// TakeObserver takes the observer out of the event.
func (e Event) TakeObserver() (Observer, *Error) {
	var observer Observer
	var err *C.coord_error_t
	failed := failure(C.coord_event_take_observer(e.h, &observer.h, &err), err)
	return observer, failed
}

// Pattern is what is observed, in full.
func (o Observer) Pattern() string { return C.GoString(C.coord_observer_pattern(o.h)) }

// IsSynced is whether the view follows the store now.
func (o Observer) IsSynced() bool {
	stress()
	return C.coord_observer_is_synced(o.h) != 0
}

// IsAvailable is whether the service has a provider now.
func (o Observer) IsAvailable(service string) (bool, *Error) {
	stress()
	var available C.int32_t
	var e *C.coord_error_t
	at, length := lend(service)
	err := failure(C.coord_observer_is_available(o.h, at, length, &available, &e), e)
	return available != 0, err
}

// Services are the names of the services that have a provider now.
func (o Observer) Services() ([]string, *Error) {
	stress()
	var list *C.coord_name_list_t
	var e *C.coord_error_t
	if err := failure(C.coord_observer_services(o.h, &list, &e), e); err != nil {
		return nil, err
	}
	return takeNames(list), nil
}

// Providers are the providers of a service now.
func (o Observer) Providers(service string) ([]ProviderInfo, *Error) {
	stress()
	var list *C.coord_provider_list_t
	var e *C.coord_error_t
	at, length := lend(service)
	if err := failure(C.coord_observer_providers(o.h, at, length, &list, &e), e); err != nil {
		return nil, err
	}
	defer C.coord_provider_list_destroy(list)
	providers := make([]ProviderInfo, C.coord_provider_list_count(list))
	for i := range providers {
		providers[i] = *copyProvider(C.coord_provider_list_at(list, C.size_t(i)))
	}
	return providers, nil
}

// WaitAvailable starts waiting until the service has a provider.
func (o Observer) WaitAvailable(service string, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(service)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_observer_wait_available_start(o.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// WaitUnavailable starts waiting until the service has none.
func (o Observer) WaitUnavailable(service string, timeoutMillis int64, to Report) (Op, *Error) {
	at, length := lend(service)
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_observer_wait_unavailable_start(o.h, at, length, C.int64_t(timeoutMillis), q, tag, op, e)
	})
}

// Next starts waiting for the next event of the observer.
func (o Observer) Next(to Report) (Op, *Error) {
	return to.started(func(q *C.coord_queue_t, tag C.uint64_t, op **C.coord_op_t, e **C.coord_error_t) C.coord_status_t {
		return C.coord_observer_next_start(o.h, q, tag, op, e)
	})
}

// TakeObserverEvent copies what the observer is told out of the event.
func (e Event) TakeObserverEvent() (ObserverEvent, *Error) {
	var told *C.coord_observer_event_t
	var err *C.coord_error_t
	if failed := failure(C.coord_event_take_observer_event(e.h, &told, &err), err); failed != nil {
		return ObserverEvent{}, failed
	}
	defer C.coord_observer_event_destroy(told)
	return ObserverEvent{
		Type:     int32(C.coord_observer_event_type(told)),
		Service:  C.GoString(C.coord_observer_event_service(told)),
		Provider: copyProvider(C.coord_observer_event_provider(told)),
	}, nil
}

// Destroy ends the observer.
func (o Observer) Destroy() { C.coord_observer_destroy(o.h) }

func copyProvider(p *C.coord_provider_info_t) *ProviderInfo {
	if p == nil {
		return nil
	}
	return &ProviderInfo{
		Service:    C.GoString(C.coord_provider_info_service(p)),
		InstanceID: C.GoString(C.coord_provider_info_instance_id(p)),
		Session:    C.GoString(C.coord_provider_info_session(p)),
		Name:       C.GoString(C.coord_provider_info_name(p)),
		Host:       C.GoString(C.coord_provider_info_host(p)),
		Metadata:   C.GoString(C.coord_provider_info_metadata(p)),
		PID:        uint32(C.coord_provider_info_pid(p)),
		Labels: labels(C.coord_provider_info_label_count(p),
			func(i C.size_t) *C.char { return C.coord_provider_info_label_key(p, i) },
			func(i C.size_t) *C.char { return C.coord_provider_info_label_value(p, i) }),
	}
}
