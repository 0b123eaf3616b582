#define _POSIX_C_SOURCE 200809L
#include "elections.h"

#include <stdlib.h>

static int is(const words_t *words, const char *verb) { return strcmp(words->verb, verb) == 0; }

static void say_term(coord_term_t *term) {
    coord_text_t *value = NULL;
    coord_error_t *error = NULL;
    if (say_status(coord_term_value(term, &value, &error), &error)) {
        say("election", coord_term_name(term));
        say_number("token", coord_term_token(term));
        say("value", coord_text_data(value));
        coord_text_destroy(value);
    }
}

static void keep(const char *name, coord_term_t *term) {
    thing_t *thing = add(TERM, name);
    if (thing == NULL) {
        coord_term_destroy(term);
        say_fail("too many terms");
        return;
    }
    thing->term = term;
    say_term(term);
}

void take_term(thing_t *campaign) {
    coord_term_t *term = NULL;
    coord_error_t *error = NULL;
    char name[sizeof campaign->name];
    strcpy(name, campaign->name);
    coord_status_t status = coord_event_take_term(campaign->event, &term, &error);
    forget(campaign);
    if (status == COORD_OK) {
        keep(name, term);
    } else {
        say_status(status, &error);
    }
}

/* --- campaigning ------------------------------------------------------------------------------------------------- */

static coord_options_t *options_of(const words_t *words) {
    coord_options_t *options = NULL;
    coord_options_new(&options, NULL);
    if (words_get(words, "priority", NULL) != NULL) {
        coord_options_set_number(options, "priority", COORD_NUL, number_of(words, "priority", 0), NULL);
    }
    const char *keep_on_error = words_get(words, "keep_on_error", NULL);
    if (keep_on_error != NULL) {
        coord_options_set_number(options, "keep_on_error", COORD_NUL, strcmp(keep_on_error, "true") == 0, NULL);
    }
    if (words_get(words, "backoff_ms", NULL) != NULL) {
        coord_options_set_number(options, "min_backoff_ms", COORD_NUL, number_of(words, "backoff_ms", 0), NULL);
        coord_options_set_number(options, "max_backoff_ms", COORD_NUL, number_of(words, "backoff_ms", 0), NULL);
    }
    return options;
}

static void do_campaign(const words_t *words, coord_election_t *election) {
    coord_term_t *term = NULL;
    coord_error_t *error = NULL;
    coord_options_t *options = options_of(words);
    size_t length = 0;
    const char *value = words_get(words, "value", &length);
    coord_status_t status =
        is(words, "try_campaign")
            ? coord_election_try_campaign(election, value, length, NULL, &term, &error)
            : coord_election_campaign(election, value, length, options, number_of(words, "timeout_ms", -1), NULL, &term,
                                      &error);
    coord_options_destroy(options);
    if (status == COORD_OK) {
        keep(words_get(words, "as", NULL), term);
    } else {
        say_status(status, &error);
    }
}

static void start_campaign(const words_t *words, coord_election_t *election) {
    thing_t *thing = add(CAMPAIGN, words_get(words, "as", NULL));
    coord_error_t *error = NULL;
    if (thing == NULL) {
        say_fail("too many operations");
        return;
    }
    coord_options_t *options = options_of(words);
    size_t length = 0;
    const char *value = words_get(words, "value", &length);
    int64_t timeout_ms = number_of(words, "timeout_ms", -1);
    if (!say_status(coord_election_campaign_start(election, value, length, options, timeout_ms, queue, tag_of(thing),
                                                  &thing->op, &error),
                    &error)) {
        forget(thing);
    }
    coord_options_destroy(options);
}

/* --- who leads --------------------------------------------------------------------------------------------------- */

static void say_leader(const coord_leader_t *leader) {
    say("leader.name", coord_leader_name(leader));
    say("leader.session", coord_leader_session(leader));
    say_number("leader.pid", coord_leader_pid(leader));
    say_number("leader.token", coord_leader_token(leader));
    say("leader.is_self", coord_leader_is_self(leader) ? "true" : "false");
    if (coord_leader_has_value(leader)) {
        say("leader.value", coord_leader_value(leader));
    }
}

void say_leader_event(const coord_leader_t *leader) {
    say("event", leader == NULL ? "no_leader" : "leader");
    if (leader != NULL) {
        say_leader(leader);
    }
}

static void do_leader(coord_election_t *election) {
    coord_leader_t *leader = NULL;
    coord_error_t *error = NULL;
    if (say_status(coord_election_leader(election, BOUND_MS, NULL, &leader, &error), &error)) {
        say("exists", leader == NULL ? "false" : "true");
        if (leader != NULL) {
            say_leader(leader);
        }
        coord_leader_destroy(leader);
    }
}

