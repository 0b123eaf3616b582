/* Bad input through every entry point of owners, providers and observers: as abuse.c. */
#include "abuse.h"

static coord_client_t *client;
static coord_queue_t *queue;
static coord_event_t *event;
static coord_provider_t *provider;
static coord_observer_t *observer;
static coord_observer_event_t *observed;
static coord_provider_list_t *providers;
static coord_name_list_t *services;
static coord_owner_list_t *owners;
static coord_owner_watch_t *watch;
static coord_owner_event_t *arrival;

static coord_provider_t *new_provider = UNTOUCHED;
static coord_observer_t *new_observer = UNTOUCHED;
static coord_observer_event_t *new_observed = UNTOUCHED;
static coord_provider_list_t *new_providers = UNTOUCHED;
static coord_name_list_t *new_services = UNTOUCHED;
static coord_owner_list_t *new_owners = UNTOUCHED;
static coord_owner_watch_t *new_watch = UNTOUCHED;
static coord_owner_event_t *new_arrival = UNTOUCHED;
static coord_text_t *new_text = UNTOUCHED;
static coord_op_t *new_op = UNTOUCHED;
static int32_t number = 77;

/* Every function that takes this handle, as its first argument. */
#define ASKING_CLIENT(code, h) \
    FAILS(code, coord_client_owners(h, WAIT_MS, NULL, &new_owners, &err)); \
    FAILS(code, coord_client_watch_owners(h, WAIT_MS, NULL, &new_watch, &err)); \
    FAILS(code, coord_client_provide(h, "s", 1, "m", 1, NULL, WAIT_MS, NULL, &new_provider, &err)); \
    FAILS(code, coord_client_observe(h, "s", 1, NULL, WAIT_MS, NULL, &new_observer, &err))

