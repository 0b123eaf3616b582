/* A candidacy gives one call in each term; the next comes only when it is completed. An error gives the term back. */
#include "test.h"

static coord_election_t *election_of(coord_client_t *client) {
    coord_election_t *election = NULL;
    OK(coord_election_new(client, "e", COORD_NUL, &election, &err));
    return election;
}

static coord_candidacy_t *candidacy_of(coord_election_t *election, const char *value, int keep) {
    coord_candidacy_t *candidacy = NULL;
    coord_options_t *options = NULL;
    OK(coord_options_new(&options, &err));
    OK(coord_options_set_number(options, "keep_on_error", COORD_NUL, keep, &err));
    OK(coord_options_set_number(options, "min_backoff_ms", COORD_NUL, 1, &err));
    OK(coord_options_set_number(options, "max_backoff_ms", COORD_NUL, 10, &err));
    OK(coord_options_set_number(options, "priority", COORD_NUL, 3, &err));
    OK(coord_election_when_elected(election, value, COORD_NUL, options, &candidacy, &err));
    coord_options_destroy(options);
    return candidacy;
}

static coord_elected_t *next_of(coord_candidacy_t *candidacy) {
    coord_elected_t *elected = NULL;
    OK(coord_candidacy_next(candidacy, WAIT_MS, NULL, &elected, &err));
    return elected;
}

static coord_term_t *term_of(coord_elected_t *elected) {
    coord_term_t *term = NULL;
    OK(coord_elected_term(elected, &term, &err));
    return term;
}

int main(void) {
    coord_client_t *a = connect_as("a"), *b = NULL;
    OK(coord_client_open_session(a, WAIT_MS, NULL, &b, &err));
    coord_election_t *at_a = election_of(a), *at_b = election_of(b);
    coord_queue_t *queue = new_queue();

    coord_candidacy_t *candidacy = candidacy_of(at_a, "one", 0);
    coord_elected_t *call = next_of(candidacy), *none = NULL;
    coord_term_t *term = term_of(call);
    int64_t token = coord_term_token(term);
    OK(coord_term_check(term, &err));
    EQUAL(coord_election_is_leader(at_a), 1);

    /* Another function of the same client has the same term, and its own call at once. */
    coord_candidacy_t *second = candidacy_of(at_a, "two", 0);
    coord_elected_t *second_call = next_of(second);
    coord_term_t *second_term = term_of(second_call);
    EQUAL(coord_term_token(second_term), token);
    OK(coord_elected_complete(second_call, NULL, 0, &err));
    coord_elected_destroy(second_call);
    OK(coord_term_check(second_term, &err));
    coord_term_destroy(second_term);
    OK(coord_term_check(term, &err));
    OK(coord_candidacy_close(second, WAIT_MS, NULL, &err));
    OK(coord_candidacy_close(second, WAIT_MS, NULL, &err));
    FAILS(COORD_E_CLOSED, coord_candidacy_next(second, WAIT_MS, NULL, &none, &err));
    coord_candidacy_destroy(second);
    OK(coord_term_check(term, &err));

    /* It resigns, but its function still runs: nobody else leads, and it is not called again. */
    OK(coord_term_resign(term, WAIT_MS, NULL, &err));
    FAILS(COORD_E_NOT_HELD, coord_term_check(term, &err));
    coord_term_t *others = NULL;
    FAILS(COORD_E_CONTENDED, coord_election_try_campaign(at_b, "b", 1, NULL, &others, &err));
    FAILS(COORD_E_TIMEOUT, coord_candidacy_next(candidacy, 20, NULL, &none, &err));
    coord_term_destroy(term);
    OK(coord_elected_complete(call, NULL, 0, &err));
    coord_elected_destroy(call);

    /* The next term. An error of the function ends it, and a call that is dropped is an error. */
    call = next_of(candidacy);
    term = term_of(call);
    CHECK(coord_term_token(term) > token);
    token = coord_term_token(term);
    OK(coord_term_wait_lost_start(term, queue, 1, NULL, &err));
    OK(coord_elected_complete(call, "boom", COORD_NUL, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_LOST, 1, COORD_OK);
    EQUAL(coord_event_loss(event), COORD_LOSS_RESIGNED);
    coord_event_destroy(event);
    coord_elected_destroy(call);
    coord_term_destroy(term);
    OK(coord_candidacy_next_start(candidacy, queue, 2, NULL, &err));
    event = expect_event(queue, COORD_EVENT_ELECTED, 2, COORD_OK);
    OK(coord_event_take_elected(event, &call, &err));
    coord_event_destroy(event);
    term = term_of(call);
    CHECK(coord_term_token(term) > token);
    coord_elected_destroy(call);
    int32_t loss = 0;
    OK(coord_term_wait_lost(term, WAIT_MS, NULL, &loss, &err));
    EQUAL(loss, COORD_LOSS_RESIGNED);
    coord_term_destroy(term);

    /* One that nobody takes out of its event is dropped, too; the campaign goes on. */
    OK(coord_candidacy_next_start(candidacy, queue, 3, NULL, &err));
    expect(queue, COORD_EVENT_ELECTED, 3, COORD_OK);
    call = next_of(candidacy);

    /* Closed while its function runs: the function finds its term over, and the close waits for it. */
    term = term_of(call);
    OK(coord_candidacy_close_start(candidacy, WAIT_MS, queue, 4, NULL, &err));
    OK(coord_term_wait_lost(term, WAIT_MS, NULL, &loss, &err));
    EQUAL(loss, COORD_LOSS_RESIGNED);
    FAILS(COORD_E_CONTENDED, coord_election_try_campaign(at_b, "b", 1, NULL, &others, &err));
    expect_no_event(queue);
    OK(coord_elected_complete(call, NULL, 0, &err));
    expect(queue, COORD_EVENT_DONE, 4, COORD_OK);
    coord_elected_destroy(call);
    coord_term_destroy(term);
    coord_candidacy_destroy(candidacy);

    /* With "keep_on_error", the term goes on. Destroying the candidacy ends it. */
    candidacy = candidacy_of(at_a, "kept", 1);
    call = next_of(candidacy);
    term = term_of(call);
    OK(coord_elected_complete(call, "boom", COORD_NUL, &err));
    OK(coord_term_check(term, &err));
    coord_elected_destroy(call);
    OK(coord_candidacy_next_start(candidacy, queue, 5, NULL, &err));
    coord_candidacy_destroy(candidacy);
    expect(queue, COORD_EVENT_ELECTED, 5, COORD_E_CLOSED);
    FAILS(COORD_E_NOT_HELD, coord_term_check(term, &err));
    coord_term_destroy(term);
    OK(coord_election_campaign(at_b, "b", 1, NULL, WAIT_MS, NULL, &others, &err));
    coord_term_destroy(others);

    coord_queue_destroy(queue);
    coord_election_destroy(at_a);
    coord_election_destroy(at_b);
    OK(coord_client_close(a, WAIT_MS, &err));
    OK(coord_client_close(b, WAIT_MS, &err));
    coord_client_destroy(a);
    coord_client_destroy(b);
    return 0;
}
