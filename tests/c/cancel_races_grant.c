/* 10,000 cancels that race with the grant: each operation has one event, and every lock is free afterwards. */
#include "test.h"

#define LOCKS 8
#define BATCH 50

/* When an operation is cancelled: as soon as it is started, while others are granted and given back, or not at all, so
 * that there are grants on the slowest of stores. */
enum { AT_ONCE, LATER, NEVER };

static int fate(int i) {
    int turn = i / LOCKS % 4;
    return turn == 0 ? AT_ONCE : turn == 3 ? NEVER : LATER;
}

static int rounds(void) {
    const char *operations = getenv("COORD_TEST_CANCELS");
    return (operations == NULL ? 10000 : atoi(operations)) / (LOCKS * BATCH) + 1;
}

int main(void) {
    coord_client_t *clients[2] = {connect_as("a"), NULL};
    OK(coord_client_open_session(clients[0], WAIT_MS, NULL, &clients[1], &err));
    coord_queue_t *queue = new_queue();
    coord_lock_t *locks[LOCKS];
    for (int i = 0; i < LOCKS; i++) {
        char name[32];
        snprintf(name, sizeof name, "lock-%d", i);
        locks[i] = lock_of(clients[i % 2], name);
    }
    long granted = 0, cancelled = 0;
    static coord_op_t *ops[LOCKS * BATCH];
    static char seen[LOCKS * BATCH];
    for (int round = 0; round < rounds(); round++) {
        memset(seen, 0, sizeof seen);
        for (int i = 0; i < LOCKS * BATCH; i++) {
            OK(coord_lock_acquire_start(locks[i % LOCKS], -1, queue, (uint64_t)i, &ops[i], &err));
            if (fate(i) == AT_ONCE) coord_op_cancel(ops[i]);
        }
        int left = LOCKS * BATCH;
        for (int next = 0; left > 0;) {
            coord_event_t *events[64];
            size_t count = 0;
            while (next < LOCKS * BATCH && fate(next) != LATER) next++;
            if (next < LOCKS * BATCH) coord_op_cancel(ops[next++]);
            coord_status_t status =
                coord_queue_poll_batch(queue, next < LOCKS * BATCH ? 0 : WAIT_MS, events, 64, &count, NULL);
            CHECK(status == COORD_OK || (status == COORD_E_TIMEOUT && next < LOCKS * BATCH));
            for (size_t i = 0; status == COORD_OK && i < count; i++, left--) {
                CHECK(!seen[coord_event_tag(events[i])]++);
                if (coord_event_status(events[i]) == COORD_OK) {
                    coord_held_t *held = NULL;
                    /* Half are taken, half go with their event. */
                    if (granted++ % 2 == 0) OK(coord_event_take_held(events[i], &held, &err));
                    coord_held_destroy(held);
                } else {
                    EQUAL(coord_event_status(events[i]), COORD_E_CANCELLED);
                    CHECK(fate((int)coord_event_tag(events[i])) != NEVER);
                    cancelled++;
                }
                coord_event_destroy(events[i]);
            }
        }
        for (int i = 0; i < LOCKS * BATCH; i++) coord_op_destroy(ops[i]);
    }
    expect_no_event(queue);
    printf("%ld granted, %ld cancelled\n", granted, cancelled);
    CHECK(granted > 0 && cancelled > 0);
    for (int i = 0; i < LOCKS; i++) {
        release(acquire(locks[i]));
        coord_lock_destroy(locks[i]);
    }
    coord_lock_list_t *list = NULL;
    OK(coord_client_locks(clients[0], NULL, 0, WAIT_MS, NULL, &list, &err));
    for (size_t i = 0; i < coord_lock_list_count(list); i++) {
        CHECK(coord_lock_list_holder(list, i) == NULL);
        EQUAL(coord_lock_list_waiter_count(list, i), 0);
    }
    coord_lock_list_destroy(list);
    coord_queue_destroy(queue);
    OK(coord_client_close(clients[1], WAIT_MS, &err));
    OK(coord_client_close(clients[0], WAIT_MS, &err));
    coord_client_destroy(clients[0]);
    coord_client_destroy(clients[1]);
    return 0;
}
