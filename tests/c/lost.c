/* Who asks to be told of a loss gets one event: lost and why, or that there is nothing to lose any more. */
#include "test.h"

int main(void) {
    coord_client_t *a = connect_as("a"), *b = NULL;
    OK(coord_client_open_session(a, WAIT_MS, NULL, &b, &err));
    coord_queue_t *queue = new_queue();
    coord_lock_t *lock = lock_of(a, "a"), *others = lock_of(b, "a");

    coord_held_t *held = acquire(lock);
    OK(coord_held_wait_lost_start(held, queue, 1, NULL, &err));
    expect_no_event(queue);
    OK(coord_client_break_lock(b, "a", COORD_NUL, coord_held_token(held), 1, WAIT_MS, NULL, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_LOST, 1, COORD_OK);
    EQUAL(coord_event_loss(event), COORD_LOSS_BROKEN);
    coord_event_destroy(event);
    EQUAL(coord_held_loss(held), COORD_LOSS_BROKEN);
    coord_error_t *err = NULL;
    EQUAL(coord_held_check(held, &err), COORD_E_LOST);
    EQUAL(coord_error_loss(err), COORD_LOSS_BROKEN);
    coord_error_destroy(err);
    coord_held_destroy(held);

    held = acquire(lock);
    OK(coord_held_wait_lost_start(held, queue, 2, NULL, &err));
    OK(coord_held_release(held, WAIT_MS, NULL, &err));
    expect(queue, COORD_EVENT_LOST, 2, COORD_E_NOT_HELD);
    OK(coord_held_wait_lost_start(held, queue, 3, NULL, &err));
    expect(queue, COORD_EVENT_LOST, 3, COORD_E_NOT_HELD);
    coord_held_destroy(held);

    /* The wait does not keep the lock: it is free although nobody has taken the event. */
    held = acquire(lock);
    OK(coord_held_wait_lost_start(held, queue, 4, NULL, &err));
    coord_held_destroy(held);
    release(acquire(others));
    expect(queue, COORD_EVENT_LOST, 4, COORD_E_NOT_HELD);

    /* Cancelled, the hold stays. */
    coord_op_t *op = NULL;
    held = acquire(lock);
    OK(coord_held_wait_lost_start(held, queue, 5, &op, &err));
    coord_op_cancel(op);
    coord_op_destroy(op);
    expect(queue, COORD_EVENT_LOST, 5, COORD_E_CANCELLED);
    OK(coord_held_check(held, &err));
    int32_t loss = -1;
    FAILS(COORD_E_TIMEOUT, coord_held_wait_lost(held, 10, NULL, &loss, &err));
    EQUAL(loss, -1);

    /* Closing the client loses what is still held. */
    OK(coord_held_wait_lost_start(held, queue, 6, NULL, &err));
    OK(coord_client_close(a, WAIT_MS, &err));
    event = expect_event(queue, COORD_EVENT_LOST, 6, COORD_OK);
    EQUAL(coord_event_loss(event), COORD_LOSS_CLOSED);
    coord_event_destroy(event);
    OK(coord_held_wait_lost(held, WAIT_MS, NULL, &loss, &err));
    EQUAL(loss, COORD_LOSS_CLOSED);
    FAILS(COORD_E_LOST, coord_held_check(held, &err));
    coord_held_destroy(held);
    release(acquire(others));

    coord_queue_destroy(queue);
    coord_lock_destroy(lock);
    coord_lock_destroy(others);
    OK(coord_client_close(b, WAIT_MS, &err));
    coord_client_destroy(a);
    coord_client_destroy(b);
    return 0;
}
