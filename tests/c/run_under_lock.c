/* coord_lock_run holds the lock while its function runs, gives its result back, and tells of a loss. */
#include "test.h"

static coord_client_t *client, *other;
static pthread_t caller;

static int32_t under_lock(coord_held_t *held, void *user_data) {
    coord_lock_t *lock = user_data;
    coord_held_t *none = NULL;
    CHECK(pthread_equal(pthread_self(), caller));
    OK(coord_held_check(held, &err));
    CHECK(coord_held_token(held) > 0);
    FAILS(COORD_E_CONTENDED, coord_lock_try_acquire(lock, NULL, &none, &err));
    /* It would wait for this function. */
    FAILS(COORD_E_REENTRANT, coord_client_close(client, WAIT_MS, &err));
    return 42;
}

static int32_t loses(coord_held_t *held, void *unused) {
    (void)unused;
    int32_t loss = 0;
    OK(coord_client_break_lock_start(other, "a", COORD_NUL, coord_held_token(held), 1, -1, new_queue(), 0, NULL, &err));
    OK(coord_held_wait_lost(held, WAIT_MS, NULL, &loss, &err));
    EQUAL(loss, COORD_LOSS_BROKEN);
    FAILS(COORD_E_LOST, coord_held_check(held, &err));
    return 43;
}

static int32_t releases(coord_held_t *held, void *user_data) {
    OK(coord_held_release(held, WAIT_MS, NULL, &err));
    if (user_data != NULL) coord_held_destroy(held);
    return 44;
}

int main(void) {
    caller = pthread_self();
    client = connect_as("runner");
    OK(coord_client_open_session(client, WAIT_MS, NULL, &other, &err));
    coord_lock_t *lock = lock_of(client, "a"), *others = lock_of(other, "a");
    int32_t result = 0;

    OK(coord_lock_run(lock, WAIT_MS, NULL, under_lock, others, &result, &err));
    EQUAL(result, 42);
    release(acquire(others));

    FAILS(COORD_E_LOST, coord_lock_run(lock, WAIT_MS, NULL, loses, NULL, &result, &err));
    EQUAL(result, 42);

    OK(coord_lock_run(lock, WAIT_MS, NULL, releases, NULL, &result, &err));
    EQUAL(result, 44);
    OK(coord_lock_run(lock, WAIT_MS, NULL, releases, lock, NULL, &err));

    coord_held_t *held = acquire(others);
    FAILS(COORD_E_TIMEOUT, coord_lock_run(lock, 20, NULL, under_lock, others, &result, &err));
    release(held);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_lock_run(lock, 20, NULL, NULL, NULL, &result, &err));

    coord_lock_destroy(lock);
    coord_lock_destroy(others);
    OK(coord_client_close(other, WAIT_MS, &err));
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    coord_client_destroy(other);
    return 0;
}
