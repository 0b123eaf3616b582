/* A token fired by another thread ends a blocked call, which leaves nothing behind. */
#include "test.h"

static coord_lock_t *waited_for;
static coord_cancel_t *cancel;

static void *wait_for_lock(void *unused) {
    coord_held_t *held = NULL;
    FAILS(COORD_E_CANCELLED, coord_lock_acquire(waited_for, -1, cancel, &held, &err));
    CHECK(held == NULL);
    return unused;
}

int main(void) {
    coord_client_t *a = connect_as("a"), *b = NULL;
    OK(coord_client_open_session(a, WAIT_MS, NULL, &b, &err));
    coord_lock_t *lock = lock_of(a, "a");
    waited_for = lock_of(b, "a");
    coord_held_t *held = acquire(lock);

    OK(coord_cancel_new(&cancel, &err));
    EQUAL(coord_cancel_is_fired(cancel), 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wait_for_lock, NULL) == 0);
    coord_lock_list_t *list = NULL;
    size_t waiters = 0;
    while (waiters == 0) {
        OK(coord_client_lock_info(a, "a", COORD_NUL, WAIT_MS, NULL, &list, &err));
        waiters = coord_lock_list_waiter_count(list, 0);
        coord_lock_list_destroy(list);
    }
    coord_cancel_fire(cancel);
    CHECK(pthread_join(thread, NULL) == 0);
    EQUAL(coord_cancel_is_fired(cancel), 1);

    /* It stays fired: a call with it does not begin. */
    coord_held_t *none = NULL;
    FAILS(COORD_E_CANCELLED, coord_lock_acquire(waited_for, -1, cancel, &none, &err));

    /* But what nobody can do afterwards does: it goes on in the background, unless it has ended at once. */
    coord_status_t released = coord_held_release(held, WAIT_MS, cancel, NULL);
    CHECK(released == COORD_OK || released == COORD_E_CANCELLED);
    coord_held_t *next = NULL;
    OK(coord_lock_acquire(waited_for, WAIT_MS, NULL, &next, &err));
    coord_held_destroy(held);
    coord_cancel_destroy(cancel);
    release(next);
    OK(coord_client_close(b, WAIT_MS, &err));
    OK(coord_client_close(a, WAIT_MS, &err));
    coord_lock_destroy(lock);
    coord_lock_destroy(waited_for);
    coord_client_destroy(a);
    coord_client_destroy(b);
    return 0;
}
