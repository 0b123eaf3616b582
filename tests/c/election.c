/* An election has one leader at a time, with a token that grows and a value that everybody can read; a term ends by
 * resigning, by a hand-over, or with its client, and somebody who waits leads next. */
#include "test.h"

static coord_election_t *election_of(coord_client_t *client) {
    coord_election_t *election = NULL;
    OK(coord_election_new(client, "pool/e", COORD_NUL, &election, &err));
    return election;
}

static coord_term_t *campaign(coord_election_t *election, const char *value) {
    coord_term_t *term = NULL;
    OK(coord_election_campaign(election, value, COORD_NUL, NULL, WAIT_MS, NULL, &term, &err));
    return term;
}

static void start(coord_election_t *election, int64_t priority, coord_queue_t *queue, uint64_t tag, coord_op_t **op) {
    coord_options_t *options = NULL;
    OK(coord_options_new(&options, &err));
    OK(coord_options_set_number(options, "priority", COORD_NUL, priority, &err));
    OK(coord_election_campaign_start(election, "waiting", COORD_NUL, options, -1, queue, tag, op, &err));
    coord_options_destroy(options);
}

static size_t waiting(coord_election_t *election) {
    coord_candidate_list_t *list = NULL;
    OK(coord_election_candidates(election, WAIT_MS, NULL, &list, &err));
    size_t count = coord_candidate_list_count(list);
    coord_candidate_list_destroy(list);
    return count;
}

static coord_term_t *term_of(coord_event_t *event) {
    coord_term_t *term = NULL;
    OK(coord_event_take_term(event, &term, &err));
    coord_event_destroy(event);
    return term;
}

static void leader_is(coord_election_t *election, const char *value, coord_term_t *term) {
    coord_leader_t *leader = NULL;
    OK(coord_election_leader(election, WAIT_MS, NULL, &leader, &err));
    CHECK(leader != NULL);
    EQUAL(coord_leader_token(leader), coord_term_token(term));
    EQUAL(coord_leader_has_value(leader), 1);
    SAME_TEXT(coord_leader_value(leader), value);
    EQUAL(coord_leader_pid(leader), getpid());
    EQUAL(strlen(coord_leader_session(leader)), 32);
    CHECK(coord_leader_host(leader)[0] != 0);
    CHECK(coord_leader_since_ms(leader) > 0);
    coord_leader_destroy(leader);
    EQUAL(coord_leader_token(leader), 0);
}

