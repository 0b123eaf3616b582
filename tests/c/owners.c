/* Owners are listed with what they hold and provide, and their comings and goings are told. */
#include "test.h"

/* The next event is of this type, and about a session of this name ("" for none). */
static void next_is(coord_owner_watch_t *watch, int32_t type, const char *name) {
    coord_owner_event_t *event = NULL;
    OK(coord_owner_watch_next(watch, WAIT_MS, NULL, &event, &err));
    EQUAL(coord_owner_event_type(event), type);
    SAME_TEXT(coord_owner_name(coord_owner_event_owner(event)), name);
    coord_owner_event_destroy(event);
}

int main(void) {
    coord_client_t *a = connect_as("a");
    coord_queue_t *queue = new_queue();
    coord_owner_watch_t *watch = NULL;
    OK(coord_client_watch_owners(a, WAIT_MS, NULL, &watch, &err));
    next_is(watch, COORD_OWNER_SNAPSHOT_START, "");
    next_is(watch, COORD_OWNER_JOINED, "a");
    next_is(watch, COORD_OWNER_SNAPSHOT_END, "");
    coord_owner_event_t *none = NULL;
    FAILS(COORD_E_TIMEOUT, coord_owner_watch_next(watch, 20, NULL, &none, &err));

    coord_client_t *b = connect_as("b");
    next_is(watch, COORD_OWNER_JOINED, "b");
    coord_lock_t *lock = lock_of(b, "x");
    coord_held_t *held = acquire(lock);
    coord_provider_t *provider = NULL;
    OK(coord_client_provide(b, "s", 1, NULL, 0, NULL, WAIT_MS, NULL, &provider, &err));

    coord_owner_list_t *list = NULL;
    coord_session_t *session = NULL;
    OK(coord_client_session(b, &session, &err));
    OK(coord_client_owners_start(a, WAIT_MS, queue, 1, NULL, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_OWNERS, 1, COORD_OK);
    OK(coord_event_take_owners(event, &list, &err));
    FAILS(COORD_E_NOT_FOUND, coord_event_take_owners(event, &list, &err));
    coord_event_destroy(event);
    EQUAL(coord_owner_list_count(list), 2);
    const coord_owner_t *of_b = NULL;
    for (size_t i = 0; i < 2; i++) {
        const coord_owner_t *owner = coord_owner_list_at(list, i);
        if (strcmp(coord_owner_session(owner), coord_session_id(session)) == 0) of_b = owner;
    }
    CHECK(of_b != NULL);
    SAME_TEXT(coord_owner_name(of_b), "b");
    EQUAL(coord_owner_pid(of_b), getpid());
    CHECK(coord_owner_host(of_b)[0] != 0);
    CHECK(coord_owner_since_ms(of_b) > 0);
    CHECK(coord_owner_last_renewal_ms(of_b) >= coord_owner_since_ms(of_b));
    CHECK(coord_owner_state(of_b) != COORD_HOLDER_DEAD);
    EQUAL(coord_owner_label_count(of_b), 0);
    EQUAL(coord_owner_hold_count(of_b), 1);
    SAME_TEXT(coord_owner_hold(of_b, 0), "lock/default/default/x");
    SAME_TEXT(coord_owner_hold(of_b, 1), "");
    EQUAL(coord_owner_service_count(of_b), 1);
    SAME_TEXT(coord_owner_service(of_b, 0), "default/default/s");
    coord_owner_list_destroy(list);
    SAME_TEXT(coord_owner_name(of_b), "");
    coord_session_destroy(session);

    OK(coord_owner_watch_next_start(watch, queue, 2, NULL, &err));
    expect_no_event(queue);
    OK(coord_client_close(b, WAIT_MS, &err));
    event = expect_event(queue, COORD_EVENT_OWNER, 2, COORD_OK);
    coord_owner_event_t *left = NULL;
    OK(coord_event_take_owner_event(event, &left, &err));
    coord_event_destroy(event);
    EQUAL(coord_owner_event_type(left), COORD_OWNER_LEFT);
    SAME_TEXT(coord_owner_name(coord_owner_event_owner(left)), "b");
    coord_owner_event_destroy(left);

    OK(coord_client_watch_owners_start(a, WAIT_MS, queue, 3, NULL, &err));
    event = expect_event(queue, COORD_EVENT_OWNER_WATCH, 3, COORD_OK);
    coord_owner_watch_t *second = NULL;
    OK(coord_event_take_owner_watch(event, &second, &err));
    coord_event_destroy(event);
    next_is(second, COORD_OWNER_SNAPSHOT_START, "");
    OK(coord_owner_watch_next_start(watch, queue, 4, NULL, &err));
    coord_owner_watch_destroy(watch);
    expect(queue, COORD_EVENT_OWNER, 4, COORD_E_CLOSED);
    coord_owner_watch_destroy(second);

    coord_held_destroy(held);
    coord_provider_destroy(provider);
    coord_lock_destroy(lock);
    coord_queue_destroy(queue);
    OK(coord_client_close(a, WAIT_MS, &err));
    coord_client_destroy(a);
    coord_client_destroy(b);
    return 0;
}
