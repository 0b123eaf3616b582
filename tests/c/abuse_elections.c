/* Bad input through every entry point of elections and of the control of a store in tests: as abuse.c. */
#include "abuse.h"

static coord_client_t *client;
static coord_queue_t *queue;
static coord_event_t *event;
static coord_election_t *election;
static coord_term_t *term;
static coord_leader_t *leader;
static coord_candidate_list_t *candidates;
static coord_leader_watch_t *watch;
static coord_candidacy_t *candidacy;
static coord_elected_t *elected;
static coord_options_t *options;
static coord_text_t *text;
static coord_control_t *control;

static coord_election_t *new_election = UNTOUCHED;
static coord_term_t *new_term = UNTOUCHED;
static coord_leader_t *new_leader = UNTOUCHED;
static coord_candidate_list_t *new_candidates = UNTOUCHED;
static coord_leader_watch_t *new_watch = UNTOUCHED;
static coord_candidacy_t *new_candidacy = UNTOUCHED;
static coord_elected_t *new_elected = UNTOUCHED;
static coord_options_t *new_options = UNTOUCHED;
static coord_text_t *new_text = UNTOUCHED;
static coord_control_t *new_control = UNTOUCHED;
static coord_op_t *new_op = UNTOUCHED;
static int32_t number = 77;
static int64_t big_number = 77;

#define SESSION "0123456789abcdef0123456789abcdef"

/* Every function that takes this handle, as its first argument. */
#define ASKING_ELECTION(code, h) \
    FAILS(code, coord_election_campaign(h, "v", 1, NULL, WAIT_MS, NULL, &new_term, &err)); \
    FAILS(code, coord_election_try_campaign(h, "v", 1, NULL, &new_term, &err)); \
    FAILS(code, coord_election_leader(h, WAIT_MS, NULL, &new_leader, &err)); \
    FAILS(code, coord_election_candidates(h, WAIT_MS, NULL, &new_candidates, &err)); \
    FAILS(code, coord_election_observe(h, WAIT_MS, NULL, &new_watch, &err)); \
    FAILS(code, coord_election_when_elected(h, "v", 1, NULL, &new_candidacy, &err)); \
    EQUAL(coord_election_is_leader(h), 0)