static void do_candidates(coord_election_t *election) {
    coord_candidate_list_t *list = NULL;
    coord_error_t *error = NULL;
    if (!say_status(coord_election_candidates(election, BOUND_MS, NULL, &list, &error), &error)) {
        return;
    }
    char names[4096] = "", sessions[4096] = "", priorities[1024] = "";
    size_t count = coord_candidate_list_count(list);
    for (size_t i = 0; i < count; i++) {
        const char *comma = i == 0 ? "" : ",";
        size_t name = strlen(names), session = strlen(sessions), priority = strlen(priorities);
        snprintf(names + name, sizeof names - name, "%s%s", comma, coord_candidate_list_name(list, i));
        snprintf(sessions + session, sizeof sessions - session, "%s%s", comma, coord_candidate_list_session(list, i));
        snprintf(priorities + priority, sizeof priorities - priority, "%s%d", comma,
                 coord_candidate_list_priority(list, i));
    }
    say_number("waiting", (long long)count);
    say("candidates", names);
    say("sessions", sessions);
    say("priorities", priorities);
    coord_candidate_list_destroy(list);
}

static void do_observe(const words_t *words, coord_election_t *election) {
    coord_leader_watch_t *watch = NULL;
    coord_error_t *error = NULL;
    if (!say_status(coord_election_observe(election, BOUND_MS, NULL, &watch, &error), &error)) {
        return;
    }
    thing_t *thing = add(LEADERS, words_get(words, "as", NULL));
    if (thing != NULL) {
        thing->leaders = watch;
    } else {
        coord_leader_watch_destroy(watch);
    }
}

/* --- a function that is called in every term --------------------------------------------------------------------- */

/* One call: says that it has begun, and ends when it is told to. */
static void run_call(thing_t *thing, coord_elected_t *elected) {
    coord_term_t *term = NULL;
    coord_elected_term(elected, &term, NULL);
    pthread_mutex_lock(&thing->mutex);
    coord_term_destroy(thing->term);
    thing->term = term;
    thing->calls++;
    thing->running = thing->entered = 1;
    pthread_cond_broadcast(&thing->changed);
    while (!thing->finish) {
        pthread_cond_wait(&thing->changed, &thing->mutex);
    }
    char failure[sizeof thing->failure];
    strcpy(failure, thing->failure);
    int fails = thing->fails;
    thing->running = 0;
    if (thing->finish > 0) {
        thing->finish = 0;
    }
    pthread_mutex_unlock(&thing->mutex);
    coord_elected_complete(elected, fails ? failure : NULL, COORD_NUL, NULL);
    coord_elected_destroy(elected);
}

static void *take_calls(void *user_data) {
    thing_t *thing = user_data;
    coord_elected_t *elected = NULL;
    coord_error_t *error = NULL;
    while (coord_candidacy_next(thing->candidacy, -1, NULL, &elected, &error) == COORD_OK) {
        run_call(thing, elected);
    }
    coord_error_destroy(error);
    pthread_mutex_lock(&thing->mutex);
    thing->done = 1;
    pthread_cond_broadcast(&thing->changed);
    pthread_mutex_unlock(&thing->mutex);
    return NULL;
}

static void do_elect(const words_t *words, coord_election_t *election) {
    coord_candidacy_t *candidacy = NULL;
    coord_error_t *error = NULL;
    coord_options_t *options = options_of(words);
    size_t length = 0;
    const char *value = words_get(words, "value", &length);
    coord_status_t status = coord_election_when_elected(election, value, length, options, &candidacy, &error);
    coord_options_destroy(options);
    if (!say_status(status, &error)) {
        return;
    }
    thing_t *thing = add(CANDIDACY, words_get(words, "as", NULL));
    if (thing == NULL) {
        coord_candidacy_destroy(candidacy);
        return;
    }
    thing->candidacy = candidacy;
    run_in_background(thing, take_calls);
}

static void do_entered(thing_t *thing) {
    if (!wait_for(thing, &thing->entered)) {
        say_fail("the function was not called");
        return;
    }
    pthread_mutex_lock(&thing->mutex);
    thing->entered = 0;
    pthread_mutex_unlock(&thing->mutex);
    say_term(thing->term);
}

static void do_finish(const words_t *words, thing_t *thing) {
    const char *failure = words_get(words, "failure", NULL);
    pthread_mutex_lock(&thing->mutex);
    int running = thing->running;
    thing->fails = failure != NULL;
    snprintf(thing->failure, sizeof thing->failure, "%s", failure == NULL ? "" : failure);
    thing->finish = running;
    pthread_cond_broadcast(&thing->changed);
    pthread_mutex_unlock(&thing->mutex);
    running ? say_ok() : say_fail("the function does not run");
}

static void say_calls(thing_t *thing) {
    pthread_mutex_lock(&thing->mutex);
    say_ok();
    say_number("calls", thing->calls);
    say("running", thing->running ? "true" : "false");
    pthread_mutex_unlock(&thing->mutex);
}

