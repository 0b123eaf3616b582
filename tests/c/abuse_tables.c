/* Bad input through every entry point of tables: as abuse.c. */
#include "abuse.h"

static coord_client_t *client;
static coord_queue_t *queue;
static coord_event_t *event;
static coord_held_t *held;
static coord_fence_t *fence;
static coord_table_t *table, *bson;
static coord_written_t *written;
static coord_stored_t *stored;
static coord_stored_list_t *list;
static coord_cursor_t *cursor;
static coord_table_watch_t *watch;
static coord_delivery_t *delivery;
static coord_table_log_t *table_log;
static coord_log_entry_t *entry;
static coord_cached_table_t *cached;

static coord_table_t *new_table = UNTOUCHED;
static coord_fence_t *new_fence = UNTOUCHED;
static coord_written_t *new_written = UNTOUCHED;
static coord_stored_t *new_stored = UNTOUCHED;
static coord_stored_list_t *new_list = UNTOUCHED;
static coord_cursor_t *new_cursor = UNTOUCHED;
static coord_table_watch_t *new_watch = UNTOUCHED;
static coord_delivery_t *new_delivery = UNTOUCHED;
static coord_table_log_t *new_log = UNTOUCHED;
static coord_log_entry_t *new_entry = UNTOUCHED;
static coord_cached_table_t *new_cached = UNTOUCHED;
static coord_op_t *new_op = UNTOUCHED;
static uint64_t number = 77;

#define PUT COORD_WRITE_PUT

/* Every function that takes this handle, as its first argument. */
#define WITH_TABLE(code, h, limit, cancel) \
    FAILS(code, coord_table_write(h, PUT, "1", 1, "{}", 2, NULL, NULL, limit, cancel, &new_written, &err)); \
    FAILS(code, coord_table_write_many(h, COORD_WRITE_DELETE, NULL, 0, NULL, 0, NULL, limit, cancel, &number, &number, &err)); \
    FAILS(code, coord_table_get(h, "1", 1, limit, cancel, &new_stored, &err)); \
    FAILS(code, coord_table_find(h, NULL, 0, NULL, limit, cancel, &new_cursor, &err)); \
    FAILS(code, coord_table_aggregate(h, "[]", 2, limit, cancel, &new_cursor, &err)); \
    FAILS(code, coord_table_count(h, NULL, 0, limit, cancel, &number, &err)); \
    FAILS(code, coord_table_ensure_indexes(h, "[]", 2, limit, cancel, &err)); \
    FAILS(code, coord_table_configure(h, NULL, limit, cancel, &err)); \
    FAILS(code, coord_table_drop(h, limit, cancel, &err)); \
    FAILS(code, coord_table_health(h, limit, cancel, &err)); \
    FAILS(code, coord_table_log(h, COORD_LOG_FROM_NOW, 0, limit, cancel, &new_log, &err)); \
    FAILS(code, coord_cached_table_open(h, NULL, 0, NULL, limit, cancel, &new_cached, &err))

#define START_WITH_TABLE(code, h, limit, queue) \
    FAILS(code, coord_table_write_start(h, PUT, "1", 1, "{}", 2, NULL, NULL, limit, queue, 1, &new_op, &err)); \
    FAILS(code, coord_table_write_many_start(h, COORD_WRITE_DELETE, NULL, 0, NULL, 0, NULL, limit, queue, 1, &new_op, &err)); \
    FAILS(code, coord_table_get_start(h, "1", 1, limit, queue, 1, &new_op, &err)); \
    FAILS(code, coord_table_find_start(h, NULL, 0, NULL, limit, queue, 1, &new_op, &err)); \
    FAILS(code, coord_table_aggregate_start(h, "[]", 2, limit, queue, 1, &new_op, &err)); \
    FAILS(code, coord_table_count_start(h, NULL, 0, limit, queue, 1, &new_op, &err)); \
    FAILS(code, coord_table_ensure_indexes_start(h, "[]", 2, limit, queue, 1, &new_op, &err)); \
    FAILS(code, coord_table_configure_start(h, NULL, limit, queue, 1, &new_op, &err)); \
    FAILS(code, coord_table_drop_start(h, limit, queue, 1, &new_op, &err)); \
    FAILS(code, coord_table_health_start(h, limit, queue, 1, &new_op, &err)); \
    FAILS(code, coord_table_log_start(h, COORD_LOG_FROM_NOW, 0, limit, queue, 1, &new_op, &err)); \
    FAILS(code, coord_cached_table_open_start(h, NULL, 0, NULL, limit, queue, 1, &new_op, &err))