#define WITH_ELECTION(code, h) \
    ASKING_ELECTION(code, h); \
    FAILS(code, coord_election_campaign_start(h, "v", 1, NULL, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_election_leader_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_election_candidates_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_election_observe_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    SAME_TEXT(coord_election_name(h), "")

#define WITH_TERM(code, h) \
    FAILS(code, coord_term_check(h, &err)); \
    FAILS(code, coord_term_value(h, &new_text, &err)); \
    FAILS(code, coord_term_ensure(h, 1, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_term_ensure_start(h, 1, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_term_wait_lost(h, WAIT_MS, NULL, &number, &err)); \
    FAILS(code, coord_term_wait_lost_start(h, queue, 1, &new_op, &err)); \
    FAILS(code, coord_term_proclaim(h, "v", 1, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_term_proclaim_start(h, "v", 1, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_term_resign(h, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_term_resign_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_term_transfer(h, SESSION, COORD_NUL, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_term_transfer_start(h, SESSION, COORD_NUL, WAIT_MS, queue, 1, &new_op, &err)); \
    SAME_TEXT(coord_term_name(h), ""); \
    EQUAL(coord_term_token(h), 0); \
    EQUAL(coord_term_remaining_ms(h), 0); \
    EQUAL(coord_term_loss(h), COORD_LOSS_NONE)

#define WITH_LEADER(h) \
    SAME_TEXT(coord_leader_session(h), ""); \
    SAME_TEXT(coord_leader_name(h), ""); \
    SAME_TEXT(coord_leader_host(h), ""); \
    SAME_TEXT(coord_leader_value(h), ""); \
    SAME_TEXT(coord_leader_label_key(h, 0), ""); \
    SAME_TEXT(coord_leader_label_value(h, 0), ""); \
    EQUAL(coord_leader_label_count(h), 0); \
    EQUAL(coord_leader_pid(h), 0); \
    EQUAL(coord_leader_has_value(h), 0); \
    EQUAL(coord_leader_token(h), 0); \
    EQUAL(coord_leader_since_ms(h), 0); \
    EQUAL(coord_leader_is_self(h), 0)

#define WITH_CANDIDATES(h, index) \
    SAME_TEXT(coord_candidate_list_session(h, index), ""); \
    SAME_TEXT(coord_candidate_list_name(h, index), ""); \
    SAME_TEXT(coord_candidate_list_host(h, index), ""); \
    EQUAL(coord_candidate_list_pid(h, index), 0); \
    EQUAL(coord_candidate_list_priority(h, index), 0); \
    EQUAL(coord_candidate_list_is_self(h, index), 0)

#define WITH_WATCH(code, h) \
    FAILS(code, coord_leader_watch_next(h, WAIT_MS, NULL, &new_leader, &err)); \
    FAILS(code, coord_leader_watch_next_start(h, queue, 1, &new_op, &err))

#define WITH_CANDIDACY(code, h) \
    FAILS(code, coord_candidacy_next(h, WAIT_MS, NULL, &new_elected, &err)); \
    FAILS(code, coord_candidacy_next_start(h, queue, 1, &new_op, &err)); \
    FAILS(code, coord_candidacy_close(h, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_candidacy_close_start(h, WAIT_MS, queue, 1, &new_op, &err))

#define WITH_ELECTED(code, h) \
    FAILS(code, coord_elected_term(h, &new_term, &err)); \
    FAILS(code, coord_elected_complete(h, NULL, 0, &err))

#define WITH_OPTIONS(code, h) \
    FAILS(code, coord_options_set_text(h, "a", 1, "b", 1, &err)); \
    FAILS(code, coord_options_set_number(h, "a", 1, 1, &err))

#define AS_OPTIONS(code, h) \
    FAILS(code, coord_election_campaign(election, "v", 1, h, WAIT_MS, NULL, &new_term, &err)); \
    FAILS(code, coord_election_campaign_start(election, "v", 1, h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_election_when_elected(election, "v", 1, h, &new_candidacy, &err))

#define WITH_CONTROL(code, h) \
    FAILS(code, coord_control_force_leader(h, "e", 1, SESSION, COORD_NUL, WAIT_MS, NULL, &big_number, &err)); \
    FAILS(code, coord_control_force_leader_start(h, "e", 1, SESSION, COORD_NUL, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_control_expire_session(h, SESSION, COORD_NUL, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_control_expire_session_start(h, SESSION, COORD_NUL, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_control_advance(h, 1, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_control_advance_start(h, 1, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_control_jump(h, 1, &err)); \
    FAILS(code, coord_control_date_ms(h, &big_number, &err))

#define WITH_QUEUE(code, h) \
    FAILS(code, coord_election_campaign_start(election, "v", 1, NULL, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_election_leader_start(election, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_election_candidates_start(election, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_election_observe_start(election, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_leader_watch_next_start(watch, h, 1, &new_op, &err)); \
    FAILS(code, coord_candidacy_next_start(candidacy, h, 1, &new_op, &err)); \
    FAILS(code, coord_candidacy_close_start(candidacy, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_term_ensure_start(term, 1, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_term_wait_lost_start(term, h, 1, &new_op, &err)); \
    FAILS(code, coord_term_proclaim_start(term, "v", 1, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_term_resign_start(term, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_term_transfer_start(term, SESSION, COORD_NUL, WAIT_MS, h, 1, &new_op, &err))

#define WITH_CANCEL(code, h) \
    FAILS(code, coord_election_campaign(election, "v", 1, NULL, WAIT_MS, h, &new_term, &err)); \
    FAILS(code, coord_election_try_campaign(election, "v", 1, h, &new_term, &err)); \
    FAILS(code, coord_election_leader(election, WAIT_MS, h, &new_leader, &err)); \
    FAILS(code, coord_election_candidates(election, WAIT_MS, h, &new_candidates, &err)); \
    FAILS(code, coord_election_observe(election, WAIT_MS, h, &new_watch, &err)); \
    FAILS(code, coord_leader_watch_next(watch, WAIT_MS, h, &new_leader, &err)); \
    FAILS(code, coord_candidacy_next(candidacy, WAIT_MS, h, &new_elected, &err)); \
    FAILS(code, coord_candidacy_close(candidacy, WAIT_MS, h, &err)); \
    FAILS(code, coord_term_ensure(term, 1, WAIT_MS, h, &err)); \
    FAILS(code, coord_term_wait_lost(term, WAIT_MS, h, &number, &err)); \
    FAILS(code, coord_term_proclaim(term, "v", 1, WAIT_MS, h, &err)); \
    FAILS(code, coord_term_resign(term, WAIT_MS, h, &err)); \
    FAILS(code, coord_term_transfer(term, SESSION, COORD_NUL, WAIT_MS, h, &err))

#define WITH_EVENT(code, h) \
    FAILS(code, coord_event_take_term(h, &new_term, &err)); \
    FAILS(code, coord_event_take_leader(h, &new_leader, &err)); \
    FAILS(code, coord_event_take_candidates(h, &new_candidates, &err)); \
    FAILS(code, coord_event_take_leader_watch(h, &new_watch, &err)); \
    FAILS(code, coord_event_take_elected(h, &new_elected, &err)); \
    FAILS(code, coord_event_take_token(h, &big_number, &err))

static void abuse_everything_with(const void *bad) {
    FAILS(COORD_E_HANDLE, coord_election_new((coord_client_t *)bad, "e", 1, &new_election, &err));
    FAILS(COORD_E_HANDLE, coord_control_new((coord_client_t *)bad, &new_control, &err));
    WITH_ELECTION(COORD_E_HANDLE, (coord_election_t *)bad);
    WITH_TERM(COORD_E_HANDLE, (coord_term_t *)bad);
    WITH_LEADER((const coord_leader_t *)bad);
    EQUAL(coord_candidate_list_count((const coord_candidate_list_t *)bad), 0);
    WITH_CANDIDATES((const coord_candidate_list_t *)bad, 0);
    WITH_WATCH(COORD_E_HANDLE, (coord_leader_watch_t *)bad);
    WITH_CANDIDACY(COORD_E_HANDLE, (coord_candidacy_t *)bad);
    WITH_ELECTED(COORD_E_HANDLE, (coord_elected_t *)bad);
    WITH_OPTIONS(COORD_E_HANDLE, (coord_options_t *)bad);
    WITH_CONTROL(COORD_E_HANDLE, (coord_control_t *)bad);
    WITH_QUEUE(COORD_E_HANDLE, (coord_queue_t *)bad);
    WITH_EVENT(COORD_E_HANDLE, (coord_event_t *)bad);
    SAME_TEXT(coord_text_data((const coord_text_t *)bad), "");
    EQUAL(coord_text_length((const coord_text_t *)bad), 0);
    if (bad != NULL) {
        AS_OPTIONS(COORD_E_HANDLE, (coord_options_t *)bad);
        WITH_CANCEL(COORD_E_HANDLE, (coord_cancel_t *)bad);
    }
    coord_election_destroy((coord_election_t *)bad);
    coord_term_destroy((coord_term_t *)bad);
    coord_leader_destroy((coord_leader_t *)bad);
    coord_candidate_list_destroy((coord_candidate_list_t *)bad);
    coord_leader_watch_destroy((coord_leader_watch_t *)bad);
    coord_candidacy_destroy((coord_candidacy_t *)bad);
    coord_elected_destroy((coord_elected_t *)bad);
    coord_options_destroy((coord_options_t *)bad);
    coord_text_destroy((coord_text_t *)bad);
    coord_control_destroy((coord_control_t *)bad);
}

/* Handles of one kind given as another: nothing happens to them. */
static void abuse_foreign_handles(void) {
    const void *handles[] = {client, queue, event, election, term, leader, candidates, watch, candidacy, elected, options,
                             text};
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) {
        const void *h = handles[i];
        if (h != election) {
            WITH_ELECTION(COORD_E_HANDLE, (coord_election_t *)h);
            coord_election_destroy((coord_election_t *)h);
        }
        if (h != term) { WITH_TERM(COORD_E_HANDLE, (coord_term_t *)h); coord_term_destroy((coord_term_t *)h); }
        if (h != leader) { WITH_LEADER((const coord_leader_t *)h); coord_leader_destroy((coord_leader_t *)h); }
        if (h != candidates) {
            WITH_CANDIDATES((const coord_candidate_list_t *)h, 0);
            coord_candidate_list_destroy((coord_candidate_list_t *)h);
        }
        if (h != watch) {
            WITH_WATCH(COORD_E_HANDLE, (coord_leader_watch_t *)h);
            coord_leader_watch_destroy((coord_leader_watch_t *)h);
        }
        if (h != candidacy) {
            WITH_CANDIDACY(COORD_E_HANDLE, (coord_candidacy_t *)h);
            coord_candidacy_destroy((coord_candidacy_t *)h);
        }
        if (h != elected) {
            WITH_ELECTED(COORD_E_HANDLE, (coord_elected_t *)h);
            coord_elected_destroy((coord_elected_t *)h);
        }
        if (h != options) {
            WITH_OPTIONS(COORD_E_HANDLE, (coord_options_t *)h);
            AS_OPTIONS(COORD_E_HANDLE, (coord_options_t *)h);
            coord_options_destroy((coord_options_t *)h);
        }
        if (h != text) { SAME_TEXT(coord_text_data((const coord_text_t *)h), ""); coord_text_destroy((coord_text_t *)h); }
        WITH_CONTROL(COORD_E_HANDLE, (coord_control_t *)h);
        coord_control_destroy((coord_control_t *)h);
    }
}

static void abuse_name(const char *bad, size_t length) {
    FAILS(COORD_E_INVALID_ARGUMENT, coord_election_new(client, bad, length, &new_election, &err));
}

/* Text that cannot be read: an error also where any text would do. */
static void abuse_unreadable(const char *bad, size_t length) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    abuse_name(bad, length);
    FAILS(code, coord_election_campaign(election, bad, length, NULL, WAIT_MS, NULL, &new_term, &err));
    FAILS(code, coord_election_campaign_start(election, bad, length, NULL, WAIT_MS, queue, 1, &new_op, &err));
    FAILS(code, coord_election_try_campaign(election, bad, length, NULL, &new_term, &err));
    FAILS(code, coord_election_when_elected(election, bad, length, NULL, &new_candidacy, &err));
    FAILS(code, coord_term_proclaim(term, bad, length, WAIT_MS, NULL, &err));
    FAILS(code, coord_term_proclaim_start(term, bad, length, WAIT_MS, queue, 1, &new_op, &err));
    FAILS(code, coord_term_transfer(term, bad, length, WAIT_MS, NULL, &err));
    FAILS(code, coord_term_transfer_start(term, bad, length, WAIT_MS, queue, 1, &new_op, &err));
    FAILS(code, coord_elected_complete(elected, bad, length, &err));
    FAILS(code, coord_options_set_text(options, bad, length, "b", 1, &err));
    FAILS(code, coord_options_set_text(options, "a", 1, bad, length, &err));
    FAILS(code, coord_options_set_number(options, bad, length, 1, &err));
    if (control != NULL) {
        FAILS(code, coord_control_force_leader(control, bad, length, SESSION, COORD_NUL, WAIT_MS, NULL, NULL, &err));
        FAILS(code, coord_control_force_leader(control, "e", 1, bad, length, WAIT_MS, NULL, NULL, &err));
        FAILS(code, coord_control_expire_session(control, bad, length, WAIT_MS, NULL, &err));
    }
}

static void abuse_timeouts(int64_t bad) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_election_campaign(election, "v", 1, NULL, bad, NULL, &new_term, &err));
    FAILS(code, coord_election_campaign_start(election, "v", 1, NULL, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_election_leader(election, bad, NULL, &new_leader, &err));
    FAILS(code, coord_election_leader_start(election, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_election_candidates(election, bad, NULL, &new_candidates, &err));
    FAILS(code, coord_election_candidates_start(election, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_election_observe(election, bad, NULL, &new_watch, &err));
    FAILS(code, coord_election_observe_start(election, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_leader_watch_next(watch, bad, NULL, &new_leader, &err));
    FAILS(code, coord_candidacy_next(candidacy, bad, NULL, &new_elected, &err));
    FAILS(code, coord_candidacy_close(candidacy, bad, NULL, &err));
    FAILS(code, coord_candidacy_close_start(candidacy, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_term_ensure(term, 1, bad, NULL, &err));
    FAILS(code, coord_term_ensure_start(term, 1, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_term_ensure(term, bad, WAIT_MS, NULL, &err));
    FAILS(code, coord_term_ensure_start(term, bad, WAIT_MS, queue, 1, &new_op, &err));
    FAILS(code, coord_term_wait_lost(term, bad, NULL, &number, &err));
    FAILS(code, coord_term_proclaim(term, "v", 1, bad, NULL, &err));
    FAILS(code, coord_term_proclaim_start(term, "v", 1, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_term_resign(term, bad, NULL, &err));
    FAILS(code, coord_term_resign_start(term, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_term_transfer(term, SESSION, COORD_NUL, bad, NULL, &err));
    FAILS(code, coord_term_transfer_start(term, SESSION, COORD_NUL, bad, queue, 1, &new_op, &err));
    if (control != NULL) {
        FAILS(code, coord_control_force_leader(control, "e", 1, SESSION, COORD_NUL, bad, NULL, NULL, &err));
        FAILS(code, coord_control_force_leader_start(control, "e", 1, SESSION, COORD_NUL, bad, queue, 1, &new_op, &err));
        FAILS(code, coord_control_expire_session(control, SESSION, COORD_NUL, bad, NULL, &err));
        FAILS(code, coord_control_expire_session_start(control, SESSION, COORD_NUL, bad, queue, 1, &new_op, &err));
        FAILS(code, coord_control_advance(control, bad, WAIT_MS, NULL, &err));
        FAILS(code, coord_control_advance(control, 1, bad, NULL, &err));
        FAILS(code, coord_control_advance_start(control, 1, bad, queue, 1, &new_op, &err));
        FAILS(code, coord_control_jump(control, bad, &err));
    }
}

static void abuse_out_parameters(void) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_election_new(client, "e", 1, NULL, &err));
    FAILS(code, coord_election_campaign(election, "v", 1, NULL, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_election_try_campaign(election, "v", 1, NULL, NULL, &err));
    FAILS(code, coord_election_leader(election, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_election_candidates(election, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_election_observe(election, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_election_when_elected(election, "v", 1, NULL, NULL, &err));
    FAILS(code, coord_leader_watch_next(watch, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_candidacy_next(candidacy, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_elected_term(elected, NULL, &err));
    FAILS(code, coord_term_value(term, NULL, &err));
    FAILS(code, coord_term_wait_lost(term, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_options_new(NULL, &err));
    FAILS(code, coord_control_new(client, NULL, &err));
    FAILS(code, coord_event_take_term(event, NULL, &err));
    FAILS(code, coord_event_take_leader(event, NULL, &err));
    FAILS(code, coord_event_take_candidates(event, NULL, &err));
    FAILS(code, coord_event_take_leader_watch(event, NULL, &err));
    FAILS(code, coord_event_take_elected(event, NULL, &err));
    FAILS(code, coord_event_take_token(event, NULL, &err));
    if (control != NULL) FAILS(code, coord_control_date_ms(control, NULL, &err));
}

static void abuse_options(void) {
    coord_options_t *bad = NULL;
    static const struct { const char *name; int64_t value; } numbers[] = {
        {"priority", 2048}, {"priority", -2049}, {"priority", INT64_MAX}, {"bogus", 1}, {"keep_on_error", 2},
        {"min_backoff_ms", -1}, {"min_backoff_ms", 60001}, {"max_backoff_ms", 999}, {"", 1}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        OK(coord_options_new(&bad, &err));
        OK(coord_options_set_number(bad, numbers[i].name, COORD_NUL, numbers[i].value, &err));
        FAILS(COORD_E_INVALID_ARGUMENT, coord_election_when_elected(election, "v", 1, bad, &new_candidacy, &err));
        FAILS(COORD_E_INVALID_ARGUMENT,
              coord_election_campaign(election, "v", 1, bad, WAIT_MS, NULL, &new_term, &err));
        coord_options_destroy(bad);
    }
    OK(coord_options_new(&bad, &err));
    OK(coord_options_set_text(bad, "priority", COORD_NUL, "7", COORD_NUL, &err));
    AS_OPTIONS(COORD_E_INVALID_ARGUMENT, bad);
    coord_options_destroy(bad);
}

static void check_untouched(void) {
    CHECK(new_election == UNTOUCHED && new_term == UNTOUCHED && new_leader == UNTOUCHED && new_candidates == UNTOUCHED);
    CHECK(new_watch == UNTOUCHED && new_candidacy == UNTOUCHED && new_elected == UNTOUCHED && new_options == UNTOUCHED);
    CHECK(new_text == UNTOUCHED && new_control == UNTOUCHED && new_op == UNTOUCHED);
    EQUAL(number, 77);
    EQUAL(big_number, 77);
    expect_no_event(queue);
}

int main(void) {
    int in_memory = strncmp(test_url(), "memory:", 7) == 0;
    client = connect_as("client");
    coord_client_t *closed = NULL, *other = NULL;
    OK(coord_client_open_session(client, WAIT_MS, NULL, &closed, &err));
    OK(coord_client_open_session(client, WAIT_MS, NULL, &other, &err));
    coord_election_t *closed_election = NULL, *others = NULL, *called = NULL;
    OK(coord_election_new(closed, "e", 1, &closed_election, &err));
    OK(coord_client_close(closed, WAIT_MS, &err));
    queue = new_queue();
    OK(coord_election_new(client, "e", 1, &election, &err));
    OK(coord_election_campaign(election, "v", 1, NULL, WAIT_MS, NULL, &term, &err));
    OK(coord_election_new(other, "e", 1, &others, &err));
    OK(coord_election_leader(others, WAIT_MS, NULL, &leader, &err));
    OK(coord_election_candidates(others, WAIT_MS, NULL, &candidates, &err));
    OK(coord_election_observe(others, WAIT_MS, NULL, &watch, &err));
    OK(coord_election_new(client, "called", COORD_NUL, &called, &err));
    OK(coord_election_when_elected(called, NULL, 0, NULL, &candidacy, &err));
    OK(coord_candidacy_next(candidacy, WAIT_MS, NULL, &elected, &err));
    OK(coord_options_new(&options, &err));
    OK(coord_term_value(term, &text, &err));
    OK(coord_client_health_start(client, WAIT_MS, queue, 5, NULL, &err));
    event = expect_event(queue, COORD_EVENT_DONE, 5, COORD_OK);
    if (in_memory) {
        OK(coord_control_new(client, &control, &err));
        /* The clock of this store is the machine's. */
        FAILS(COORD_E_UNSUPPORTED, coord_control_advance(control, 1, WAIT_MS, NULL, &err));
        FAILS(COORD_E_UNSUPPORTED, coord_control_jump(control, 1, &err));
        FAILS(COORD_E_UNSUPPORTED, coord_control_date_ms(control, &big_number, &err));
        FAILS(COORD_E_NOT_FOUND, coord_control_expire_session(control, SESSION, COORD_NUL, WAIT_MS, NULL, &err));
    } else {
        FAILS(COORD_E_UNSUPPORTED, coord_control_new(client, &new_control, &err));
    }

    with_made_up_handles(abuse_everything_with, term);
    coord_election_t *old_election = NULL;
    OK(coord_election_new(client, "old", COORD_NUL, &old_election, &err));
    coord_election_destroy(old_election);
    for (int twice = 0; twice < 2; twice++) abuse_everything_with(old_election);
    abuse_foreign_handles();
    WITH_EVENT(COORD_E_NOT_FOUND, event);

    ASKING_ELECTION(COORD_E_CLOSED, closed_election);
    OK(coord_election_campaign_start(closed_election, "v", 1, NULL, WAIT_MS, queue, 9, NULL, &err));
    expect(queue, COORD_EVENT_TERM, 9, COORD_E_CLOSED);

    with_bad_names(abuse_name);
    with_unreadable_texts(abuse_unreadable);
    abuse_name(NULL, 0);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_term_proclaim(term, NULL, 0, WAIT_MS, NULL, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_term_transfer(term, NULL, 0, WAIT_MS, NULL, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_term_transfer(term, "me", 2, WAIT_MS, NULL, &err));
    FAILS(COORD_E_NOT_FOUND, coord_term_transfer(term, SESSION, COORD_NUL, WAIT_MS, NULL, &err));
    static char long_value[65537];
    memset(long_value, 'v', 65536);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_term_proclaim(term, long_value, 65537, WAIT_MS, NULL, &err));
    abuse_timeouts(-2);
    abuse_timeouts(INT64_MIN);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_term_ensure(term, INT64_MAX, WAIT_MS, NULL, &err));
    abuse_out_parameters();
    abuse_options();
    WITH_CANDIDATES(candidates, SIZE_MAX);
    SAME_TEXT(coord_leader_label_key(leader, SIZE_MAX), "");
    check_untouched();

    /* Everything is as it was. */
    OK(coord_term_check(term, &err));
    SAME_TEXT(coord_leader_value(leader), "v");
    SAME_TEXT(coord_text_data(text), "v");
    OK(coord_term_proclaim(term, long_value, 65536, INT64_MAX, NULL, &err));
    OK(coord_elected_complete(elected, NULL, 0, &err));
    FAILS(COORD_E_NOT_HELD, coord_elected_complete(elected, NULL, 0, &err));
    OK(coord_term_resign(term, INT64_MAX, NULL, &err));

    coord_control_destroy(control);
    coord_event_destroy(event);
    coord_text_destroy(text);
    coord_options_destroy(options);
    coord_elected_destroy(elected);
    coord_candidacy_destroy(candidacy);
    coord_leader_watch_destroy(watch);
    coord_candidate_list_destroy(candidates);
    coord_leader_destroy(leader);
    coord_term_destroy(term);
    coord_election_destroy(election);
    coord_election_destroy(others);
    coord_election_destroy(called);
    coord_election_destroy(closed_election);
    coord_queue_destroy(queue);
    OK(coord_client_close(client, WAIT_MS, &err));
    OK(coord_client_close(other, WAIT_MS, &err));
    coord_client_destroy(client);
    coord_client_destroy(closed);
    coord_client_destroy(other);
    return 0;
}
