/* Every started operation gives one event with its tag; what an event carries is taken once, or given back. */
#include "test.h"

/* On a queue that says so, what has ended at once is in its operation, and only there. */
static void ended_operations_skip_the_queue(coord_lock_t *lock, coord_lock_t *others) {
    coord_queue_t *queue = new_queue();
    coord_op_t *op = NULL;
    coord_event_t *event = NULL;
    coord_held_t *held = acquire(others);

    /* One that waits is reported as ever. */
    coord_queue_skip_ended(queue);
    OK(coord_lock_acquire_start(lock, -1, queue, 1, &op, &err));
    FAILS(COORD_E_NOT_FOUND, coord_op_take_event(op, &event, &err));
    release(held);
    event = expect_event(queue, COORD_EVENT_HELD, 1, COORD_OK);
    OK(coord_event_take_held(event, &held, &err));
    coord_event_destroy(event);
    FAILS(COORD_E_NOT_FOUND, coord_op_take_event(op, &event, &err));
    coord_op_destroy(op);

    /* Nothing is to be done for these, so they end at once, on every store. */
    OK(coord_held_ensure_start(held, 1, WAIT_MS, queue, 2, &op, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_op_take_event(op, NULL, &err));
    OK(coord_op_take_event(op, &event, &err));
    EQUAL(coord_event_type(event), COORD_EVENT_DONE);
    EQUAL(coord_event_tag(event), 2);
    EQUAL(coord_event_status(event), COORD_OK);
    coord_event_destroy(event);
    FAILS(COORD_E_NOT_FOUND, coord_op_take_event(op, &event, &err));
    coord_op_cancel(op); /* too late, and harmless */
    coord_op_destroy(op);
    expect_no_event(queue);

    /* Without a place for the operation there is only the queue. */
    OK(coord_held_ensure_start(held, 1, WAIT_MS, queue, 3, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 3, COORD_OK);
    release(held);

    /* What nobody takes is given back, wherever it is. */
    OK(coord_lock_acquire_start(lock, -1, queue, 4, &op, &err));
    coord_op_destroy(op);
    coord_queue_destroy(queue);
    release(acquire(others));
}

int main(void) {
    coord_queue_t *queue = new_queue();
    coord_config_t *config = NULL;
    coord_client_t *client = NULL, *second = NULL;
    coord_held_t *held = NULL;
    coord_op_t *op = NULL;

    OK(coord_config_new(COORD_ABI_VERSION, test_url(), COORD_NUL, &config, &err));
    OK(coord_client_connect_start(config, WAIT_MS, queue, 1, &op, &err));
    CHECK(op != NULL);
    coord_config_destroy(config);
    coord_event_t *event = expect_event(queue, COORD_EVENT_CLIENT, 1, COORD_OK);
    coord_op_cancel(op); /* too late, and harmless */
    coord_op_destroy(op);
    FAILS(COORD_E_NOT_FOUND, coord_event_take_held(event, &held, &err));
    OK(coord_event_take_client(event, &client, &err));
    FAILS(COORD_E_NOT_FOUND, coord_event_take_client(event, &second, &err));
    CHECK(second == NULL);
    coord_event_destroy(event);
    EQUAL(coord_client_is_open(client), 1);

    OK(coord_client_open_session_start(client, WAIT_MS, queue, 2, NULL, &err));
    event = expect_event(queue, COORD_EVENT_CLIENT, 2, COORD_OK);
    OK(coord_event_take_client(event, &second, &err));
    coord_event_destroy(event);

    coord_lock_t *lock = lock_of(client, "a"), *others = lock_of(second, "a");
    OK(coord_lock_acquire_start(lock, -1, queue, 3, NULL, &err));
    event = expect_event(queue, COORD_EVENT_HELD, 3, COORD_OK);
    OK(coord_event_take_held(event, &held, &err));
    coord_event_destroy(event);
    OK(coord_held_check(held, &err));
    OK(coord_held_ensure_start(held, 1000, WAIT_MS, queue, 4, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 4, COORD_OK);

    /* Failures say why, with the holder where there is one. */
    OK(coord_lock_acquire_start(others, 0, queue, 5, NULL, &err));
    event = expect_event(queue, COORD_EVENT_HELD, 5, COORD_E_CONTENDED);
    EQUAL(coord_holder_token(coord_error_holder(coord_event_error(event))), coord_held_token(held));
    coord_held_t *none = NULL;
    FAILS(COORD_E_CONTENDED, coord_event_take_held(event, &none, &err));
    coord_event_destroy(event);
    OK(coord_lock_acquire_start(others, 20, queue, 6, NULL, &err));
    expect(queue, COORD_EVENT_HELD, 6, COORD_E_TIMEOUT);
    OK(coord_lock_acquire_start(others, -1, queue, 7, &op, &err));
    coord_op_cancel(op);
    coord_op_cancel(op);
    expect(queue, COORD_EVENT_HELD, 7, COORD_E_CANCELLED);
    coord_op_destroy(op);

    OK(coord_client_locks_start(client, "", 0, WAIT_MS, queue, 8, NULL, &err));
    event = expect_event(queue, COORD_EVENT_LOCKS, 8, COORD_OK);
    coord_lock_list_t *list = NULL;
    OK(coord_event_take_locks(event, &list, &err));
    EQUAL(coord_lock_list_count(list), 1);
    coord_lock_list_destroy(list);
    coord_event_destroy(event);
    OK(coord_client_lock_info_start(client, "a", COORD_NUL, WAIT_MS, queue, 9, NULL, &err));
    expect(queue, COORD_EVENT_LOCKS, 9, COORD_OK);
    OK(coord_client_health_start(client, WAIT_MS, queue, 10, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 10, COORD_OK);
    OK(coord_client_break_lock_start(client, "a", COORD_NUL, 1, 1, WAIT_MS, queue, 11, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 11, COORD_E_CONFLICT);

    OK(coord_held_release_start(held, WAIT_MS, queue, 12, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 12, COORD_OK);
    OK(coord_held_release_start(held, WAIT_MS, queue, 13, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 13, COORD_E_NOT_HELD);
    coord_held_destroy(held);

    /* Nobody takes the lock out of this event: destroying it releases. */
    OK(coord_lock_acquire_start(lock, -1, queue, 14, NULL, &err));
    expect(queue, COORD_EVENT_HELD, 14, COORD_OK);
    release(acquire(others));

    /* Nor out of this one, which goes with its queue. So does a wait without end. */
    coord_queue_t *abandoned = new_queue();
    OK(coord_lock_acquire_start(lock, -1, abandoned, 15, NULL, &err));
    OK(coord_lock_acquire_start(others, -1, abandoned, 16, NULL, &err));
    coord_queue_destroy(abandoned);
    release(acquire(others));
    release(acquire(lock));

    ended_operations_skip_the_queue(lock, others);

    /* Closing ends what waits, and each still has its event. */
    held = acquire(others);
    OK(coord_lock_acquire_start(lock, -1, queue, 17, NULL, &err));
    OK(coord_client_close_start(client, WAIT_MS, queue, 18, NULL, &err));
    int closed = 0, refused = 0;
    while (closed + refused < 2) {
        OK(coord_queue_poll(queue, WAIT_MS, &event, &err));
        if (coord_event_tag(event) == 17) {
            EQUAL(coord_event_status(event), COORD_E_CLOSED);
            refused++;
        } else {
            EQUAL(coord_event_tag(event), 18);
            EQUAL(coord_event_status(event), COORD_OK);
            closed++;
        }
        coord_event_destroy(event);
    }
    EQUAL(closed, 1);
    release(held);
    expect_no_event(queue);
    OK(coord_client_close(second, WAIT_MS, &err));

    coord_lock_destroy(lock);
    coord_lock_destroy(others);
    coord_client_destroy(client);
    coord_client_destroy(second);
    coord_queue_destroy(queue);
    return 0;
}