#define WITH_CACHED(code, h, limit, cancel) \
    FAILS(code, coord_cached_table_get_fresh(h, "1", 1, limit, cancel, &new_stored, &err)); \
    FAILS(code, coord_cached_table_write(h, PUT, "1", 1, "{}", 2, NULL, NULL, limit, cancel, &new_written, &err)); \
    FAILS(code, coord_cached_table_wait_until(h, UINT64_MAX, limit, cancel, &err))

#define START_WITH_CACHED(code, h, limit, queue) \
    FAILS(code, coord_cached_table_get_fresh_start(h, "1", 1, limit, queue, 1, &new_op, &err)); \
    FAILS(code, coord_cached_table_write_start(h, PUT, "1", 1, "{}", 2, NULL, NULL, limit, queue, 1, &new_op, &err)); \
    FAILS(code, coord_cached_table_wait_until_start(h, UINT64_MAX, limit, queue, 1, &new_op, &err))

#define READ_CACHED(code, h) \
    FAILS(code, coord_cached_table_get(h, "1", 1, &new_stored, &err)); \
    FAILS(code, coord_cached_table_find(h, NULL, 0, NULL, &new_list, &err)); \
    FAILS(code, coord_cached_table_count(h, NULL, 0, &number, &err)); \
    EQUAL(coord_cached_table_position(h), 0); \
    EQUAL(coord_cached_table_is_synced(h), 0); \
    EQUAL(coord_cached_table_bytes(h), 0)

#define WITH_WRITTEN(h) \
    SAME_TEXT(coord_written_document(h), ""); \
    EQUAL(coord_written_document_length(h), 0); \
    EQUAL(coord_written_has_revision(h), 0); \
    EQUAL(coord_written_revision(h), 0); \
    EQUAL(coord_written_position(h), 0); \
    EQUAL(coord_written_created(h), 0)

#define WITH_STORED(h) \
    SAME_TEXT(coord_stored_key(h), ""); \
    EQUAL(coord_stored_key_length(h), 0); \
    SAME_TEXT(coord_stored_document(h), ""); \
    EQUAL(coord_stored_document_length(h), 0); \
    EQUAL(coord_stored_has_revision(h), 0); \
    EQUAL(coord_stored_revision(h), 0)

#define WITH_DELIVERY(h) \
    EQUAL(coord_delivery_type(h), COORD_TABLE_NONE); \
    SAME_TEXT(coord_delivery_key(h), ""); \
    EQUAL(coord_delivery_key_length(h), 0); \
    SAME_TEXT(coord_delivery_document(h), ""); \
    EQUAL(coord_delivery_document_length(h), 0); \
    SAME_TEXT(coord_delivery_previous(h), ""); \
    EQUAL(coord_delivery_previous_length(h), 0); \
    EQUAL(coord_delivery_has_revision(h), 0); \
    EQUAL(coord_delivery_revision(h), 0); \
    EQUAL(coord_delivery_position(h), 0); \
    EQUAL(coord_delivery_failures(h), 0)

#define WITH_ENTRY(h) \
    SAME_TEXT(coord_log_entry_source(h), ""); \
    EQUAL(coord_log_entry_operation(h), COORD_OPERATION_NONE); \
    EQUAL(coord_log_entry_at_ms(h), 0); \
    SAME_TEXT(coord_log_entry_key(h), ""); \
    EQUAL(coord_log_entry_key_length(h), 0); \
    EQUAL(coord_log_entry_changed_count(h), 0); \
    SAME_TEXT(coord_log_entry_changed_at(h, 0), ""); \
    EQUAL(coord_log_entry_has_revision(h), 0); \
    EQUAL(coord_log_entry_revision(h), 0); \
    EQUAL(coord_log_entry_position(h), 0)

