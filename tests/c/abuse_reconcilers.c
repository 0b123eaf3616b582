/* Bad input through every entry point of reconcilers: as abuse.c. */
#include "abuse.h"

static coord_client_t *client;
static coord_queue_t *queue;
static coord_event_t *event;
static coord_table_t *table;
static coord_source_t *source;
static coord_reconciler_t *reconciler;
static coord_work_t *work;
static coord_reconciler_stats_t *stats;
static coord_parked_list_t *parked;
static coord_options_t *options;

static coord_source_t *new_source = UNTOUCHED;
static coord_reconciler_t *new_reconciler = UNTOUCHED;
static coord_work_t *new_work = UNTOUCHED;
static coord_reconciler_stats_t *new_stats = UNTOUCHED;
static coord_parked_list_t *new_parked = UNTOUCHED;
static coord_fence_t *new_fence = UNTOUCHED;
static coord_op_t *new_op = UNTOUCHED;
static int32_t number = 77;

#define JSON COORD_FORMAT_JSON
#define BSON COORD_FORMAT_BSON

static void reconcile_fails(coord_status_t code, coord_client_t *c, const char *name, size_t length, coord_source_t *s,
                            int32_t format, coord_options_t *o) {
    FAILS(code, coord_client_reconcile(c, name, length, s, format, o, WAIT_MS, NULL, &new_reconciler, &err));
    FAILS(code, coord_client_reconcile_start(c, name, length, s, format, o, WAIT_MS, queue, 1, &new_op, &err));
}

#define ASKING_RECONCILER(code, h) \
    FAILS(code, coord_reconciler_next(h, WAIT_MS, NULL, &new_work, &err)); \
    FAILS(code, coord_reconciler_add(h, "1", 1, &number, &err)); \
    FAILS(code, coord_reconciler_add_after(h, "1", 1, 1, &number, &err)); \
    FAILS(code, coord_reconciler_cancel(h, "1", 1, &number, &err)); \
    FAILS(code, coord_reconciler_wait_until_reconciled(h, "1", 1, 0, WAIT_MS, NULL, &err))

