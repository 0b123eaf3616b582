/* A reconciler gives a run for each key that is due, never two of one key at once; what a run comes to decides when the
 * next one is. */
#include "test.h"

static coord_client_t *client;
static coord_queue_t *queue;

static coord_reconciler_t *manual(const char *name, int64_t workers, int32_t format) {
    coord_source_t *source = NULL;
    coord_options_t *options = NULL;
    coord_reconciler_t *reconciler = NULL;
    OK(coord_source_manual(&source, &err));
    OK(coord_options_new(&options, &err));
    OK(coord_options_set_number(options, "workers", COORD_NUL, workers, &err));
    OK(coord_options_set_number(options, "backoff_min_ms", COORD_NUL, 1, &err));
    OK(coord_options_set_number(options, "backoff_max_ms", COORD_NUL, 5, &err));
    OK(coord_client_reconcile(client, name, COORD_NUL, source, format, options, WAIT_MS, NULL, &reconciler, &err));
    coord_options_destroy(options);
    coord_source_destroy(source);
    return reconciler;
}

static int32_t add(coord_reconciler_t *reconciler, const char *key) {
    int32_t news = -1;
    OK(coord_reconciler_add(reconciler, key, COORD_NUL, &news, &err));
    return news;
}

/* The next run, which is of this key and this attempt. */
static coord_work_t *next(coord_reconciler_t *reconciler, const char *key, uint32_t attempt) {
    coord_work_t *work = NULL;
    OK(coord_reconciler_next(reconciler, WAIT_MS, NULL, &work, &err));
    SAME_TEXT(coord_work_key(work), key);
    EQUAL(coord_work_key_length(work), strlen(key));
    EQUAL(coord_work_attempt(work), attempt);
    return work;
}

static void complete(coord_work_t *work, int32_t outcome, int64_t after_ms, const char *message) {
    OK(coord_work_complete(work, outcome, after_ms, message, message == NULL ? 0 : COORD_NUL, &err));
    coord_work_destroy(work);
}

static void done(coord_work_t *work) {
    complete(work, COORD_OUTCOME_DONE, 0, NULL);
}

static void nothing_now(coord_reconciler_t *reconciler) {
    coord_work_t *none = NULL;
    FAILS(COORD_E_TIMEOUT, coord_reconciler_next(reconciler, 0, NULL, &none, &err));
}

static int64_t stat(coord_reconciler_t *reconciler, int32_t number) {
    coord_reconciler_stats_t *stats = NULL;
    OK(coord_reconciler_stats(reconciler, &stats, &err));
    int64_t value = coord_reconciler_stats_value(stats, number);
    EQUAL(coord_reconciler_stats_shard_count(stats), 0);
    coord_reconciler_stats_destroy(stats);
    return value;
}