void end_candidacy(thing_t *thing) {
    pthread_mutex_lock(&thing->mutex);
    thing->finish = -1; /* every call from now on ends at once */
    pthread_cond_broadcast(&thing->changed);
    pthread_mutex_unlock(&thing->mutex);
    coord_candidacy_close(thing->candidacy, CLOSE_MS, NULL, NULL);
    join_background(thing);
    forget(thing);
}

int do_with_candidacy(const words_t *words) {
    coord_error_t *error = NULL;
    thing_t *thing = find(words_get(words, "hold", NULL), CANDIDACY);
    if (thing == NULL) {
        return 0;
    }
    if (is(words, "entered")) {
        do_entered(thing);
    } else if (is(words, "finish")) {
        do_finish(words, thing);
    } else if (is(words, "calls")) {
        say_calls(thing);
    } else if (is(words, "retire")) {
        say_status(coord_candidacy_close(thing->candidacy, BOUND_MS, NULL, &error), &error);
    } else {
        say_fail("a candidacy cannot do that");
    }
    return 1;
}

/* --- terms ------------------------------------------------------------------------------------------------------- */

static coord_term_t *term_of(const char *name) {
    thing_t *term = find(name, TERM), *candidacy = find(name, CANDIDACY);
    return term != NULL ? term->term : candidacy != NULL ? candidacy->term : NULL;
}

static void do_lost(coord_term_t *term) {
    coord_error_t *error = NULL;
    int32_t loss = COORD_LOSS_NONE;
    if (say_status(coord_term_wait_lost(term, BOUND_MS, NULL, &loss, &error), &error)) {
        say("reason", coord_loss_name(loss));
    }
}

int do_with_term(const words_t *words) {
    coord_error_t *error = NULL;
    size_t length = 0;
    coord_term_t *term = term_of(words_get(words, "hold", NULL));
    if (term == NULL) {
        return 0;
    }
    if (is(words, "held")) {
        say_term(term);
        say_number("remaining_ms", coord_term_remaining_ms(term));
    } else if (is(words, "check")) {
        say_status(coord_term_check(term, &error), &error);
    } else if (is(words, "ensure")) {
        say_status(coord_term_ensure(term, number_of(words, "ms", 0), BOUND_MS, NULL, &error), &error);
    } else if (is(words, "lost")) {
        do_lost(term);
    } else if (is(words, "proclaim")) {
        const char *value = words_get(words, "value", &length);
        say_status(coord_term_proclaim(term, value, length, BOUND_MS, NULL, &error), &error);
    } else if (is(words, "resign")) {
        say_status(coord_term_resign(term, BOUND_MS, NULL, &error), &error);
    } else if (is(words, "transfer")) {
        const char *to = words_get(words, "to", &length);
        say_status(coord_term_transfer(term, to, length, BOUND_MS, NULL, &error), &error);
    } else {
        return 0;
    }
    return 1;
}

/* --- a store under control --------------------------------------------------------------------------------------- */

static int do_with_store(const words_t *words, coord_client_t *client) {
    if (!is(words, "force_leader") && !is(words, "expire") && !is(words, "advance")) {
        return 0;
    }
    coord_control_t *control = NULL;
    coord_error_t *error = NULL;
    size_t election_length = 0, length = 0;
    const char *election = words_get(words, "election", &election_length), *session = words_get(words, "session", &length);
    coord_status_t status = coord_control_new(client, &control, &error);
    if (status == COORD_OK && is(words, "force_leader")) {
        status = coord_control_force_leader(control, election, election_length, session, length, BOUND_MS, NULL, NULL,
                                            &error);
    } else if (status == COORD_OK && is(words, "expire")) {
        status = coord_control_expire_session(control, session, length, BOUND_MS, NULL, &error);
    } else if (status == COORD_OK) {
        status = coord_control_advance(control, number_of(words, "ms", 0), BOUND_MS, NULL, &error);
    }
    coord_control_destroy(control);
    say_status(status, &error);
    return 1;
}

int do_with_election(const words_t *words, coord_client_t *client) {
    size_t length = 0;
    if (do_with_store(words, client)) {
        return 1;
    }
    const char *name = words_get(words, "election", &length);
    if (name == NULL) {
        return 0;
    }
    coord_election_t *election = NULL;
    coord_error_t *error = NULL;
    coord_status_t status = coord_election_new(client, name, length, &election, &error);
    if (status != COORD_OK) {
        say_status(status, &error);
        return 1;
    }
    if (is(words, "campaign") || is(words, "try_campaign")) {
        do_campaign(words, election);
    } else if (is(words, "start_campaign")) {
        start_campaign(words, election);
    } else if (is(words, "leading")) {
        say_ok();
        say("leading", coord_election_is_leader(election) ? "true" : "false");
    } else if (is(words, "leader")) {
        do_leader(election);
    } else if (is(words, "candidates")) {
        do_candidates(election);
    } else if (is(words, "observe")) {
        do_observe(words, election);
    } else if (is(words, "elect")) {
        do_elect(words, election);
    } else {
        say_fail("there is no such command");
    }
    coord_election_destroy(election);
    return 1;
}
