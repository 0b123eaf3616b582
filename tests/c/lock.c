/* A lock has one holder at a time, with a token that grows; everybody else learns who that is. */
#include "test.h"

int main(void) {
    coord_client_t *a = connect_as("client-a"), *b = NULL;
    OK(coord_client_open_session(a, WAIT_MS, NULL, &b, &err));
    coord_lock_t *lock_a = lock_of(a, "pool/a"), *lock_b = lock_of(b, "pool/a");
    SAME_TEXT(coord_lock_name(lock_a), "default/pool/a");

    coord_held_t *held = acquire(lock_a);
    int64_t token = coord_held_token(held);
    CHECK(token > 0);
    SAME_TEXT(coord_held_name(held), "default/pool/a");
    CHECK(coord_held_remaining_ms(held) > 0);
    EQUAL(coord_held_loss(held), COORD_LOSS_NONE);
    OK(coord_held_check(held, &err));
    OK(coord_held_ensure(held, 1000, WAIT_MS, NULL, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_held_ensure(held, 1000000000, WAIT_MS, NULL, &err));

    coord_held_t *none = NULL;
    coord_error_t *err = NULL;
    EQUAL(coord_lock_try_acquire(lock_b, NULL, &none, &err), COORD_E_CONTENDED);
    CHECK(none == NULL);
    EQUAL(coord_error_is_retryable(err), 1);
    const coord_holder_t *holder = coord_error_holder(err);
    CHECK(holder != NULL && holder == coord_error_holder(err));
    SAME_TEXT(coord_holder_name(holder), "client-a");
    EQUAL(coord_holder_pid(holder), getpid());
    EQUAL(coord_holder_token(holder), token);
    EQUAL(strlen(coord_holder_session(holder)), 32);
    CHECK(coord_holder_host(holder)[0] != 0);
    CHECK(coord_holder_since_ms(holder) > 0);
    CHECK(coord_holder_silent_ms(holder) >= 0);
    CHECK(coord_holder_state(holder) != COORD_HOLDER_DEAD);
    EQUAL(coord_holder_is_self(holder), 0);
    coord_error_destroy(err);
    EQUAL(coord_holder_pid(holder), 0);

    err = NULL;
    EQUAL(coord_lock_acquire(lock_a, 0, NULL, &none, &err), COORD_E_CONTENDED);
    EQUAL(coord_holder_is_self(coord_error_holder(err)), 1);
    coord_error_destroy(err);
    FAILS(COORD_E_TIMEOUT, coord_lock_acquire(lock_b, 30, NULL, &none, &err));

    OK(coord_held_release(held, WAIT_MS, NULL, &err));
    FAILS(COORD_E_NOT_HELD, coord_held_release(held, WAIT_MS, NULL, &err));
    FAILS(COORD_E_NOT_HELD, coord_held_check(held, &err));
    EQUAL(coord_held_remaining_ms(held), 0);
    coord_held_destroy(held);

    held = acquire(lock_b);
    CHECK(coord_held_token(held) > token);
    coord_held_destroy(held);
    /* Destroying a hold releases it. */
    release(acquire(lock_a));

    OK(coord_client_health(a, WAIT_MS, NULL, &err));
    OK(coord_client_close(a, WAIT_MS, &err));
    OK(coord_client_close(a, WAIT_MS, &err));
    EQUAL(coord_client_is_open(a), 0);
    EQUAL(coord_client_is_open(b), 1);
    FAILS(COORD_E_CLOSED, coord_lock_acquire(lock_a, WAIT_MS, NULL, &none, &err));
    OK(coord_client_close(b, WAIT_MS, &err));
    coord_lock_destroy(lock_a);
    coord_lock_destroy(lock_b);
    coord_client_destroy(a);
    coord_client_destroy(b);
    return 0;
}
