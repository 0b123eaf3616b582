/* Bad input through every entry point of tables: as abuse.c. */
#include "abuse.h"

static coord_client_t *client;
static coord_table_t *table;
static coord_held_t *held;

static coord_table_t *new_table = UNTOUCHED;
static coord_fence_t *new_fence = UNTOUCHED;

static void abuse_everything_with(const void *bad) {
    if (bad != client) {
        FAILS(COORD_E_HANDLE, coord_table_new((coord_client_t *)bad, "t", 1, COORD_FORMAT_JSON, &new_table, &err));
    }
    if (bad != held) { FAILS(COORD_E_HANDLE, coord_held_fence((coord_held_t *)bad, 0, &new_fence, &err)); }
    FAILS(COORD_E_HANDLE, coord_term_fence((coord_term_t *)bad, 0, &new_fence, &err));
    if (bad != table) {
        SAME_TEXT(coord_table_name((const coord_table_t *)bad), "");
        coord_table_destroy((coord_table_t *)bad);
    }
    coord_fence_destroy((coord_fence_t *)bad);
}

static void abuse_name(const char *bad, size_t length) {
    FAILS(COORD_E_INVALID_ARGUMENT, coord_table_new(client, bad, length, COORD_FORMAT_JSON, &new_table, &err));
}

int main(void) {
    client = connect_as("client");
    coord_lock_t *lock = lock_of(client, "a");
    held = acquire(lock);
    OK(coord_table_new(client, "t", 1, COORD_FORMAT_JSON, &table, &err));
    with_made_up_handles(abuse_everything_with, table);
    const void *handles[] = {client, lock, held, table};
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) abuse_everything_with(handles[i]);
    with_bad_names(abuse_name);
    with_unreadable_texts(abuse_name);
    abuse_name(NULL, 0);
    abuse_name("a.system.b", COORD_NUL);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_table_new(client, "t", 1, 2, &new_table, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_table_new(client, "t", 1, -1, &new_table, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_table_new(client, "t", 1, COORD_FORMAT_JSON, NULL, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_held_fence(held, 2, &new_fence, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_held_fence(held, 0, NULL, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_term_fence(NULL, 0, NULL, &err));
    CHECK(new_table == UNTOUCHED && new_fence == UNTOUCHED);
    SAME_TEXT(coord_table_name(table), "t");

    coord_table_destroy(table);
    release(held);
    coord_lock_destroy(lock);
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    return 0;
}