int main(void) {
    coord_client_t *a = connect_as("client-a"), *b = NULL, *c = NULL;
    OK(coord_client_open_session(a, WAIT_MS, NULL, &b, &err));
    OK(coord_client_open_session(a, WAIT_MS, NULL, &c, &err));
    coord_election_t *at_a = election_of(a), *at_b = election_of(b), *at_c = election_of(c);
    coord_queue_t *queue = new_queue();
    SAME_TEXT(coord_election_name(at_a), "default/pool/e");

    coord_leader_t *nobody = (coord_leader_t *)(uintptr_t)1;
    OK(coord_election_leader(at_a, WAIT_MS, NULL, &nobody, &err));
    CHECK(nobody == NULL);
    EQUAL(coord_election_is_leader(at_a), 0);

    coord_term_t *term = campaign(at_a, "first");
    int64_t token = coord_term_token(term);
    CHECK(token > 0);
    SAME_TEXT(coord_term_name(term), "default/pool/e");
    CHECK(coord_term_remaining_ms(term) > 0);
    EQUAL(coord_term_loss(term), COORD_LOSS_NONE);
    OK(coord_term_check(term, &err));
    OK(coord_term_ensure(term, 1000, WAIT_MS, NULL, &err));
    EQUAL(coord_election_is_leader(at_a), 1);
    EQUAL(coord_election_is_leader(at_b), 0);
    leader_is(at_b, "first", term);

    coord_term_t *none = NULL;
    coord_error_t *err = NULL;
    EQUAL(coord_election_try_campaign(at_b, "x", 1, NULL, &none, &err), COORD_E_CONTENDED);
    SAME_TEXT(coord_holder_name(coord_error_holder(err)), "client-a");
    EQUAL(coord_holder_token(coord_error_holder(err)), token);
    coord_error_destroy(err);
    FAILS(COORD_E_TIMEOUT, coord_election_campaign(at_b, "x", 1, NULL, 30, NULL, &none, &err));
    EVENTUALLY(waiting(at_a) == 0);

    OK(coord_term_proclaim(term, "second", COORD_NUL, WAIT_MS, NULL, &err));
    leader_is(at_b, "second", term);
    coord_text_t *value = NULL;
    OK(coord_term_value(term, &value, &err));
    SAME_TEXT(coord_text_data(value), "second");
    EQUAL(coord_text_length(value), 6);
    coord_text_destroy(value);

    /* Who waits is listed in the order of winning: the higher priority first, though it came last. */
    start(at_b, -5, queue, 1, NULL);
    EVENTUALLY(waiting(at_a) == 1);
    start(at_c, 5, queue, 2, NULL);
    EVENTUALLY(waiting(at_a) == 2);
    coord_candidate_list_t *list = NULL;
    OK(coord_election_candidates(at_b, WAIT_MS, NULL, &list, &err));
    EQUAL(coord_candidate_list_priority(list, 0), 5);
    EQUAL(coord_candidate_list_priority(list, 1), -5);
    EQUAL(coord_candidate_list_is_self(list, 0), 0);
    EQUAL(coord_candidate_list_is_self(list, 1), 1);
    EQUAL(coord_candidate_list_pid(list, 0), getpid());
    SAME_TEXT(coord_candidate_list_name(list, 0), "client-a");
    CHECK(coord_candidate_list_host(list, 0)[0] != 0);
    coord_candidate_list_destroy(list);
    OK(coord_term_resign(term, WAIT_MS, NULL, &err));
    FAILS(COORD_E_NOT_HELD, coord_term_resign(term, WAIT_MS, NULL, &err));
    FAILS(COORD_E_NOT_HELD, coord_term_check(term, &err));
    EQUAL(coord_term_loss(term), COORD_LOSS_RESIGNED);
    EQUAL(coord_term_remaining_ms(term), 0);
    EQUAL(coord_election_is_leader(at_a), 0);
    coord_term_destroy(term);

    coord_term_t *next = term_of(expect_event(queue, COORD_EVENT_TERM, 2, COORD_OK));
    CHECK(coord_term_token(next) > token);
    leader_is(at_a, "waiting", next);
    /* Destroying a term resigns it. */
    OK(coord_term_wait_lost_start(next, queue, 3, NULL, &err));
    coord_term_destroy(next);
    coord_event_t *first = NULL, *second = NULL;
    OK(coord_queue_poll(queue, WAIT_MS, &first, &err));
    OK(coord_queue_poll(queue, WAIT_MS, &second, &err));
    coord_event_t *won = coord_event_tag(first) == 1 ? first : second, *told = won == first ? second : first;
    EQUAL(coord_event_tag(told), 3);
    EQUAL(coord_event_status(told), COORD_E_CLOSED);
    coord_event_destroy(told);
    EQUAL(coord_event_status(won), COORD_OK);
    term = term_of(won);

    /* A hand-over passes by whoever else waits. */
    start(at_a, 100, queue, 4, NULL);
    EVENTUALLY(waiting(at_b) == 1);
    start(at_c, 0, queue, 5, NULL);
    EVENTUALLY(waiting(at_b) == 2);
    OK(coord_election_candidates(at_b, WAIT_MS, NULL, &list, &err));
    OK(coord_term_wait_lost_start(term, queue, 6, NULL, &err));
    OK(coord_term_transfer(term, coord_candidate_list_session(list, 1), COORD_NUL, WAIT_MS, NULL, &err));
    coord_candidate_list_destroy(list);
    FAILS(COORD_E_NOT_HELD, coord_term_check(term, &err));
    OK(coord_queue_poll(queue, WAIT_MS, &first, &err));
    OK(coord_queue_poll(queue, WAIT_MS, &second, &err));
    won = coord_event_tag(first) == 5 ? first : second, told = won == first ? second : first;
    EQUAL(coord_event_tag(told), 6);
    EQUAL(coord_event_loss(told), COORD_LOSS_RESIGNED);
    coord_event_destroy(told);
    CHECK(coord_event_tag(won) == 5);
    coord_term_destroy(term);
    term = term_of(won);
    leader_is(at_a, "waiting", term);

    /* A term that nobody takes out of its event is resigned; so is one whose client is closed. */
    OK(coord_term_resign_start(term, WAIT_MS, queue, 7, NULL, &err));
    OK(coord_queue_poll(queue, WAIT_MS, &first, &err));
    OK(coord_queue_poll(queue, WAIT_MS, &second, &err));
    EQUAL(coord_event_tag(first) + coord_event_tag(second), 4 + 7);
    EQUAL(coord_event_status(first), COORD_OK);
    EQUAL(coord_event_status(second), COORD_OK);
    coord_event_destroy(first);
    coord_event_destroy(second);
    coord_term_destroy(term);
    term = campaign(at_b, "last");
    int32_t loss = -1;
    FAILS(COORD_E_TIMEOUT, coord_term_wait_lost(term, 10, NULL, &loss, &err));
    EQUAL(loss, -1);
    OK(coord_client_close(b, WAIT_MS, &err));
    OK(coord_term_wait_lost(term, WAIT_MS, NULL, &loss, &err));
    EQUAL(loss, COORD_LOSS_CLOSED);
    FAILS(COORD_E_LOST, coord_term_check(term, &err));
    FAILS(COORD_E_LOST, coord_term_proclaim(term, "late", COORD_NUL, WAIT_MS, NULL, &err));
    coord_term_destroy(term);
    coord_term_destroy(campaign(at_c, "free"));

    /* A campaign that is cancelled has left. */
    coord_op_t *op = NULL;
    term = campaign(at_a, "a");
    start(at_c, 0, queue, 8, &op);
    EVENTUALLY(waiting(at_a) == 1);
    coord_op_cancel(op);
    coord_op_destroy(op);
    expect(queue, COORD_EVENT_TERM, 8, COORD_E_CANCELLED);
    EVENTUALLY(waiting(at_a) == 0);
    OK(coord_election_leader_start(at_c, WAIT_MS, queue, 9, NULL, &err));
    first = expect_event(queue, COORD_EVENT_LEADER, 9, COORD_OK);
    coord_leader_t *leader = NULL;
    OK(coord_event_take_leader(first, &leader, &err));
    FAILS(COORD_E_NOT_FOUND, coord_event_take_leader(first, &leader, &err));
    SAME_TEXT(coord_leader_value(leader), "a");
    coord_leader_destroy(leader);
    coord_event_destroy(first);
    OK(coord_election_candidates_start(at_c, WAIT_MS, queue, 10, NULL, &err));
    expect(queue, COORD_EVENT_CANDIDATES, 10, COORD_OK);
    OK(coord_term_proclaim_start(term, "b", 1, WAIT_MS, queue, 11, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 11, COORD_OK);
    OK(coord_term_ensure_start(term, 1000, WAIT_MS, queue, 12, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 12, COORD_OK);
    OK(coord_term_transfer_start(term, "0123456789abcdef0123456789abcdef", COORD_NUL, WAIT_MS, queue, 13, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 13, COORD_E_NOT_FOUND);
    leader_is(at_c, "b", term);
    coord_term_destroy(term);

    coord_queue_destroy(queue);
    coord_election_destroy(at_a);
    coord_election_destroy(at_b);
    coord_election_destroy(at_c);
    OK(coord_client_close(a, WAIT_MS, &err));
    OK(coord_client_close(c, WAIT_MS, &err));
    coord_client_destroy(a);
    coord_client_destroy(b);
    coord_client_destroy(c);
    return 0;
}
