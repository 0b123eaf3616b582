/* Services that come and go, locks that become free and documents that change are keys; who leads, or holds a key's
 * shard, runs it, and what was run under a right that is lost does not count. */
#include "test.h"

static coord_client_t *a, *b;
static coord_queue_t *queue;

static coord_reconciler_t *reconcile(coord_client_t *client, coord_source_t *source, const char *mode, int64_t shards) {
    coord_options_t *options = NULL;
    coord_reconciler_t *reconciler = NULL;
    OK(coord_options_new(&options, &err));
    OK(coord_options_set_text(options, "mode", COORD_NUL, mode, COORD_NUL, &err));
    if (shards > 0) OK(coord_options_set_number(options, "shards", COORD_NUL, shards, &err));
    OK(coord_client_reconcile_start(client, "r", 1, source, COORD_FORMAT_JSON, options, WAIT_MS, queue, 1, NULL, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_RECONCILER, 1, COORD_OK);
    OK(coord_event_take_reconciler(event, &reconciler, &err));
    FAILS(COORD_E_NOT_FOUND, coord_event_take_reconciler(event, &reconciler, &err));
    coord_event_destroy(event);
    coord_options_destroy(options);
    coord_source_destroy(source);
    return reconciler;
}

static coord_work_t *next(coord_reconciler_t *reconciler, const char *key) {
    coord_work_t *work = NULL;
    OK(coord_reconciler_next(reconciler, WAIT_MS, NULL, &work, &err));
    SAME_TEXT(coord_work_key(work), key);
    return work;
}

static void done(coord_work_t *work) {
    OK(coord_work_complete(work, COORD_OUTCOME_DONE, 0, NULL, 0, &err));
    coord_work_destroy(work);
}

static void nothing_now(coord_reconciler_t *reconciler) {
    coord_work_t *none = NULL;
    FAILS(COORD_E_TIMEOUT, coord_reconciler_next(reconciler, 0, NULL, &none, &err));
}

static size_t shards_of(coord_reconciler_t *reconciler) {
    coord_reconciler_stats_t *stats = NULL;
    OK(coord_reconciler_stats(reconciler, &stats, &err));
    size_t count = coord_reconciler_stats_shard_count(stats);
    coord_reconciler_stats_destroy(stats);
    return count;
}

static coord_provider_t *provide(const char *service, const char *metadata) {
    coord_provider_t *provider = NULL;
    OK(coord_client_provide(b, service, COORD_NUL, metadata, COORD_NUL, NULL, WAIT_MS, NULL, &provider, &err));
    return provider;
}

static void services(void) {
    coord_provider_t *there = provide("svc/there", "v1");
    coord_source_t *source = NULL;
    OK(coord_source_observer("svc/*", COORD_NUL, &source, &err));
    coord_reconciler_t *r = reconcile(a, source, "all", 0);
    coord_work_t *work = next(r, "\"default/svc/there\"");
    EQUAL(coord_work_has_document(work), 1);
    const char *document = coord_work_document(work);
    EQUAL(coord_work_document_length(work), strlen(document));
    CHECK(strstr(document, "\"service\":\"default/svc/there\"") != NULL);
    CHECK(strstr(document, "\"metadata\":\"v1\"") != NULL);
    EQUAL(coord_work_has_revision(work), 0);
    done(work);
    OK(coord_provider_close(there, WAIT_MS, NULL, &err));
    /* A provider that goes may be told of twice: that it has left, and that it was the last. */
    do {
        work = next(r, "\"default/svc/there\"");
        int32_t has = coord_work_has_document(work);
        done(work);
        if (!has) break;
    } while (1);
    coord_provider_destroy(there);
    coord_reconciler_destroy(r);
}

static void locks(void) {
    coord_lock_t *early = lock_of(b, "res/early"), *late = lock_of(b, "res/late"), *other = lock_of(b, "other");
    release(acquire(early));
    coord_held_t *held = acquire(late);
    coord_source_t *source = NULL;
    OK(coord_source_released_locks("default/res/", COORD_NUL, &source, &err));
    coord_reconciler_t *r = reconcile(a, source, "all", 0);
    coord_work_t *work = next(r, "\"default/res/early\"");
    EQUAL(coord_work_has_document(work), 0);
    done(work);
    release(acquire(other));
    release(held);
    done(next(r, "\"default/res/late\""));
    nothing_now(r);
    coord_reconciler_destroy(r);
    coord_lock_destroy(early);
    coord_lock_destroy(late);
    coord_lock_destroy(other);
}

static coord_source_t *locks_of(const char *prefix) {
    coord_source_t *source = NULL;
    OK(coord_source_released_locks(prefix, COORD_NUL, &source, &err));
    return source;
}

static void hand_over(void) {
    coord_lock_t *lock = lock_of(a, "led/x");
    release(acquire(lock));
    coord_lock_destroy(lock);
    coord_reconciler_t *first = reconcile(a, locks_of("default/led/"), "leader", 0);
    coord_work_t *work = next(first, "\"default/led/x\"");
    int64_t token = coord_work_token(work);
    CHECK(token > 0);
    OK(coord_work_check(work, &err));
    coord_fence_t *fence = NULL;
    OK(coord_work_fence(work, 1, &fence, &err));
    coord_fence_destroy(fence);
    EQUAL(shards_of(first), 1);

    coord_reconciler_t *second = reconcile(b, locks_of("default/led/"), "leader", 0);
    FAILS(COORD_E_NOT_HELD, coord_reconciler_add(second, "\"default/led/x\"", COORD_NUL, NULL, &err));
    nothing_now(second);
    OK(coord_reconciler_close_start(first, WAIT_MS, queue, 2, NULL, &err));
    OK(coord_work_wait_cancelled(work, WAIT_MS, NULL, &err));
    nothing_now(second);
    expect_no_event(queue);
    done(work);
    expect(queue, COORD_EVENT_DONE, 2, COORD_OK);
    coord_reconciler_destroy(first);
    work = next(second, "\"default/led/x\"");
    CHECK(coord_work_token(work) > token);
    done(work);
    OK(coord_reconciler_close(second, WAIT_MS, NULL, &err));
    coord_reconciler_destroy(second);
}

static void shards(void) {
    coord_lock_t *lock = lock_of(b, "sharded/x");
    release(acquire(lock));
    coord_lock_destroy(lock);
    coord_reconciler_t *r = reconcile(a, locks_of("default/sharded/"), "sharded", 3);
    coord_work_t *work = next(r, "\"default/sharded/x\"");
    CHECK(coord_work_token(work) > 0);
    done(work);
    EVENTUALLY(shards_of(r) == 3);
    coord_reconciler_stats_t *stats = NULL;
    OK(coord_reconciler_stats(r, &stats, &err));
    for (size_t i = 0; i < 3; i++) EQUAL(coord_reconciler_stats_shard(stats, i), i);
    EQUAL(coord_reconciler_stats_shard(stats, 3), 0);
    coord_reconciler_stats_destroy(stats);
    coord_source_t *source = locks_of("default/sharded/");
    coord_options_t *options = NULL;
    coord_reconciler_t *none = NULL;
    OK(coord_options_new(&options, &err));
    OK(coord_options_set_text(options, "mode", COORD_NUL, "sharded", COORD_NUL, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_client_reconcile(b, "r", 1, source, COORD_FORMAT_JSON, options, WAIT_MS, NULL,
                                                           &none, &err));
    coord_options_destroy(options);
    coord_source_destroy(source);
    OK(coord_reconciler_close(r, WAIT_MS, NULL, &err));
    coord_reconciler_destroy(r);
}

/* The records of sharded reconcilers are a table, too. */
static void documents(void) {
    coord_table_t *table = NULL;
    coord_source_t *source = NULL;
    OK(coord_table_new(a, "reconcilers", COORD_NUL, COORD_FORMAT_BSON, &table, &err));
    OK(coord_source_table(table, NULL, 0, &source, &err));
    coord_table_destroy(table);
    coord_reconciler_t *r = reconcile(a, source, "all", 0);
    coord_work_t *work = next(r, "\"default/default/r\"");
    SAME_TEXT(coord_work_document(work), "{\"_id\":\"default/default/r\",\"shards\":3}");
    EQUAL(coord_work_document_length(work), strlen(coord_work_document(work)));
    EQUAL(coord_work_has_revision(work), 1);
    CHECK(coord_work_revision(work) > 0);
    done(work);
    OK(coord_reconciler_wait_until_reconciled(r, "\"default/default/r\"", COORD_NUL, 0, WAIT_MS, NULL, &err));
    coord_reconciler_destroy(r);

    OK(coord_table_new(a, "reconcilers", COORD_NUL, COORD_FORMAT_JSON, &table, &err));
    OK(coord_source_table(table, "{\"shards\":{\"$gt\":3}}", COORD_NUL, &source, &err));
    coord_table_destroy(table);
    r = reconcile(a, source, "all", 0);
    nothing_now(r);
    coord_reconciler_destroy(r);
}

/* In a test of a program a session is ended at will: what was run under it does not count. */
static void lost_leadership(void) {
    coord_control_t *control = NULL;
    if (coord_control_new(a, &control, NULL) != COORD_OK) return;
    coord_reconciler_t *r = reconcile(a, locks_of("default/led/"), "leader", 0);
    coord_work_t *work = next(r, "\"default/led/x\"");
    int64_t token = coord_work_token(work);
    coord_session_t *session = NULL;
    OK(coord_client_session(a, &session, &err));
    OK(coord_control_expire_session(control, coord_session_id(session), COORD_NUL, WAIT_MS, NULL, &err));
    coord_session_destroy(session);
    OK(coord_work_wait_cancelled(work, WAIT_MS, NULL, &err));
    EQUAL(coord_work_is_cancelled(work), 1);
    FAILS(COORD_E_FENCED, coord_work_check(work, &err));
    FAILS(COORD_E_FENCED, coord_work_complete(work, COORD_OUTCOME_DONE, 0, NULL, 0, &err));
    FAILS(COORD_E_NOT_HELD, coord_work_complete(work, COORD_OUTCOME_DONE, 0, NULL, 0, &err));
    coord_work_destroy(work);
    work = next(r, "\"default/led/x\"");
    CHECK(coord_work_token(work) > token);
    EQUAL(coord_work_attempt(work), 1);
    done(work);
    coord_reconciler_stats_t *stats = NULL;
    OK(coord_reconciler_stats(r, &stats, &err));
    EQUAL(coord_reconciler_stats_value(stats, COORD_RECONCILER_STAT_FENCED), 1);
    coord_reconciler_stats_destroy(stats);
    OK(coord_reconciler_close(r, WAIT_MS, NULL, &err));
    coord_reconciler_destroy(r);
    coord_control_destroy(control);
}

int main(void) {
    a = connect_as("a");
    b = connect_as("b");
    queue = new_queue();
    services();
    locks();
    hand_over();
    lost_leadership();
    shards();
    documents();
    expect_no_event(queue);
    coord_queue_destroy(queue);
    OK(coord_client_close(a, WAIT_MS, &err));
    OK(coord_client_close(b, WAIT_MS, &err));
    coord_client_destroy(a);
    coord_client_destroy(b);
    return 0;
}