static void runs_and_outcomes(void) {
    coord_reconciler_t *r = manual("pool/r", 1, COORD_FORMAT_JSON);
    SAME_TEXT(coord_reconciler_name(r), "default/pool/r");
    nothing_now(r);
    EQUAL(add(r, "\"a\""), 1);
    EQUAL(add(r, "\"a\""), 0);
    coord_work_t *work = next(r, "\"a\"", 1);
    EQUAL(coord_work_has_document(work), 0);
    EQUAL(coord_work_document_length(work), 0);
    SAME_TEXT(coord_work_document(work), "");
    EQUAL(coord_work_has_revision(work), 0);
    EQUAL(coord_work_revision(work), 0);
    EQUAL(coord_work_token(work), 0);
    EQUAL(coord_work_is_cancelled(work), 0);
    OK(coord_work_check(work, &err));
    coord_fence_t *fence = NULL;
    FAILS(COORD_E_INVALID_ARGUMENT, coord_work_fence(work, 0, &fence, &err));

    /* Changes during a run lead to one more, and the key is not run by two. */
    EQUAL(add(r, "\"a\""), 1);
    EQUAL(add(r, "\"a\""), 0);
    nothing_now(r);
    EQUAL(stat(r, COORD_RECONCILER_STAT_IN_FLIGHT), 1);
    OK(coord_work_complete(work, COORD_OUTCOME_DONE, 0, NULL, 0, &err));
    FAILS(COORD_E_NOT_HELD, coord_work_complete(work, COORD_OUTCOME_DONE, 0, NULL, 0, &err));
    FAILS(COORD_E_CLOSED, coord_work_wait_cancelled(work, WAIT_MS, NULL, &err));
    SAME_TEXT(coord_work_key(work), "\"a\"");
    coord_work_destroy(work);
    complete(next(r, "\"a\"", 1), COORD_OUTCOME_REQUEUE_AFTER, 20, NULL);
    complete(next(r, "\"a\"", 1), COORD_OUTCOME_ERROR, 0, "once");
    complete(next(r, "\"a\"", 2), COORD_OUTCOME_ERROR_AFTER, 1, "twice");
    /* One that is dropped has failed; so has one that nobody takes out of its event. */
    coord_work_destroy(next(r, "\"a\"", 3));
    OK(coord_reconciler_next_start(r, queue, 1, NULL, &err));
    expect(queue, COORD_EVENT_WORK, 1, COORD_OK);
    OK(coord_reconciler_next_start(r, queue, 2, NULL, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_WORK, 2, COORD_OK);
    OK(coord_event_take_work(event, &work, &err));
    FAILS(COORD_E_NOT_FOUND, coord_event_take_work(event, &work, &err));
    coord_event_destroy(event);
    EQUAL(coord_work_attempt(work), 5);
    complete(work, COORD_OUTCOME_REQUEUE_AFTER, 0, NULL);
    done(next(r, "\"a\"", 1));
    nothing_now(r);
    EQUAL(stat(r, COORD_RECONCILER_STAT_RUNS), 8);
    EQUAL(stat(r, COORD_RECONCILER_STAT_ERRORS), 2);
    EQUAL(stat(r, COORD_RECONCILER_STAT_RETRIES), 4);
    EQUAL(stat(r, COORD_RECONCILER_STAT_DROPPED), 2);
    EQUAL(stat(r, COORD_RECONCILER_STAT_REQUEUED), 2);
    EQUAL(stat(r, COORD_RECONCILER_STAT_SYNCED), 1);
    EQUAL(stat(r, 18), -1);
    SAME_TEXT(coord_reconciler_stat_name(COORD_RECONCILER_STAT_IN_FLIGHT), "in_flight");
    SAME_TEXT(coord_reconciler_stat_name(18), "");

    /* What cannot be reconciled is parked until it is added again. */
    add(r, "{\"a\":1,\"b\":\"x\"}");
    complete(next(r, "{\"a\":1,\"b\":\"x\"}", 1), COORD_OUTCOME_TERMINAL, 0, "no way");
    coord_parked_list_t *parked = NULL;
    OK(coord_reconciler_parked(r, &parked, &err));
    EQUAL(coord_parked_list_count(parked), 1);
    SAME_TEXT(coord_parked_list_key(parked, 0), "{\"a\":1,\"b\":\"x\"}");
    EQUAL(coord_parked_list_key_length(parked, 0), 15);
    SAME_TEXT(coord_parked_list_reason(parked, 0), "no way");
    CHECK(coord_parked_list_parked_ms(parked, 0) >= 0);
    coord_parked_list_destroy(parked);
    EQUAL(stat(r, COORD_RECONCILER_STAT_PARKED), 1);
    FAILS(COORD_E_CONFLICT,
          coord_reconciler_wait_until_reconciled(r, "{\"a\":1,\"b\":\"x\"}", COORD_NUL, 0, WAIT_MS, NULL, &err));
    EQUAL(add(r, "{\"a\":1,\"b\":\"x\"}"), 1);
    done(next(r, "{\"a\":1,\"b\":\"x\"}", 1));
    EQUAL(stat(r, COORD_RECONCILER_STAT_PARKED), 0);
    OK(coord_reconciler_wait_until_reconciled(r, "{\"a\":1,\"b\":\"x\"}", COORD_NUL, 0, 0, NULL, &err));
    coord_reconciler_destroy(r);
}

static void plans_and_cancels(void) {
    coord_reconciler_t *r = manual("r", 2, COORD_FORMAT_JSON);
    int32_t flag = -1;
    OK(coord_reconciler_add_after(r, "1", 1, 3600000, &flag, &err));
    EQUAL(flag, 1);
    OK(coord_reconciler_add_after(r, "1", 1, 7200000, &flag, &err));
    EQUAL(flag, 0);
    nothing_now(r);
    EQUAL(stat(r, COORD_RECONCILER_STAT_DELAYED), 1);
    OK(coord_reconciler_cancel(r, "1", 1, &flag, &err));
    EQUAL(flag, 1);
    OK(coord_reconciler_cancel(r, "1", 1, NULL, &err));
    EQUAL(stat(r, COORD_RECONCILER_STAT_DELAYED), 0);
    OK(coord_reconciler_add_after(r, "1", 1, 1, NULL, &err));
    coord_work_t *work = next(r, "1", 1);

    /* A run whose key is cancelled is asked to stop, and leads to nothing more. */
    OK(coord_work_wait_cancelled_start(work, queue, 3, NULL, &err));
    FAILS(COORD_E_TIMEOUT, coord_work_wait_cancelled(work, 0, NULL, &err));
    expect_no_event(queue);
    add(r, "1");
    OK(coord_reconciler_cancel(r, "1", 1, &flag, &err));
    EQUAL(flag, 1);
    expect(queue, COORD_EVENT_DONE, 3, COORD_OK);
    EQUAL(coord_work_is_cancelled(work), 1);
    FAILS(COORD_E_CANCELLED, coord_work_check(work, &err));
    OK(coord_work_wait_cancelled(work, 0, NULL, &err));
    complete(work, COORD_OUTCOME_ERROR, 0, "too late");
    nothing_now(r);
    FAILS(COORD_E_CONFLICT, coord_reconciler_wait_until_reconciled(r, "1", 1, 0, WAIT_MS, NULL, &err));
    EQUAL(stat(r, COORD_RECONCILER_STAT_DELAYED), 0);

    /* Who waits for the end of a run is told that it was completed, or destroyed. */
    add(r, "2");
    work = next(r, "2", 1);
    OK(coord_work_wait_cancelled_start(work, queue, 4, NULL, &err));
    OK(coord_reconciler_wait_until_reconciled_start(r, "2", 1, 0, WAIT_MS, queue, 5, NULL, &err));
    FAILS(COORD_E_TIMEOUT, coord_reconciler_wait_until_reconciled(r, "2", 1, 0, 1, NULL, &err));
    coord_work_destroy(work);
    expect(queue, COORD_EVENT_DONE, 4, COORD_E_CLOSED);
    done(next(r, "2", 2));
    expect(queue, COORD_EVENT_DONE, 5, COORD_OK);

    /* As many runs are out as there are workers. */
    add(r, "1");
    add(r, "2");
    add(r, "3");
    work = next(r, "1", 1);
    coord_work_t *second = next(r, "2", 1);
    nothing_now(r);
    OK(coord_reconciler_pause(r, &err));
    done(work);
    nothing_now(r);
    EQUAL(stat(r, COORD_RECONCILER_STAT_PAUSED), 1);
    OK(coord_reconciler_next_start(r, queue, 6, NULL, &err));
    OK(coord_reconciler_resume(r, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_WORK, 6, COORD_OK);
    OK(coord_event_take_work(event, &work, &err));
    coord_event_destroy(event);
    SAME_TEXT(coord_work_key(work), "3");
    done(work);
    done(second);

    /* A wait that is given up takes no key away. */
    coord_op_t *op = NULL;
    OK(coord_reconciler_next_start(r, queue, 7, &op, &err));
    coord_op_cancel(op);
    coord_op_destroy(op);
    expect(queue, COORD_EVENT_WORK, 7, COORD_E_CANCELLED);
    add(r, "4");
    done(next(r, "4", 1));
    coord_reconciler_destroy(r);
}

static void ends(void) {
    coord_reconciler_t *r = manual("r", 1, COORD_FORMAT_JSON);
    coord_work_t *none = NULL;
    add(r, "1");
    add(r, "2");
    OK(coord_reconciler_add_after(r, "3", 1, 3600000, NULL, &err));
    coord_work_t *work = next(r, "1", 1);
    FAILS(COORD_E_TIMEOUT, coord_reconciler_drain(r, 0, NULL, &err));
    OK(coord_reconciler_drain_start(r, WAIT_MS, queue, 1, NULL, &err));
    FAILS(COORD_E_CLOSED, coord_reconciler_add(r, "4", 1, NULL, &err));
    EQUAL(coord_work_is_cancelled(work), 0);
    done(work);
    expect_no_event(queue);
    done(next(r, "2", 1));
    expect(queue, COORD_EVENT_DONE, 1, COORD_OK);
    FAILS(COORD_E_CLOSED, coord_reconciler_next(r, WAIT_MS, NULL, &none, &err));
    OK(coord_reconciler_drain(r, WAIT_MS, NULL, &err));
    OK(coord_reconciler_close(r, WAIT_MS, NULL, &err));
    coord_reconciler_destroy(r);

    /* Closing asks what runs to stop, and waits for it. */
    r = manual("r", 1, COORD_FORMAT_JSON);
    add(r, "1");
    add(r, "2");
    work = next(r, "1", 1);
    FAILS(COORD_E_TIMEOUT, coord_reconciler_close(r, 0, NULL, &err));
    OK(coord_work_wait_cancelled(work, WAIT_MS, NULL, &err));
    FAILS(COORD_E_CANCELLED, coord_work_check(work, &err));
    OK(coord_reconciler_close_start(r, WAIT_MS, queue, 2, NULL, &err));
    expect_no_event(queue);
    done(work);
    expect(queue, COORD_EVENT_DONE, 2, COORD_OK);
    OK(coord_reconciler_close(r, WAIT_MS, NULL, &err));
    FAILS(COORD_E_CLOSED, coord_reconciler_next(r, WAIT_MS, NULL, &none, &err));
    FAILS(COORD_E_CLOSED, coord_reconciler_wait_until_reconciled(r, "2", 1, 0, WAIT_MS, NULL, &err));
    coord_reconciler_destroy(r);

    /* Destroying the handle ends what waits on it, and asks its runs to stop. */
    r = manual("r", 2, COORD_FORMAT_JSON);
    add(r, "1");
    work = next(r, "1", 1);
    OK(coord_reconciler_next_start(r, queue, 3, NULL, &err));
    coord_reconciler_destroy(r);
    expect(queue, COORD_EVENT_WORK, 3, COORD_E_CLOSED);
    OK(coord_work_wait_cancelled(work, WAIT_MS, NULL, &err));
    done(work);
    EQUAL(coord_work_attempt(work), 0);

    /* So does the end of the queue that its runs come to: the key comes again. */
    r = manual("r", 1, COORD_FORMAT_JSON);
    coord_queue_t *own = new_queue();
    OK(coord_reconciler_next_start(r, own, 4, NULL, &err));
    add(r, "1");
    EVENTUALLY(stat(r, COORD_RECONCILER_STAT_IN_FLIGHT) == 1);
    coord_queue_destroy(own);
    done(next(r, "1", 2));
    coord_reconciler_destroy(r);
}

static void in_bson(void) {
    static const char key[] = "\x10\x00\x00\x00\x02_id\x00\x02\x00\x00\x00x\x00\x00";
    coord_reconciler_t *r = manual("r", 1, COORD_FORMAT_BSON);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_reconciler_add(r, "\"x\"", COORD_NUL, NULL, &err));
    OK(coord_reconciler_add(r, key, sizeof key - 1, NULL, &err));
    coord_work_t *work = NULL;
    OK(coord_reconciler_next(r, WAIT_MS, NULL, &work, &err));
    EQUAL(coord_work_key_length(work), sizeof key - 1);
    EQUAL(memcmp(coord_work_key(work), key, sizeof key), 0);
    done(work);
    coord_reconciler_destroy(r);
}

int main(void) {
    client = connect_as("client");
    queue = new_queue();
    runs_and_outcomes();
    plans_and_cancels();
    ends();
    in_bson();
    expect_no_event(queue);
    coord_queue_destroy(queue);
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    return 0;
}
