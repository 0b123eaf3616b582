/* A program's own tests decide on a memory store who leads, whose session dies, and what time it is. */
#include "test.h"

int main(void) {
    coord_client_t *a = connect_to("memory:control?coord.clock=manual", "a"), *b = NULL;
    OK(coord_client_open_session(a, WAIT_MS, NULL, &b, &err));
    coord_control_t *control = NULL;
    OK(coord_control_new(b, &control, &err));
    coord_election_t *at_a = NULL, *at_b = NULL;
    OK(coord_election_new(a, "e", 1, &at_a, &err));
    OK(coord_election_new(b, "e", 1, &at_b, &err));
    coord_session_t *session_a = NULL, *session_b = NULL;
    OK(coord_client_session(a, &session_a, &err));
    OK(coord_client_session(b, &session_b, &err));
    coord_queue_t *queue = new_queue();

    coord_term_t *term = NULL, *next = NULL;
    OK(coord_election_campaign(at_a, "a", 1, NULL, WAIT_MS, NULL, &term, &err));
    OK(coord_election_campaign_start(at_b, "b", 1, NULL, -1, queue, 1, NULL, &err));
    int64_t token = 0;
    OK(coord_control_force_leader(control, "e", 1, coord_session_id(session_b), COORD_NUL, WAIT_MS, NULL, &token, &err));
    EQUAL(coord_term_loss(term), COORD_LOSS_BROKEN);
    FAILS(COORD_E_LOST, coord_term_check(term, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_TERM, 1, COORD_OK);
    OK(coord_event_take_term(event, &next, &err));
    coord_event_destroy(event);
    EQUAL(coord_term_token(next), token);
    coord_term_destroy(term);

    /* The same from a queue: it leads already. */
    OK(coord_control_force_leader_start(control, "e", 1, coord_session_id(session_b), COORD_NUL, -1, queue, 2, NULL, &err));
    event = expect_event(queue, COORD_EVENT_FORCED, 2, COORD_OK);
    int64_t again = 0;
    OK(coord_event_take_token(event, &again, &err));
    FAILS(COORD_E_NOT_FOUND, coord_event_take_token(event, &again, &err));
    EQUAL(again, token);
    coord_event_destroy(event);

    /* A minute passes, and every session is renewed. */
    int64_t before = 0, after = 0;
    OK(coord_control_date_ms(control, &before, &err));
    OK(coord_control_advance(control, 60 * 1000, WAIT_MS, NULL, &err));
    OK(coord_control_date_ms(control, &after, &err));
    EQUAL(after - before, 60 * 1000);
    OK(coord_term_check(next, &err));
    OK(coord_control_advance_start(control, 1, -1, queue, 3, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 3, COORD_OK);

    /* A session dies. */
    OK(coord_election_campaign_start(at_a, "a", 1, NULL, -1, queue, 4, NULL, &err));
    OK(coord_control_expire_session(control, coord_session_id(session_b), COORD_NUL, WAIT_MS, NULL, &err));
    EQUAL(coord_term_loss(next), COORD_LOSS_EXPIRED);
    event = expect_event(queue, COORD_EVENT_TERM, 4, COORD_OK);
    OK(coord_event_take_term(event, &term, &err));
    coord_event_destroy(event);
    CHECK(coord_term_token(term) > token);
    coord_term_destroy(next);
    OK(coord_control_expire_session_start(control, coord_session_id(session_b), COORD_NUL, -1, queue, 5, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 5, COORD_E_NOT_FOUND);

    /* The machine sleeps for longer than the ttl. */
    OK(coord_term_check(term, &err));
    OK(coord_control_jump(control, coord_session_ttl_ms(session_a) + 1, &err));
    FAILS(COORD_E_LOST, coord_term_check(term, &err));
    coord_term_destroy(term);

    coord_queue_destroy(queue);
    coord_session_destroy(session_a);
    coord_session_destroy(session_b);
    coord_control_destroy(control);
    coord_election_destroy(at_a);
    coord_election_destroy(at_b);
    OK(coord_client_close(a, WAIT_MS, &err));
    OK(coord_client_close(b, WAIT_MS, &err));
    coord_client_destroy(a);
    coord_client_destroy(b);
    return 0;
}