#define WITH_CLIENT(code, h) \
    ASKING_CLIENT(code, h); \
    FAILS(code, coord_client_owners_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_client_watch_owners_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_client_provide_start(h, "s", 1, "m", 1, NULL, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_client_observe_start(h, "s", 1, NULL, WAIT_MS, queue, 1, &new_op, &err))

#define WITH_OWNER(h) \
    SAME_TEXT(coord_owner_session(h), ""); \
    SAME_TEXT(coord_owner_name(h), ""); \
    SAME_TEXT(coord_owner_host(h), ""); \
    SAME_TEXT(coord_owner_label_key(h, 0), ""); \
    SAME_TEXT(coord_owner_label_value(h, 0), ""); \
    SAME_TEXT(coord_owner_hold(h, 0), ""); \
    SAME_TEXT(coord_owner_service(h, 0), ""); \
    EQUAL(coord_owner_pid(h), 0); \
    EQUAL(coord_owner_label_count(h), 0); \
    EQUAL(coord_owner_since_ms(h), 0); \
    EQUAL(coord_owner_last_renewal_ms(h), 0); \
    EQUAL(coord_owner_state(h), COORD_HOLDER_LIVE); \
    EQUAL(coord_owner_hold_count(h), 0); \
    EQUAL(coord_owner_service_count(h), 0)

#define WITH_WATCH(code, h) \
    FAILS(code, coord_owner_watch_next(h, WAIT_MS, NULL, &new_arrival, &err)); \
    FAILS(code, coord_owner_watch_next_start(h, queue, 1, &new_op, &err))

#define WITH_PROVIDER(code, h) \
    FAILS(code, coord_provider_metadata(h, &new_text, &err)); \
    FAILS(code, coord_provider_update(h, "m", 1, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_provider_update_start(h, "m", 1, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_provider_next(h, WAIT_MS, NULL, &number, &number, &err)); \
    FAILS(code, coord_provider_next_start(h, queue, 1, &new_op, &err)); \
    FAILS(code, coord_provider_close(h, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_provider_close_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    SAME_TEXT(coord_provider_service(h), ""); \
    SAME_TEXT(coord_provider_instance_id(h), ""); \
    EQUAL(coord_provider_is_registered(h), 0)

#define WITH_OBSERVER(code, h) \
    FAILS(code, coord_observer_is_available(h, "s", 1, &number, &err)); \
    FAILS(code, coord_observer_services(h, &new_services, &err)); \
    FAILS(code, coord_observer_providers(h, "s", 1, &new_providers, &err)); \
    FAILS(code, coord_observer_wait_available(h, "s", 1, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_observer_wait_available_start(h, "s", 1, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_observer_wait_unavailable(h, "s", 1, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_observer_wait_unavailable_start(h, "s", 1, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_observer_next(h, WAIT_MS, NULL, &new_observed, &err)); \
    FAILS(code, coord_observer_next_start(h, queue, 1, &new_op, &err)); \
    FAILS(code, coord_observer_close(h, &err)); \
    SAME_TEXT(coord_observer_pattern(h), ""); \
    EQUAL(coord_observer_is_synced(h), 0)

#define WITH_INFO(h) \
    SAME_TEXT(coord_provider_info_service(h), ""); \
    SAME_TEXT(coord_provider_info_instance_id(h), ""); \
    SAME_TEXT(coord_provider_info_session(h), ""); \
    SAME_TEXT(coord_provider_info_name(h), ""); \
    SAME_TEXT(coord_provider_info_host(h), ""); \
    SAME_TEXT(coord_provider_info_metadata(h), ""); \
    SAME_TEXT(coord_provider_info_label_key(h, 0), ""); \
    SAME_TEXT(coord_provider_info_label_value(h, 0), ""); \
    EQUAL(coord_provider_info_pid(h), 0); \
    EQUAL(coord_provider_info_label_count(h), 0)

#define WITH_OBSERVED(h) \
    EQUAL(coord_observer_event_type(h), COORD_OBSERVED_NONE); \
    SAME_TEXT(coord_observer_event_service(h), ""); \
    CHECK(coord_observer_event_provider(h) == NULL)

#define WITH_ARRIVAL(h) \
    EQUAL(coord_owner_event_type(h), COORD_OWNER_NONE); \
    CHECK(coord_owner_event_owner(h) == NULL)

#define AS_OPTIONS(code, h) \
    FAILS(code, coord_client_provide(client, "s", 1, "m", 1, h, WAIT_MS, NULL, &new_provider, &err)); \
    FAILS(code, coord_client_provide_start(client, "s", 1, "m", 1, h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_client_observe(client, "s", 1, h, WAIT_MS, NULL, &new_observer, &err)); \
    FAILS(code, coord_client_observe_start(client, "s", 1, h, WAIT_MS, queue, 1, &new_op, &err))

#define WITH_QUEUE(code, h) \
    FAILS(code, coord_client_owners_start(client, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_client_watch_owners_start(client, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_client_provide_start(client, "s", 1, "m", 1, NULL, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_client_observe_start(client, "s", 1, NULL, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_owner_watch_next_start(watch, h, 1, &new_op, &err)); \
    FAILS(code, coord_provider_update_start(provider, "m", 1, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_provider_next_start(provider, h, 1, &new_op, &err)); \
    FAILS(code, coord_provider_close_start(provider, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_observer_wait_available_start(observer, "s", 1, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_observer_wait_unavailable_start(observer, "s", 1, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_observer_next_start(observer, h, 1, &new_op, &err))

#define WITH_CANCEL(code, h) \
    FAILS(code, coord_client_owners(client, WAIT_MS, h, &new_owners, &err)); \
    FAILS(code, coord_client_watch_owners(client, WAIT_MS, h, &new_watch, &err)); \
    FAILS(code, coord_client_provide(client, "s", 1, "m", 1, NULL, WAIT_MS, h, &new_provider, &err)); \
    FAILS(code, coord_client_observe(client, "s", 1, NULL, WAIT_MS, h, &new_observer, &err)); \
    FAILS(code, coord_owner_watch_next(watch, WAIT_MS, h, &new_arrival, &err)); \
    FAILS(code, coord_provider_update(provider, "m", 1, WAIT_MS, h, &err)); \
    FAILS(code, coord_provider_next(provider, WAIT_MS, h, &number, NULL, &err)); \
    FAILS(code, coord_provider_close(provider, WAIT_MS, h, &err)); \
    FAILS(code, coord_observer_wait_available(observer, "s", 1, WAIT_MS, h, &err)); \
    FAILS(code, coord_observer_wait_unavailable(observer, "s", 1, WAIT_MS, h, &err)); \
    FAILS(code, coord_observer_next(observer, WAIT_MS, h, &new_observed, &err))

#define WITH_EVENT(code, h) \
    FAILS(code, coord_event_take_owners(h, &new_owners, &err)); \
    FAILS(code, coord_event_take_owner_watch(h, &new_watch, &err)); \
    FAILS(code, coord_event_take_owner_event(h, &new_arrival, &err)); \
    FAILS(code, coord_event_take_provider(h, &new_provider, &err)); \
    FAILS(code, coord_event_take_provider_event(h, &number, &number, &err)); \
    FAILS(code, coord_event_take_observer(h, &new_observer, &err)); \
    FAILS(code, coord_event_take_observer_event(h, &new_observed, &err))

static void destroy_everything_as(const void *h) {
    if (h != provider) coord_provider_destroy((coord_provider_t *)h);
    if (h != observer) coord_observer_destroy((coord_observer_t *)h);
    if (h != observed) coord_observer_event_destroy((coord_observer_event_t *)h);
    if (h != providers) coord_provider_list_destroy((coord_provider_list_t *)h);
    if (h != services) coord_name_list_destroy((coord_name_list_t *)h);
    if (h != owners) coord_owner_list_destroy((coord_owner_list_t *)h);
    if (h != watch) coord_owner_watch_destroy((coord_owner_watch_t *)h);
    if (h != arrival) coord_owner_event_destroy((coord_owner_event_t *)h);
}

static void abuse_everything_with(const void *bad) {
    if (bad != client) { WITH_CLIENT(COORD_E_HANDLE, (coord_client_t *)bad); }
    if (bad != watch) { WITH_WATCH(COORD_E_HANDLE, (coord_owner_watch_t *)bad); }
    if (bad != provider) { WITH_PROVIDER(COORD_E_HANDLE, (coord_provider_t *)bad); }
    if (bad != observer) { WITH_OBSERVER(COORD_E_HANDLE, (coord_observer_t *)bad); }
    if (bad != observed) { WITH_OBSERVED((const coord_observer_event_t *)bad); }
    if (bad != arrival) { WITH_ARRIVAL((const coord_owner_event_t *)bad); }
    if (bad != queue) { WITH_QUEUE(COORD_E_HANDLE, (coord_queue_t *)bad); }
    if (bad != event) { WITH_EVENT(COORD_E_HANDLE, (coord_event_t *)bad); }
    if (bad != owners) {
        EQUAL(coord_owner_list_count((const coord_owner_list_t *)bad), 0);
        CHECK(coord_owner_list_at((const coord_owner_list_t *)bad, 0) == NULL);
    }
    if (bad != providers) {
        EQUAL(coord_provider_list_count((const coord_provider_list_t *)bad), 0);
        CHECK(coord_provider_list_at((const coord_provider_list_t *)bad, 0) == NULL);
    }
    if (bad != services) {
        EQUAL(coord_name_list_count((const coord_name_list_t *)bad), 0);
        SAME_TEXT(coord_name_list_at((const coord_name_list_t *)bad, 0), "");
    }
    WITH_OWNER((const coord_owner_t *)bad);
    WITH_INFO((const coord_provider_info_t *)bad);
    if (bad != NULL) {
        AS_OPTIONS(COORD_E_HANDLE, (coord_options_t *)bad);
        WITH_CANCEL(COORD_E_HANDLE, (coord_cancel_t *)bad);
    }
    destroy_everything_as(bad);
}

static void abuse_name(const char *bad, size_t length) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_client_provide(client, bad, length, "m", 1, NULL, WAIT_MS, NULL, &new_provider, &err));
    FAILS(code, coord_client_observe(client, bad, length, NULL, WAIT_MS, NULL, &new_observer, &err));
    if (length != 0 && bad[0] != '\0') { /* an empty name is the service that is observed */
        FAILS(code, coord_observer_is_available(observer, bad, length, &number, &err));
        FAILS(code, coord_observer_providers(observer, bad, length, &new_providers, &err));
        FAILS(code, coord_observer_wait_available(observer, bad, length, WAIT_MS, NULL, &err));
        FAILS(code, coord_observer_wait_unavailable(observer, bad, length, WAIT_MS, NULL, &err));
    }
}

static void abuse_unreadable(const char *bad, size_t length) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    coord_options_t *options = NULL;
    abuse_name(bad, length);
    FAILS(code, coord_client_provide_start(client, bad, length, "m", 1, NULL, WAIT_MS, queue, 1, &new_op, &err));
    FAILS(code, coord_client_provide(client, "s", 1, bad, length, NULL, WAIT_MS, NULL, &new_provider, &err));
    FAILS(code, coord_client_provide_start(client, "s", 1, bad, length, NULL, WAIT_MS, queue, 1, &new_op, &err));
    FAILS(code, coord_client_observe_start(client, bad, length, NULL, WAIT_MS, queue, 1, &new_op, &err));
    FAILS(code, coord_provider_update(provider, bad, length, WAIT_MS, NULL, &err));
    FAILS(code, coord_provider_update_start(provider, bad, length, WAIT_MS, queue, 1, &new_op, &err));
    FAILS(code, coord_observer_wait_available_start(observer, bad, length, WAIT_MS, queue, 1, &new_op, &err));
    FAILS(code, coord_observer_wait_unavailable_start(observer, bad, length, WAIT_MS, queue, 1, &new_op, &err));
    OK(coord_options_new(&options, &err));
    FAILS(code, coord_options_set_text(options, "instance_id", COORD_NUL, bad, length, &err));
    coord_options_destroy(options);
}

static void abuse_timeouts(int64_t bad) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_client_owners(client, bad, NULL, &new_owners, &err));
    FAILS(code, coord_client_owners_start(client, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_client_watch_owners(client, bad, NULL, &new_watch, &err));
    FAILS(code, coord_client_watch_owners_start(client, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_client_provide(client, "s", 1, "m", 1, NULL, bad, NULL, &new_provider, &err));
    FAILS(code, coord_client_provide_start(client, "s", 1, "m", 1, NULL, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_client_observe(client, "s", 1, NULL, bad, NULL, &new_observer, &err));
    FAILS(code, coord_client_observe_start(client, "s", 1, NULL, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_owner_watch_next(watch, bad, NULL, &new_arrival, &err));
    FAILS(code, coord_provider_update(provider, "m", 1, bad, NULL, &err));
    FAILS(code, coord_provider_update_start(provider, "m", 1, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_provider_next(provider, bad, NULL, &number, NULL, &err));
    FAILS(code, coord_provider_close(provider, bad, NULL, &err));
    FAILS(code, coord_provider_close_start(provider, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_observer_wait_available(observer, "s", 1, bad, NULL, &err));
    FAILS(code, coord_observer_wait_available_start(observer, "s", 1, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_observer_wait_unavailable(observer, "s", 1, bad, NULL, &err));
    FAILS(code, coord_observer_wait_unavailable_start(observer, "s", 1, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_observer_next(observer, bad, NULL, &new_observed, &err));
}

static void abuse_out_parameters(void) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_client_owners(client, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_client_watch_owners(client, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_client_provide(client, "s", 1, "m", 1, NULL, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_client_observe(client, "s", 1, NULL, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_owner_watch_next(watch, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_provider_metadata(provider, NULL, &err));
    FAILS(code, coord_provider_next(provider, WAIT_MS, NULL, NULL, NULL, &err));
    FAILS(code, coord_observer_is_available(observer, "s", 1, NULL, &err));
    FAILS(code, coord_observer_services(observer, NULL, &err));
    FAILS(code, coord_observer_providers(observer, "s", 1, NULL, &err));
    FAILS(code, coord_observer_next(observer, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_event_take_owners(event, NULL, &err));
    FAILS(code, coord_event_take_owner_watch(event, NULL, &err));
    FAILS(code, coord_event_take_owner_event(event, NULL, &err));
    FAILS(code, coord_event_take_provider(event, NULL, &err));
    FAILS(code, coord_event_take_provider_event(event, NULL, NULL, &err));
    FAILS(code, coord_event_take_observer(event, NULL, &err));
    FAILS(code, coord_event_take_observer_event(event, NULL, &err));
}

static void abuse_options(void) {
    static char long_id[255];
    memset(long_id, 'i', 254);
    coord_options_t *bad = NULL;
    OK(coord_options_new(&bad, &err));
    OK(coord_options_set_number(bad, "bogus", COORD_NUL, 1, &err));
    AS_OPTIONS(COORD_E_INVALID_ARGUMENT, bad);
    coord_options_destroy(bad);
    OK(coord_options_new(&bad, &err));
    OK(coord_options_set_number(bad, "down_grace_ms", COORD_NUL, -1, &err));
    AS_OPTIONS(COORD_E_INVALID_ARGUMENT, bad);
    coord_options_destroy(bad);
    OK(coord_options_new(&bad, &err));
    OK(coord_options_set_number(bad, "reregister", COORD_NUL, 2, &err));
    AS_OPTIONS(COORD_E_INVALID_ARGUMENT, bad);
    OK(coord_options_set_number(bad, "reregister", COORD_NUL, 0, &err));
    OK(coord_options_set_text(bad, "instance_id", COORD_NUL, long_id, COORD_NUL, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_client_provide(client, "s", 1, "m", 1, bad, WAIT_MS, NULL, &new_provider, &err));
    coord_options_destroy(bad);
}

static void check_untouched(void) {
    CHECK(new_provider == UNTOUCHED && new_observer == UNTOUCHED && new_observed == UNTOUCHED);
    CHECK(new_providers == UNTOUCHED && new_services == UNTOUCHED && new_owners == UNTOUCHED);
    CHECK(new_watch == UNTOUCHED && new_arrival == UNTOUCHED && new_text == UNTOUCHED && new_op == UNTOUCHED);
    EQUAL(number, 77);
    expect_no_event(queue);
}

int main(void) {
    client = connect_as("client");
    coord_client_t *closed = NULL;
    OK(coord_client_open_session(client, WAIT_MS, NULL, &closed, &err));
    OK(coord_client_close(closed, WAIT_MS, &err));
    queue = new_queue();
    OK(coord_client_provide(client, "s", 1, "m", 1, NULL, WAIT_MS, NULL, &provider, &err));
    OK(coord_client_observe(client, "s", 1, NULL, WAIT_MS, NULL, &observer, &err));
    OK(coord_observer_next(observer, WAIT_MS, NULL, &observed, &err));
    OK(coord_observer_providers(observer, NULL, 0, &providers, &err));
    OK(coord_observer_services(observer, &services, &err));
    OK(coord_client_owners(client, WAIT_MS, NULL, &owners, &err));
    OK(coord_client_watch_owners(client, WAIT_MS, NULL, &watch, &err));
    OK(coord_owner_watch_next(watch, WAIT_MS, NULL, &arrival, &err));
    OK(coord_client_health_start(client, WAIT_MS, queue, 5, NULL, &err));
    event = expect_event(queue, COORD_EVENT_DONE, 5, COORD_OK);

    with_made_up_handles(abuse_everything_with, provider);
    coord_name_list_t *old = NULL;
    OK(coord_observer_services(observer, &old, &err));
    coord_name_list_destroy(old);
    for (int twice = 0; twice < 2; twice++) abuse_everything_with(old);
    const void *handles[] = {client, queue, event, provider, observer, observed, providers, services, owners, watch, arrival};
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) abuse_everything_with(handles[i]);
    WITH_EVENT(COORD_E_NOT_FOUND, event);
    ASKING_CLIENT(COORD_E_CLOSED, closed);
    OK(coord_client_provide_start(closed, "s", 1, NULL, 0, NULL, WAIT_MS, queue, 9, NULL, &err));
    expect(queue, COORD_EVENT_PROVIDER, 9, COORD_E_CLOSED);

    with_bad_names(abuse_name);
    with_unreadable_texts(abuse_unreadable);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_client_provide(client, NULL, 0, NULL, 0, NULL, WAIT_MS, NULL, &new_provider, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_client_observe(client, NULL, 0, NULL, WAIT_MS, NULL, &new_observer, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_provider_update(provider, NULL, 0, WAIT_MS, NULL, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_observer_is_available(observer, "other", COORD_NUL, &number, &err));
    static char long_metadata[4098];
    memset(long_metadata, 'm', 4097);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_provider_update(provider, long_metadata, 4097, WAIT_MS, NULL, &err));
    FAILS(COORD_E_INVALID_ARGUMENT,
          coord_client_provide(client, "s", 1, long_metadata, 4097, NULL, WAIT_MS, NULL, &new_provider, &err));
    abuse_timeouts(-2);
    abuse_timeouts(INT64_MIN);
    abuse_out_parameters();
    abuse_options();
    CHECK(coord_owner_list_at(owners, SIZE_MAX) == NULL);
    CHECK(coord_provider_list_at(providers, SIZE_MAX) == NULL);
    SAME_TEXT(coord_name_list_at(services, SIZE_MAX), "");
    check_untouched();

    /* Everything is as it was. */
    int32_t available = 0;
    OK(coord_observer_is_available(observer, NULL, 0, &available, &err));
    EQUAL(available, 1);
    EQUAL(coord_provider_is_registered(provider), 1);
    SAME_TEXT(coord_provider_info_metadata(coord_provider_list_at(providers, 0)), "m");
    SAME_TEXT(coord_owner_name(coord_owner_list_at(owners, 0)), "client");
    EQUAL(coord_owner_event_type(arrival), COORD_OWNER_SNAPSHOT_START);
    EQUAL(coord_observer_event_type(observed), COORD_OBSERVED_SNAPSHOT_START);
    OK(coord_provider_update(provider, long_metadata, 4096, INT64_MAX, NULL, &err));
    OK(coord_provider_close(provider, INT64_MAX, NULL, &err));
    OK(coord_provider_close(provider, WAIT_MS, NULL, &err));

    coord_event_destroy(event);
    coord_owner_event_destroy(arrival);
    coord_owner_watch_destroy(watch);
    coord_owner_list_destroy(owners);
    coord_name_list_destroy(services);
    coord_provider_list_destroy(providers);
    coord_observer_event_destroy(observed);
    coord_observer_destroy(observer);
    coord_provider_destroy(provider);
    coord_queue_destroy(queue);
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    coord_client_destroy(closed);
    return 0;
}
