/* Operators see who holds and who waits, in order, and break a hold only by its own token. */
#include "test.h"

int main(void) {
    coord_client_t *a = connect_as("holder"), *b = NULL;
    OK(coord_client_open_session(a, WAIT_MS, NULL, &b, &err));
    coord_queue_t *queue = new_queue();
    coord_lock_t *lock = lock_of(a, "a"), *other = lock_of(a, "b"), *waiting = lock_of(b, "a");
    coord_lock_list_t *list = NULL;

    OK(coord_client_lock_info(a, "never-used", COORD_NUL, WAIT_MS, NULL, &list, &err));
    EQUAL(coord_lock_list_count(list), 0);
    coord_lock_list_destroy(list);

    coord_held_t *held = acquire(lock), *unused = acquire(other);
    OK(coord_lock_acquire_start(waiting, -1, queue, 7, NULL, &err));
    size_t waiters = 0;
    while (waiters == 0) {
        OK(coord_client_lock_info(b, "a", COORD_NUL, WAIT_MS, NULL, &list, &err));
        EQUAL(coord_lock_list_count(list), 1);
        waiters = coord_lock_list_waiter_count(list, 0);
        if (waiters == 0) coord_lock_list_destroy(list);
    }
    SAME_TEXT(coord_lock_list_name(list, 0), "default/default/a");
    EQUAL(coord_lock_list_token(list, 0), coord_held_token(held));
    EQUAL(coord_lock_list_is_breaking(list, 0), 0);
    SAME_TEXT(coord_holder_name(coord_lock_list_holder(list, 0)), "holder");
    EQUAL(coord_holder_pid(coord_lock_list_waiter(list, 0, 0)), getpid());
    CHECK(strcmp(coord_holder_session(coord_lock_list_waiter(list, 0, 0)),
                 coord_holder_session(coord_lock_list_holder(list, 0))) != 0);
    CHECK(coord_lock_list_waiter(list, 0, 1) == NULL);
    CHECK(coord_lock_list_holder(list, 1) == NULL);
    SAME_TEXT(coord_lock_list_name(list, 1), "");
    coord_lock_list_destroy(list);

    OK(coord_client_locks(b, NULL, 0, WAIT_MS, NULL, &list, &err));
    EQUAL(coord_lock_list_count(list), 2);
    coord_lock_list_destroy(list);
    OK(coord_client_locks(b, "default/default/b", COORD_NUL, WAIT_MS, NULL, &list, &err));
    EQUAL(coord_lock_list_count(list), 1);
    coord_lock_list_destroy(list);

    int64_t token = coord_held_token(held);
    FAILS(COORD_E_CONFLICT, coord_client_break_lock(b, "a", COORD_NUL, token - 1, 1, WAIT_MS, NULL, &err));
    OK(coord_held_check(held, &err));
    OK(coord_client_break_lock(b, "a", COORD_NUL, token, 1, WAIT_MS, NULL, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_HELD, 7, COORD_OK);
    coord_held_t *next = NULL;
    OK(coord_event_take_held(event, &next, &err));
    CHECK(coord_held_token(next) > token);
    coord_event_destroy(event);
    FAILS(COORD_E_LOST, coord_held_release(held, WAIT_MS, NULL, &err));
    coord_held_destroy(held);
    release(next);
    release(unused);

    coord_queue_destroy(queue);
    coord_lock_destroy(lock);
    coord_lock_destroy(other);
    coord_lock_destroy(waiting);
    OK(coord_client_close(b, WAIT_MS, &err));
    OK(coord_client_close(a, WAIT_MS, &err));
    coord_client_destroy(a);
    coord_client_destroy(b);
    return 0;
}