#define WITH_RECONCILER(code, h) \
    ASKING_RECONCILER(code, h); \
    SAME_TEXT(coord_reconciler_name(h), ""); \
    FAILS(code, coord_reconciler_next_start(h, queue, 1, &new_op, &err)); \
    FAILS(code, coord_reconciler_wait_until_reconciled_start(h, "1", 1, 0, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_reconciler_pause(h, &err)); \
    FAILS(code, coord_reconciler_resume(h, &err)); \
    FAILS(code, coord_reconciler_drain(h, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_reconciler_drain_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_reconciler_close(h, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_reconciler_close_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_reconciler_stats(h, &new_stats, &err)); \
    FAILS(code, coord_reconciler_parked(h, &new_parked, &err))

#define WITH_WORK(code, h) \
    SAME_TEXT(coord_work_key(h), ""); \
    SAME_TEXT(coord_work_document(h), ""); \
    EQUAL(coord_work_key_length(h), 0); \
    EQUAL(coord_work_has_document(h), 0); \
    EQUAL(coord_work_document_length(h), 0); \
    EQUAL(coord_work_has_revision(h), 0); \
    EQUAL(coord_work_revision(h), 0); \
    EQUAL(coord_work_attempt(h), 0); \
    EQUAL(coord_work_token(h), 0); \
    EQUAL(coord_work_is_cancelled(h), 0); \
    FAILS(code, coord_work_check(h, &err)); \
    FAILS(code, coord_work_fence(h, 0, &new_fence, &err)); \
    FAILS(code, coord_work_wait_cancelled(h, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_work_wait_cancelled_start(h, queue, 1, &new_op, &err)); \
    FAILS(code, coord_work_complete(h, COORD_OUTCOME_DONE, 0, NULL, 0, &err))

#define WITH_STATS(h) \
    EQUAL(coord_reconciler_stats_value(h, COORD_RECONCILER_STAT_RUNS), -1); \
    EQUAL(coord_reconciler_stats_shard_count(h), 0); \
    EQUAL(coord_reconciler_stats_shard(h, 0), 0)

#define WITH_PARKED(h, index) \
    SAME_TEXT(coord_parked_list_key(h, index), ""); \
    SAME_TEXT(coord_parked_list_reason(h, index), ""); \
    EQUAL(coord_parked_list_key_length(h, index), 0); \
    EQUAL(coord_parked_list_parked_ms(h, index), 0)

#define WITH_QUEUE(code, h) \
    FAILS(code, coord_client_reconcile_start(client, "r", 1, source, JSON, NULL, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_reconciler_next_start(reconciler, h, 1, &new_op, &err)); \
    FAILS(code, coord_reconciler_drain_start(reconciler, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_reconciler_close_start(reconciler, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_reconciler_wait_until_reconciled_start(reconciler, "1", 1, 0, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_work_wait_cancelled_start(work, h, 1, &new_op, &err))

#define WITH_CANCEL(code, h) \
    FAILS(code, coord_client_reconcile(client, "r", 1, source, JSON, NULL, WAIT_MS, h, &new_reconciler, &err)); \
    FAILS(code, coord_reconciler_next(reconciler, WAIT_MS, h, &new_work, &err)); \
    FAILS(code, coord_reconciler_drain(reconciler, WAIT_MS, h, &err)); \
    FAILS(code, coord_reconciler_close(reconciler, WAIT_MS, h, &err)); \
    FAILS(code, coord_reconciler_wait_until_reconciled(reconciler, "1", 1, 0, WAIT_MS, h, &err)); \
    FAILS(code, coord_work_wait_cancelled(work, WAIT_MS, h, &err))

#define WITH_EVENT(code, h) \
    FAILS(code, coord_event_take_reconciler(h, &new_reconciler, &err)); \
    FAILS(code, coord_event_take_work(h, &new_work, &err))

static void abuse_everything_with(const void *bad) {
    coord_status_t code = COORD_E_HANDLE;
    FAILS(code, coord_source_table((coord_table_t *)bad, NULL, 0, &new_source, &err));
    reconcile_fails(code, (coord_client_t *)bad, "r", 1, source, JSON, NULL);
    reconcile_fails(code, client, "r", 1, (coord_source_t *)bad, JSON, NULL);
    WITH_RECONCILER(code, (coord_reconciler_t *)bad);
    WITH_WORK(code, (coord_work_t *)bad);
    WITH_STATS((const coord_reconciler_stats_t *)bad);
    EQUAL(coord_parked_list_count((const coord_parked_list_t *)bad), 0);
    WITH_PARKED((const coord_parked_list_t *)bad, 0);
    WITH_QUEUE(code, (coord_queue_t *)bad);
    WITH_EVENT(code, (coord_event_t *)bad);
    if (bad != NULL) {
        reconcile_fails(code, client, "r", 1, source, JSON, (coord_options_t *)bad);
        WITH_CANCEL(code, (coord_cancel_t *)bad);
    }
    coord_source_destroy((coord_source_t *)bad);
    coord_reconciler_destroy((coord_reconciler_t *)bad);
    coord_work_destroy((coord_work_t *)bad);
    coord_reconciler_stats_destroy((coord_reconciler_stats_t *)bad);
    coord_parked_list_destroy((coord_parked_list_t *)bad);
}

/* Handles of one kind given as another: nothing happens to them. */
static void abuse_foreign_handles(void) {
    const void *handles[] = {client, queue, event, table, source, reconciler, work, stats, parked, options};
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) {
        const void *h = handles[i];
        if (h != source) {
            reconcile_fails(COORD_E_HANDLE, client, "r", 1, (coord_source_t *)h, JSON, NULL);
            coord_source_destroy((coord_source_t *)h);
        }
        if (h != reconciler) {
            WITH_RECONCILER(COORD_E_HANDLE, (coord_reconciler_t *)h);
            coord_reconciler_destroy((coord_reconciler_t *)h);
        }
        if (h != work) { WITH_WORK(COORD_E_HANDLE, (coord_work_t *)h); coord_work_destroy((coord_work_t *)h); }
        if (h != stats) {
            WITH_STATS((const coord_reconciler_stats_t *)h);
            coord_reconciler_stats_destroy((coord_reconciler_stats_t *)h);
        }
        if (h != parked) {
            WITH_PARKED((const coord_parked_list_t *)h, 0);
            coord_parked_list_destroy((coord_parked_list_t *)h);
        }
    }
}

static void abuse_name(const char *bad, size_t length) {
    reconcile_fails(COORD_E_INVALID_ARGUMENT, client, bad, length, source, JSON, NULL);
}

/* Names that can be read are checked where they are used. */
static void abuse_bad_name(const char *bad, size_t length) {
    FAILS(COORD_E_INVALID_ARGUMENT,
          coord_client_reconcile(client, bad, length, source, JSON, NULL, WAIT_MS, NULL, &new_reconciler, &err));
}

static void abuse_key(const char *bad, size_t length) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_reconciler_add(reconciler, bad, length, &number, &err));
    FAILS(code, coord_reconciler_add_after(reconciler, bad, length, 1, &number, &err));
    FAILS(code, coord_reconciler_cancel(reconciler, bad, length, &number, &err));
    FAILS(code, coord_reconciler_wait_until_reconciled(reconciler, bad, length, 0, WAIT_MS, NULL, &err));
    FAILS(code, coord_reconciler_wait_until_reconciled_start(reconciler, bad, length, 0, WAIT_MS, queue, 1, &new_op, &err));
}

static void abuse_unreadable(const char *bad, size_t length) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    abuse_name(bad, length);
    abuse_key(bad, length);
    FAILS(code, coord_source_table(table, bad, length, &new_source, &err));
    FAILS(code, coord_source_observer(bad, length, &new_source, &err));
    FAILS(code, coord_source_released_locks(bad, length, &new_source, &err));
    for (int32_t outcome = COORD_OUTCOME_DONE; outcome <= COORD_OUTCOME_TERMINAL; outcome++) {
        FAILS(code, coord_work_complete(work, outcome, 0, bad, length, &err));
    }
}

static void abuse_timeouts(int64_t bad) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_client_reconcile(client, "r", 1, source, JSON, NULL, bad, NULL, &new_reconciler, &err));
    FAILS(code, coord_client_reconcile_start(client, "r", 1, source, JSON, NULL, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_reconciler_next(reconciler, bad, NULL, &new_work, &err));
    FAILS(code, coord_reconciler_drain(reconciler, bad, NULL, &err));
    FAILS(code, coord_reconciler_drain_start(reconciler, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_reconciler_close(reconciler, bad, NULL, &err));
    FAILS(code, coord_reconciler_close_start(reconciler, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_reconciler_add_after(reconciler, "1", 1, bad, &number, &err));
    FAILS(code, coord_reconciler_wait_until_reconciled(reconciler, "1", 1, 0, bad, NULL, &err));
    FAILS(code, coord_reconciler_wait_until_reconciled_start(reconciler, "1", 1, 0, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_work_wait_cancelled(work, bad, NULL, &err));
    FAILS(code, coord_work_complete(work, COORD_OUTCOME_REQUEUE_AFTER, bad, NULL, 0, &err));
    FAILS(code, coord_work_complete(work, COORD_OUTCOME_ERROR_AFTER, bad, "m", 1, &err));
}

static void abuse_outcomes(void) {
    static const struct { int32_t outcome; int64_t after; const char *message; } bad[] = {
        {-1, 0, NULL}, {5, 0, NULL}, {INT32_MAX, 0, "m"}, {COORD_OUTCOME_DONE, 1, NULL}, {COORD_OUTCOME_DONE, 0, "m"},
        {COORD_OUTCOME_REQUEUE_AFTER, 1, "m"}, {COORD_OUTCOME_ERROR, 0, NULL}, {COORD_OUTCOME_ERROR, 1, "m"},
        {COORD_OUTCOME_ERROR_AFTER, 1, NULL}, {COORD_OUTCOME_TERMINAL, 0, NULL}, {COORD_OUTCOME_TERMINAL, 1, "m"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        FAILS(COORD_E_INVALID_ARGUMENT,
              coord_work_complete(work, bad[i].outcome, bad[i].after, bad[i].message, COORD_NUL, &err));
    }
}

static void abuse_out_parameters(void) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_source_table(table, NULL, 0, NULL, &err));
    FAILS(code, coord_source_observer("a", 1, NULL, &err));
    FAILS(code, coord_source_released_locks(NULL, 0, NULL, &err));
    FAILS(code, coord_source_manual(NULL, &err));
    FAILS(code, coord_client_reconcile(client, "r", 1, source, JSON, NULL, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_reconciler_next(reconciler, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_reconciler_stats(reconciler, NULL, &err));
    FAILS(code, coord_reconciler_parked(reconciler, NULL, &err));
    FAILS(code, coord_work_fence(work, 0, NULL, &err));
    FAILS(code, coord_event_take_reconciler(event, NULL, &err));
    FAILS(code, coord_event_take_work(event, NULL, &err));
}

static void abuse_options(void) {
    static const struct { const char *name, *text; int64_t value; } settings[] = {
        {"workers", NULL, 0}, {"workers", NULL, -1}, {"workers", NULL, 10001}, {"workers", "4", 0}, {"mode", NULL, 1},
        {"mode", "most", 0}, {"shards", NULL, 8}, {"backoff_min_ms", NULL, 0}, {"backoff_min_ms", NULL, 1000001},
        {"backoff_max_ms", NULL, 4}, {"rate_per_second", NULL, 0}, {"rate_per_second", "-1", 0},
        {"rate_per_second", "nan", 0}, {"rate_per_second", "many", 0}, {"rate_burst", NULL, 5}, {"resync_ms", NULL, 999},
        {"move_grace_ms", NULL, -1}, {"bogus", NULL, 1}, {"mode", "leader", 0}, {"mode", "sharded", 0}};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        coord_options_t *bad = NULL;
        OK(coord_options_new(&bad, &err));
        if (settings[i].text == NULL) {
            OK(coord_options_set_number(bad, settings[i].name, COORD_NUL, settings[i].value, &err));
        } else {
            OK(coord_options_set_text(bad, settings[i].name, COORD_NUL, settings[i].text, COORD_NUL, &err));
        }
        FAILS(COORD_E_INVALID_ARGUMENT,
              coord_client_reconcile(client, "r", 1, source, JSON, bad, WAIT_MS, NULL, &new_reconciler, &err));
        coord_options_destroy(bad);
    }
    for (int64_t shards = 0; shards < 100000; shards += 99999) {
        coord_options_t *bad = NULL;
        OK(coord_options_new(&bad, &err));
        OK(coord_options_set_text(bad, "mode", COORD_NUL, "sharded", COORD_NUL, &err));
        OK(coord_options_set_number(bad, "shards", COORD_NUL, shards, &err));
        FAILS(COORD_E_INVALID_ARGUMENT,
              coord_client_reconcile(client, "r", 1, source, JSON, bad, WAIT_MS, NULL, &new_reconciler, &err));
        coord_options_destroy(bad);
    }
}

static void check_untouched(void) {
    CHECK(new_source == UNTOUCHED && new_reconciler == UNTOUCHED && new_work == UNTOUCHED && new_stats == UNTOUCHED);
    CHECK(new_parked == UNTOUCHED && new_fence == UNTOUCHED && new_op == UNTOUCHED);
    EQUAL(number, 77);
    expect_no_event(queue);
}

int main(void) {
    client = connect_as("client");
    coord_client_t *closed = NULL;
    OK(coord_client_open_session(client, WAIT_MS, NULL, &closed, &err));
    queue = new_queue();
    OK(coord_source_manual(&source, &err));
    OK(coord_options_new(&options, &err));
    OK(coord_table_new(client, "t", 1, JSON, &table, &err));
    coord_reconciler_t *of_closed = NULL;
    OK(coord_client_reconcile(closed, "r", 1, source, JSON, NULL, WAIT_MS, NULL, &of_closed, &err));
    OK(coord_client_close(closed, WAIT_MS, &err));
    OK(coord_client_reconcile(client, "r", 1, source, JSON, NULL, WAIT_MS, NULL, &reconciler, &err));
    OK(coord_reconciler_add(reconciler, "1", 1, NULL, &err));
    OK(coord_reconciler_next(reconciler, WAIT_MS, NULL, &work, &err));
    OK(coord_reconciler_stats(reconciler, &stats, &err));
    OK(coord_reconciler_parked(reconciler, &parked, &err));
    OK(coord_client_health_start(client, WAIT_MS, queue, 5, NULL, &err));
    event = expect_event(queue, COORD_EVENT_DONE, 5, COORD_OK);

    with_made_up_handles(abuse_everything_with, work);
    coord_source_t *old_source = NULL;
    OK(coord_source_manual(&old_source, &err));
    coord_source_destroy(old_source);
    for (int twice = 0; twice < 2; twice++) abuse_everything_with(old_source);
    abuse_foreign_handles();
    WITH_EVENT(COORD_E_NOT_FOUND, event);
    ASKING_RECONCILER(COORD_E_CLOSED, of_closed);
    OK(coord_reconciler_pause(of_closed, &err));
    OK(coord_reconciler_resume(of_closed, &err));

    with_bad_names(abuse_bad_name);
    with_unreadable_texts(abuse_unreadable);
    abuse_name(NULL, 0);
    abuse_key(NULL, 0);
    static const char *const keys[] = {"", "a", "1.5", "null", "true", "[1]", "{\"$a\":1}", "{\"$oid\":\"x\"}", "1 2"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) abuse_key(keys[i], COORD_NUL);
    static char long_key[2000];
    memset(long_key, 'k', sizeof long_key);
    long_key[0] = long_key[sizeof long_key - 1] = '"';
    abuse_key(long_key, sizeof long_key);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_source_observer(NULL, 0, &new_source, &err));
    static const char *const filters[] = {"[]", "1", "{", "\"a\""};
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        FAILS(COORD_E_INVALID_ARGUMENT, coord_source_table(table, filters[i], COORD_NUL, &new_source, &err));
    }
    static const char *const patterns[] = {"", "a b", "*/x", "a/b/c/d"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        coord_source_t *bad = NULL;
        OK(coord_source_observer(patterns[i], COORD_NUL, &bad, &err));
        FAILS(COORD_E_INVALID_ARGUMENT,
              coord_client_reconcile(client, "r", 1, bad, JSON, NULL, WAIT_MS, NULL, &new_reconciler, &err));
        coord_source_destroy(bad);
    }
    for (int32_t format = -1; format < 3; format += 3) {
        reconcile_fails(COORD_E_INVALID_ARGUMENT, client, "r", 1, source, format, NULL);
    }
    abuse_timeouts(-2);
    abuse_timeouts(INT64_MIN);
    abuse_outcomes();
    abuse_out_parameters();
    abuse_options();
    FAILS(COORD_E_INVALID_ARGUMENT, coord_client_reconcile(client, "r", 1, source, BSON, NULL, -2, NULL, &new_reconciler,
                                                           &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_work_fence(work, 2, &new_fence, &err));
    WITH_PARKED(parked, SIZE_MAX);
    EQUAL(coord_reconciler_stats_shard(stats, SIZE_MAX), 0);
    EQUAL(coord_reconciler_stats_value(stats, -1), -1);
    EQUAL(coord_reconciler_stats_value(stats, INT32_MAX), -1);
    SAME_TEXT(coord_reconciler_stat_name(-1), "");
    check_untouched();

    /* Everything is as it was. */
    OK(coord_work_check(work, &err));
    SAME_TEXT(coord_work_key(work), "1");
    EQUAL(coord_reconciler_stats_value(stats, COORD_RECONCILER_STAT_IN_FLIGHT), 1);
    OK(coord_work_complete(work, COORD_OUTCOME_REQUEUE_AFTER, INT64_MAX, NULL, 0, &err));
    OK(coord_reconciler_close(reconciler, INT64_MAX, NULL, &err));

    coord_event_destroy(event);
    coord_parked_list_destroy(parked);
    coord_reconciler_stats_destroy(stats);
    coord_work_destroy(work);
    coord_reconciler_destroy(reconciler);
    coord_reconciler_destroy(of_closed);
    coord_source_destroy(source);
    coord_table_destroy(table);
    coord_options_destroy(options);
    coord_queue_destroy(queue);
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    coord_client_destroy(closed);
    return 0;
}