#define WITH_EVENT(code, h) \
    FAILS(code, coord_event_take_written(h, &new_written, &err)); \
    FAILS(code, coord_event_take_many_written(h, &number, &number, &err)); \
    FAILS(code, coord_event_take_stored(h, &new_stored, &err)); \
    FAILS(code, coord_event_take_stored_list(h, &new_list, &err)); \
    FAILS(code, coord_event_take_cursor(h, &new_cursor, &err)); \
    FAILS(code, coord_event_take_number(h, &number, &err)); \
    FAILS(code, coord_event_take_delivery(h, &new_delivery, &err)); \
    FAILS(code, coord_event_take_table_log(h, &new_log, &err)); \
    FAILS(code, coord_event_take_log_entry(h, &new_entry, &err)); \
    FAILS(code, coord_event_take_cached_table(h, &new_cached, &err))

#define AS_OPTIONS(code, h) \
    FAILS(code, coord_table_find(table, NULL, 0, h, WAIT_MS, NULL, &new_cursor, &err)); \
    FAILS(code, coord_table_find_start(table, NULL, 0, h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_table_configure(table, h, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_table_watch(table, NULL, 0, NULL, h, &new_watch, &err)); \
    FAILS(code, coord_cached_table_open(table, NULL, 0, h, WAIT_MS, NULL, &new_cached, &err)); \
    FAILS(code, coord_cached_table_find(cached, NULL, 0, h, &new_list, &err))

/* Everything that reads a document, an update or a filter. */
#define AS_DOCUMENT(code, t, text, length) \
    FAILS(code, coord_table_write(t, PUT, "1", 1, text, length, NULL, NULL, WAIT_MS, NULL, &new_written, &err)); \
    FAILS(code, coord_table_write(t, COORD_WRITE_UPDATE, "1", 1, text, length, NULL, NULL, WAIT_MS, NULL, &new_written, &err)); \
    FAILS(code, coord_table_write_many(t, COORD_WRITE_UPDATE, NULL, 0, text, length, NULL, WAIT_MS, NULL, &number, NULL, &err)); \
    FAILS(code, coord_table_write_start(t, COORD_WRITE_LOCATE, "1", 1, text, length, NULL, NULL, WAIT_MS, queue, 1, &new_op, &err))

#define AS_FILTER(code, t, text, length) \
    FAILS(code, coord_table_find(t, text, length, NULL, WAIT_MS, NULL, &new_cursor, &err)); \
    FAILS(code, coord_table_find_start(t, text, length, NULL, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_table_count(t, text, length, WAIT_MS, NULL, &number, &err)); \
    FAILS(code, coord_table_count_start(t, text, length, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_table_write_many(t, COORD_WRITE_DELETE, text, length, NULL, 0, NULL, WAIT_MS, NULL, &number, NULL, &err)); \
    FAILS(code, coord_table_watch(t, text, length, NULL, NULL, &new_watch, &err)); \
    FAILS(code, coord_cached_table_open(t, text, length, NULL, WAIT_MS, NULL, &new_cached, &err)); \
    FAILS(code, coord_cached_table_find(cached, text, length, NULL, &new_list, &err)); \
    FAILS(code, coord_cached_table_count(cached, text, length, &number, &err))

#define AS_KEY(code, t, text, length) \
    FAILS(code, coord_table_write(t, COORD_WRITE_DELETE, text, length, NULL, 0, NULL, NULL, WAIT_MS, NULL, &new_written, &err)); \
    FAILS(code, coord_table_get(t, text, length, WAIT_MS, NULL, &new_stored, &err)); \
    FAILS(code, coord_table_get_start(t, text, length, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_cached_table_get(cached, text, length, &new_stored, &err)); \
    FAILS(code, coord_cached_table_get_fresh(cached, text, length, WAIT_MS, NULL, &new_stored, &err)); \
    FAILS(code, coord_cached_table_write(cached, PUT, text, length, "{}", 2, NULL, NULL, WAIT_MS, NULL, &new_written, &err))

static void destroy_everything_as(const void *h) {
    if (h != fence) coord_fence_destroy((coord_fence_t *)h);
    if (h != table) coord_table_destroy((coord_table_t *)h);
    if (h != written) coord_written_destroy((coord_written_t *)h);
    if (h != stored) coord_stored_destroy((coord_stored_t *)h);
    if (h != list) coord_stored_list_destroy((coord_stored_list_t *)h);
    if (h != cursor) coord_cursor_destroy((coord_cursor_t *)h);
    if (h != watch) coord_table_watch_destroy((coord_table_watch_t *)h);
    if (h != delivery) coord_delivery_destroy((coord_delivery_t *)h);
    if (h != table_log) coord_table_log_destroy((coord_table_log_t *)h);
    if (h != entry) coord_log_entry_destroy((coord_log_entry_t *)h);
    if (h != cached) coord_cached_table_destroy((coord_cached_table_t *)h);
}

static void abuse_everything_with(const void *bad) {
    coord_status_t code = COORD_E_HANDLE;
    if (bad != client) { FAILS(code, coord_table_new((coord_client_t *)bad, "t", 1, COORD_FORMAT_JSON, &new_table, &err)); }
    if (bad != held) { FAILS(code, coord_held_fence((coord_held_t *)bad, 0, &new_fence, &err)); }
    FAILS(code, coord_term_fence((coord_term_t *)bad, 0, &new_fence, &err));
    if (bad != table) {
        WITH_TABLE(code, (coord_table_t *)bad, WAIT_MS, NULL);
        START_WITH_TABLE(code, (coord_table_t *)bad, WAIT_MS, queue);
        FAILS(code, coord_table_watch((coord_table_t *)bad, NULL, 0, NULL, NULL, &new_watch, &err));
        SAME_TEXT(coord_table_name((const coord_table_t *)bad), "");
    }
    if (bad != cached) {
        WITH_CACHED(code, (coord_cached_table_t *)bad, WAIT_MS, NULL);
        START_WITH_CACHED(code, (coord_cached_table_t *)bad, WAIT_MS, queue);
        READ_CACHED(code, (coord_cached_table_t *)bad);
    }
    if (bad != cursor) {
        FAILS(code, coord_cursor_next((coord_cursor_t *)bad, 1, WAIT_MS, NULL, &new_list, &err));
        FAILS(code, coord_cursor_next_start((coord_cursor_t *)bad, 1, WAIT_MS, queue, 1, &new_op, &err));
    }
    if (bad != watch) {
        FAILS(code, coord_table_watch_next((coord_table_watch_t *)bad, WAIT_MS, NULL, &new_delivery, &err));
        FAILS(code, coord_table_watch_next_start((coord_table_watch_t *)bad, queue, 1, &new_op, &err));
        FAILS(code, coord_table_watch_close((coord_table_watch_t *)bad, &err));
    }
    if (bad != table_log) {
        FAILS(code, coord_table_log_next((coord_table_log_t *)bad, WAIT_MS, NULL, &new_entry, &err));
        FAILS(code, coord_table_log_next_start((coord_table_log_t *)bad, queue, 1, &new_op, &err));
        FAILS(code, coord_table_log_close((coord_table_log_t *)bad, &err));
    }
    if (bad != delivery) {
        FAILS(code, coord_delivery_done((coord_delivery_t *)bad, NULL, 0, &err));
        WITH_DELIVERY((const coord_delivery_t *)bad);
    }
    if (bad != list) {
        EQUAL(coord_stored_list_count((const coord_stored_list_t *)bad), 0);
        CHECK(coord_stored_list_at((const coord_stored_list_t *)bad, 0) == NULL);
    }
    if (bad != written) { WITH_WRITTEN((const coord_written_t *)bad); }
    if (bad != stored) { WITH_STORED((const coord_stored_t *)bad); }
    if (bad != entry) { WITH_ENTRY((const coord_log_entry_t *)bad); }
    if (bad != event) { WITH_EVENT(code, (coord_event_t *)bad); }
    if (bad != queue) {
        START_WITH_TABLE(code, table, WAIT_MS, (coord_queue_t *)bad);
        START_WITH_CACHED(code, cached, WAIT_MS, (coord_queue_t *)bad);
    }
    if (bad != NULL) {
        AS_OPTIONS(code, (coord_options_t *)bad);
        WITH_TABLE(code, table, WAIT_MS, (coord_cancel_t *)bad);
        WITH_CACHED(code, cached, WAIT_MS, (coord_cancel_t *)bad);
    }
    if (bad != NULL && bad != fence) {
        const coord_fence_t *none = bad;
        FAILS(code, coord_table_write(table, PUT, "1", 1, "{}", 2, NULL, none, WAIT_MS, NULL, &new_written, &err));
        FAILS(code, coord_table_write_many(table, COORD_WRITE_DELETE, NULL, 0, NULL, 0, none, WAIT_MS, NULL, &number, NULL, &err));
        FAILS(code, coord_cached_table_write(cached, PUT, "1", 1, "{}", 2, NULL, none, WAIT_MS, NULL, &new_written, &err));
    }
    destroy_everything_as(bad);
}

static void abuse_name(const char *bad, size_t length) {
    FAILS(COORD_E_INVALID_ARGUMENT, coord_table_new(client, bad, length, COORD_FORMAT_JSON, &new_table, &err));
}

static void abuse_unreadable(const char *bad, size_t length) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    abuse_name(bad, length);
    FAILS(code, coord_delivery_done(delivery, bad, length, &err));
    if (length != COORD_NUL && length > (size_t)1 << 32) {
        AS_DOCUMENT(code, bson, bad, length);
        AS_FILTER(code, bson, bad, length);
        AS_KEY(code, bson, bad, length);
        coord_options_t *options = NULL;
        OK(coord_options_new(&options, &err));
        FAILS(code, coord_options_set_document(options, "sort", COORD_NUL, bad, length, &err));
        FAILS(code, coord_options_set_document(options, bad, length, "{}", 2, &err));
        coord_options_destroy(options);
        return;
    }
    AS_DOCUMENT(code, table, bad, length);
    AS_FILTER(code, table, bad, length);
    AS_KEY(code, table, bad, length);
}

static void abuse_documents(void) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    static const char *const none[] = {"", "{", "[]", "1", "null", "\"a\"", "{} {}", "{a:1}", "{\"a\":{\"$oid\":\"x\"}}", "{\"a\":1e999}"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        AS_DOCUMENT(code, table, none[i], COORD_NUL);
        AS_FILTER(code, table, none[i], COORD_NUL);
        AS_DOCUMENT(code, bson, none[i], strlen(none[i]));
    }
    for (int32_t action = COORD_WRITE_INSERT; action <= COORD_WRITE_REPLACE; action++) {
        FAILS(code, coord_table_write(table, action, "9", 1, "{\"_fence\":1}", COORD_NUL, NULL, NULL, WAIT_MS, NULL, &new_written, &err));
    }
    AS_FILTER(code, table, "{\"$or\":1}", COORD_NUL);
    AS_FILTER(code, table, "{\"a\":{\"$in\":3}}", COORD_NUL);
    static const char *const keys[] = {"", "1.5", "null", "true", "[1]", "ann", "{\"$a\":1}", "{\"$numberDouble\":\"NaN\"}"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) { AS_KEY(code, table, keys[i], COORD_NUL); }
    AS_KEY(code, table, NULL, 0);
    AS_KEY(code, bson, "\5\0\0\0\0", 5);                       /* {} */
    AS_KEY(code, bson, "\x0c\0\0\0\x10" "a\0\1\0\0\0\0", 12);  /* {a: 1} */
    static char long_key[1100];
    memset(long_key, 'k', sizeof long_key);
    long_key[0] = long_key[sizeof long_key - 1] = '"';
    AS_KEY(code, table, long_key, sizeof long_key);
    FAILS(code, coord_table_write(table, PUT, "1", 1, "{\"_id\":2}", COORD_NUL, NULL, NULL, WAIT_MS, NULL, &new_written, &err));
    FAILS(code, coord_table_write(table, PUT, "1", 1, NULL, 0, NULL, NULL, WAIT_MS, NULL, &new_written, &err));
    FAILS(code, coord_table_write(table, PUT, "1", 1, "{}", 2, &number, NULL, WAIT_MS, NULL, &new_written, &err));
    FAILS(code, coord_table_write(table, COORD_WRITE_DELETE, "1", 1, "{}", 2, NULL, NULL, WAIT_MS, NULL, &new_written, &err));
    FAILS(code, coord_table_write_many(table, PUT, NULL, 0, "{}", 2, NULL, WAIT_MS, NULL, &number, NULL, &err));
    FAILS(code, coord_table_write_many(table, COORD_WRITE_DELETE, NULL, 0, "{}", 2, NULL, WAIT_MS, NULL, &number, NULL, &err));
    FAILS(code, coord_table_write(table, 0, "1", 1, "{}", 2, NULL, NULL, WAIT_MS, NULL, &new_written, &err));
    FAILS(code, coord_table_write(table, 8, "1", 1, "{}", 2, NULL, NULL, WAIT_MS, NULL, &new_written, &err));
    FAILS(code, coord_table_write(table, INT32_MIN, "1", 1, "{}", 2, NULL, NULL, WAIT_MS, NULL, &new_written, &err));
    static const char *const indexes[] = {"{}", "[1]", "[{\"field\":{\"a\":1}}]", "[{\"fields\":{\"a\":2}}]", "[{\"fields\":[\"a\"]}]",
                                          "[{\"fields\":{\"a\":1},\"expire_after_s\":-1}]", "[{\"fields\":{\"a\":1},\"unique\":1}]", "[{}]"};
    for (size_t i = 0; i < sizeof indexes / sizeof *indexes; i++) {
        FAILS(code, coord_table_ensure_indexes(table, indexes[i], COORD_NUL, WAIT_MS, NULL, &err));
    }
    FAILS(code, coord_table_aggregate(table, "{}", 2, WAIT_MS, NULL, &new_cursor, &err));
    FAILS(code, coord_table_log(table, 3, 0, WAIT_MS, NULL, &new_log, &err));
    FAILS(code, coord_table_log(table, COORD_LOG_FROM_TIME, UINT64_MAX, WAIT_MS, NULL, &new_log, &err));
    FAILS(code, coord_cursor_next(cursor, 0, WAIT_MS, NULL, &new_list, &err));
    FAILS(code, coord_table_new(client, "t", 1, 2, &new_table, &err));
    FAILS(code, coord_table_new(client, "t", 1, -1, &new_table, &err));
    FAILS(code, coord_held_fence(held, 2, &new_fence, &err));
}

static void abuse_options(void) {
    coord_options_t *bad = NULL;
    OK(coord_options_new(&bad, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_options_set_document(bad, "sort", COORD_NUL, NULL, 0, &err));
    FAILS(COORD_E_HANDLE, coord_options_set_document(NULL, "sort", COORD_NUL, "{}", 2, &err));
    OK(coord_options_set_number(bad, "bogus", COORD_NUL, 1, &err));
    AS_OPTIONS(COORD_E_INVALID_ARGUMENT, bad);
    coord_options_destroy(bad);
    static const char *const documents[] = {"sort", "projection"}, *const numbers[] = {"skip", "limit"};
    for (size_t i = 0; i < 2; i++) {
        OK(coord_options_new(&bad, &err));
        OK(coord_options_set_document(bad, documents[i], COORD_NUL, "{\"a\":\"b\",\"c\":0,\"d\":1}", COORD_NUL, &err));
        FAILS(COORD_E_INVALID_ARGUMENT, coord_table_find(table, NULL, 0, bad, WAIT_MS, NULL, &new_cursor, &err));
        OK(coord_options_set_text(bad, documents[i], COORD_NUL, "{}", COORD_NUL, &err));
        AS_OPTIONS(COORD_E_INVALID_ARGUMENT, bad);
        coord_options_destroy(bad);
        OK(coord_options_new(&bad, &err));
        OK(coord_options_set_number(bad, numbers[i], COORD_NUL, -1, &err));
        AS_OPTIONS(COORD_E_INVALID_ARGUMENT, bad);
        coord_options_destroy(bad);
    }
    OK(coord_options_new(&bad, &err));
    OK(coord_options_set_number(bad, "previous", COORD_NUL, 2, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_table_watch(table, NULL, 0, NULL, bad, &new_watch, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_table_configure_start(table, bad, WAIT_MS, queue, 1, &new_op, &err));
    coord_options_destroy(bad);
}

static void abuse_out_parameters(void) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_table_new(client, "t", 1, COORD_FORMAT_JSON, NULL, &err));
    FAILS(code, coord_held_fence(held, 0, NULL, &err));
    FAILS(code, coord_term_fence(NULL, 0, NULL, &err));
    FAILS(code, coord_table_get(table, "1", 1, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_table_find(table, NULL, 0, NULL, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_table_aggregate(table, "[]", 2, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_table_count(table, NULL, 0, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_cursor_next(cursor, 1, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_table_watch(table, NULL, 0, NULL, NULL, NULL, &err));
    FAILS(code, coord_table_watch_next(watch, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_table_log(table, COORD_LOG_FROM_NOW, 0, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_table_log_next(table_log, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_cached_table_open(table, NULL, 0, NULL, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_cached_table_get(cached, "1", 1, NULL, &err));
    FAILS(code, coord_cached_table_get_fresh(cached, "1", 1, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_cached_table_find(cached, NULL, 0, NULL, NULL, &err));
    FAILS(code, coord_cached_table_count(cached, NULL, 0, NULL, &err));
    FAILS(code, coord_event_take_written(event, NULL, &err));
    FAILS(code, coord_event_take_stored(event, NULL, &err));
    FAILS(code, coord_event_take_stored_list(event, NULL, &err));
    FAILS(code, coord_event_take_cursor(event, NULL, &err));
    FAILS(code, coord_event_take_number(event, NULL, &err));
    FAILS(code, coord_event_take_delivery(event, NULL, &err));
    FAILS(code, coord_event_take_table_log(event, NULL, &err));
    FAILS(code, coord_event_take_log_entry(event, NULL, &err));
    FAILS(code, coord_event_take_cached_table(event, NULL, &err));
}

static void abuse_timeouts(int64_t bad) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    WITH_TABLE(code, table, bad, NULL);
    START_WITH_TABLE(code, table, bad, queue);
    WITH_CACHED(code, cached, bad, NULL);
    START_WITH_CACHED(code, cached, bad, queue);
    FAILS(code, coord_cursor_next(cursor, 1, bad, NULL, &new_list, &err));
    FAILS(code, coord_cursor_next_start(cursor, 1, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_table_watch_next(watch, bad, NULL, &new_delivery, &err));
    FAILS(code, coord_table_log_next(table_log, bad, NULL, &new_entry, &err));
}

static void check_untouched(void) {
    CHECK(new_table == UNTOUCHED && new_fence == UNTOUCHED && new_written == UNTOUCHED && new_stored == UNTOUCHED);
    CHECK(new_list == UNTOUCHED && new_cursor == UNTOUCHED && new_watch == UNTOUCHED && new_delivery == UNTOUCHED);
    CHECK(new_log == UNTOUCHED && new_entry == UNTOUCHED && new_cached == UNTOUCHED && new_op == UNTOUCHED);
    EQUAL(number, 77);
    expect_no_event(queue);
}

int main(void) {
    client = connect_as("client");
    queue = new_queue();
    coord_lock_t *lock = lock_of(client, "a");
    held = acquire(lock);
    OK(coord_held_fence(held, 0, &fence, &err));
    OK(coord_table_new(client, "t", 1, COORD_FORMAT_JSON, &table, &err));
    OK(coord_table_new(client, "t", 1, COORD_FORMAT_BSON, &bson, &err));
    OK(coord_table_log(table, COORD_LOG_FROM_NOW, 0, WAIT_MS, NULL, &table_log, &err));
    OK(coord_table_write(table, PUT, "1", 1, "{}", 2, NULL, fence, WAIT_MS, NULL, &written, &err));
    OK(coord_table_log_next(table_log, WAIT_MS, NULL, &entry, &err));
    OK(coord_table_get(table, "1", 1, WAIT_MS, NULL, &stored, &err));
    OK(coord_table_find(table, NULL, 0, NULL, WAIT_MS, NULL, &cursor, &err));
    OK(coord_cursor_next(cursor, 1, WAIT_MS, NULL, &list, &err));
    OK(coord_table_watch(table, NULL, 0, NULL, NULL, &watch, &err));
    OK(coord_table_watch_next(watch, WAIT_MS, NULL, &delivery, &err));
    OK(coord_cached_table_open(table, NULL, 0, NULL, WAIT_MS, NULL, &cached, &err));
    OK(coord_client_health_start(client, WAIT_MS, queue, 5, NULL, &err));
    event = expect_event(queue, COORD_EVENT_DONE, 5, COORD_OK);

    with_made_up_handles(abuse_everything_with, table);
    const void *handles[] = {client, queue,  event, lock,  held,     fence,     table, written,
                             stored, list, cursor, watch, delivery, table_log, entry, cached};
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) abuse_everything_with(handles[i]);
    coord_table_t *old = NULL;
    OK(coord_table_new(client, "t", 1, COORD_FORMAT_JSON, &old, &err));
    coord_table_destroy(old);
    abuse_everything_with(old);
    WITH_EVENT(COORD_E_NOT_FOUND, event);
    with_bad_names(abuse_name);
    abuse_name(NULL, 0);
    abuse_name("a.system.b", COORD_NUL);
    with_unreadable_texts(abuse_unreadable);
    abuse_documents();
    abuse_options();
    abuse_out_parameters();
    abuse_timeouts(-2);
    abuse_timeouts(INT64_MIN);
    CHECK(coord_stored_list_at(list, SIZE_MAX) == NULL);
    SAME_TEXT(coord_log_entry_changed_at(entry, SIZE_MAX), "");
    check_untouched();

    /* Everything is as it was. */
    SAME_TEXT(coord_table_name(table), "t");
    SAME_TEXT(coord_stored_document(stored), "{\"_id\":1}");
    SAME_TEXT(coord_stored_key(coord_stored_list_at(list, 0)), "1");
    EQUAL(coord_written_created(written), 1);
    EQUAL(coord_delivery_type(delivery), COORD_TABLE_INIT);
    OK(coord_delivery_done(delivery, NULL, 0, &err));
    EQUAL(coord_log_entry_operation(entry), COORD_OPERATION_INSERT);
    OK(coord_cached_table_count(cached, NULL, 0, &number, &err));
    EQUAL(number, 1);

    coord_event_destroy(event);
    coord_cached_table_destroy(cached);
    coord_log_entry_destroy(entry);
    coord_table_log_destroy(table_log);
    coord_delivery_destroy(delivery);
    coord_table_watch_destroy(watch);
    coord_cursor_destroy(cursor);
    coord_stored_list_destroy(list);
    coord_stored_destroy(stored);
    coord_written_destroy(written);
    coord_table_destroy(bson);
    coord_table_destroy(table);
    coord_fence_destroy(fence);
    release(held);
    coord_lock_destroy(lock);
    coord_queue_destroy(queue);
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    return 0;
}
