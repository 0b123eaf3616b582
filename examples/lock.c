#include <coord.h>
#include <stdio.h>

int main(void) {
    coord_error_t *err = NULL;
    coord_config_t *config = NULL;
    coord_client_t *client = NULL;
    coord_lock_t *lock = NULL;
    coord_held_t *held = NULL;
    int ok = coord_config_new(COORD_ABI_VERSION, "sqlite:///t.db", COORD_NUL, &config, &err) == COORD_OK
        && coord_client_connect(config, 5000, NULL, &client, &err) == COORD_OK
        && coord_lock_new(client, "a", COORD_NUL, &lock, &err) == COORD_OK
        && coord_lock_acquire(lock, 5000, NULL, &held, &err) == COORD_OK
        && printf("token %lld\n", (long long)coord_held_token(held)) > 0
        && coord_held_release(held, 5000, NULL, &err) == COORD_OK
        && coord_client_close(client, 5000, &err) == COORD_OK;
    if (!ok) fprintf(stderr, "%s: %s\n", coord_error_name(err), coord_error_message(err));
    return !ok; /* a program that goes on also calls coord_..._destroy for each handle */
}
