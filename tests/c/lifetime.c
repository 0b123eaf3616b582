/* What was made from a client keeps it open, in whatever order the handles are destroyed. */
#include "test.h"

int main(void) {
    coord_client_t *client = connect_as("owner"), *other = NULL;
    OK(coord_client_open_session(client, WAIT_MS, NULL, &other, &err));
    coord_lock_t *lock = lock_of(client, "a"), *others = lock_of(other, "a");
    coord_client_destroy(client);
    coord_held_t *held = acquire(lock);
    coord_lock_destroy(lock);
    OK(coord_held_check(held, &err));
    CHECK(coord_held_token(held) > 0);
    FAILS(COORD_E_HANDLE, coord_client_health(client, WAIT_MS, NULL, &err));
    /* The last of them is gone: the lock is free, without waiting for a ttl. */
    coord_held_destroy(held);
    release(acquire(others));
    coord_lock_destroy(others);
    OK(coord_client_close(other, WAIT_MS, &err));
    coord_client_destroy(other);
    return 0;
}
