/* Watches of tables, with acknowledgement; the change log; tables with a copy in memory. */
#include "test.h"

static coord_client_t *client;
static coord_queue_t *queue;
static coord_table_t *table;

static uint64_t write_json(int32_t action, const char *key, const char *document) {
    coord_written_t *written = NULL;
    OK(coord_table_write(table, action, key, COORD_NUL, document, document == NULL ? 0 : COORD_NUL, NULL, NULL, WAIT_MS, NULL,
                         &written, &err));
    uint64_t position = coord_written_position(written);
    coord_written_destroy(written);
    return position;
}

static coord_delivery_t *next(coord_table_watch_t *watch, int32_t type, const char *key, const char *document) {
    coord_delivery_t *delivery = NULL;
    OK(coord_table_watch_next(watch, WAIT_MS, NULL, &delivery, &err));
    EQUAL(coord_delivery_type(delivery), type);
    SAME_TEXT(coord_delivery_key(delivery), key);
    SAME_TEXT(coord_delivery_document(delivery), document);
    EQUAL(coord_delivery_document_length(delivery), strlen(document));
    EQUAL(coord_delivery_key_length(delivery), strlen(key));
    return delivery;
}

static void done(coord_delivery_t *delivery) {
    OK(coord_delivery_done(delivery, NULL, 0, &err));
    FAILS(COORD_E_NOT_HELD, coord_delivery_done(delivery, NULL, 0, &err));
    coord_delivery_destroy(delivery);
}

static uint64_t watched(void) {
    write_json(COORD_WRITE_PUT, "1", "{\"n\":1}");
    write_json(COORD_WRITE_PUT, "2", "{\"n\":-1}");
    coord_table_watch_t *watch = NULL;
    OK(coord_table_watch(table, "{\"n\":{\"$gt\":0}}", COORD_NUL, NULL, NULL, &watch, &err));
    done(next(watch, COORD_TABLE_INIT, "", ""));
    done(next(watch, COORD_TABLE_INIT_APPLY, "1", "{\"_id\":1,\"n\":1}"));
    coord_delivery_t *delivery = next(watch, COORD_TABLE_INIT_DONE, "", "");
    uint64_t start = coord_delivery_position(delivery);
    CHECK(start > 0);
    done(delivery);

    /* What fails comes again, and nothing before it; also what is destroyed, or stays in its event. */
    write_json(COORD_WRITE_PUT, "1", "{\"n\":2}");
    uint64_t last = write_json(COORD_WRITE_DELETE, "1", NULL);
    for (uint32_t failures = 0; failures < 3; failures++) {
        delivery = next(watch, COORD_TABLE_APPLY, "1", "{\"_id\":1,\"n\":2}");
        EQUAL(coord_delivery_failures(delivery), failures);
        EQUAL(coord_delivery_has_revision(delivery), 1);
        CHECK(coord_delivery_revision(delivery) != 0);
        if (failures == 0) {
            OK(coord_delivery_done(delivery, "not now", COORD_NUL, &err));
        } else if (failures == 1) {
            /* One at a time is out. */
            coord_delivery_t *none = NULL;
            FAILS(COORD_E_TIMEOUT, coord_table_watch_next(watch, 0, NULL, &none, &err));
        }
        coord_delivery_destroy(delivery);
    }
    OK(coord_table_watch_next_start(watch, queue, 1, NULL, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_DELIVERY, 1, COORD_OK);
    coord_event_destroy(event);
    OK(coord_table_watch_next_start(watch, queue, 2, NULL, &err));
    event = expect_event(queue, COORD_EVENT_DELIVERY, 2, COORD_OK);
    OK(coord_event_take_delivery(event, &delivery, &err));
    coord_event_destroy(event);
    EQUAL(coord_delivery_failures(delivery), 4);
    done(delivery);
    delivery = next(watch, COORD_TABLE_DELETE, "1", "");
    EQUAL(coord_delivery_has_revision(delivery), 0);
    CHECK(coord_delivery_position(delivery) >= last);
    done(delivery);

    /* A wait ends with the watch. */
    OK(coord_table_watch_next_start(watch, queue, 3, NULL, &err));
    OK(coord_table_watch_close(watch, &err));
    OK(coord_table_watch_close(watch, &err));
    expect(queue, COORD_EVENT_DELIVERY, 3, COORD_E_CLOSED);
    coord_table_watch_destroy(watch);
    OK(coord_table_watch(table, NULL, 0, NULL, NULL, &watch, &err));
    done(next(watch, COORD_TABLE_INIT, "", ""));
    done(next(watch, COORD_TABLE_INIT_APPLY, "2", "{\"_id\":2,\"n\":-1}"));
    done(next(watch, COORD_TABLE_INIT_DONE, "", ""));
    OK(coord_table_watch_next_start(watch, queue, 4, NULL, &err));
    coord_table_watch_destroy(watch);
    expect(queue, COORD_EVENT_DELIVERY, 4, COORD_E_CLOSED);
    return start;
}

/* From a position on there is no snapshot; the document before is shown where the table keeps it. */
static void resumed(void) {
    coord_options_t *previous = NULL;
    coord_table_watch_t *watch = NULL;
    OK(coord_options_new(&previous, &err));
    OK(coord_options_set_number(previous, "previous", COORD_NUL, 1, &err));
    OK(coord_table_configure_start(table, previous, WAIT_MS, queue, 1, NULL, &err));
    coord_event_t *event = NULL;
    OK(coord_queue_poll(queue, WAIT_MS, &event, &err));
    coord_status_t kept = coord_event_status(event);
    coord_event_destroy(event);
    CHECK(kept == COORD_OK || (kept == COORD_E_UNSUPPORTED && strncmp(test_url(), "mongodb", 7) == 0));
    uint64_t start = write_json(COORD_WRITE_PUT, "1", "{\"n\":5}");
    write_json(COORD_WRITE_PUT, "1", "{\"n\":6}");
    OK(coord_table_watch(table, "{\"n\":{\"$gt\":0}}", COORD_NUL, &start, previous, &watch, &err));
    coord_delivery_t *delivery = next(watch, COORD_TABLE_APPLY, "1", "{\"_id\":1,\"n\":6}");
    const char *before = kept == COORD_OK ? "{\"_id\":1,\"n\":5}" : "";
    SAME_TEXT(coord_delivery_previous(delivery), before);
    EQUAL(coord_delivery_previous_length(delivery), strlen(before));
    done(delivery);
    coord_table_watch_destroy(watch);
    OK(coord_table_configure(table, NULL, WAIT_MS, NULL, &err));
    write_json(COORD_WRITE_DELETE, "1", NULL);
    coord_options_destroy(previous);
}

static void logged(uint64_t start) {
    coord_table_log_t *log = NULL;
    coord_log_entry_t *entry = NULL;
    OK(coord_table_log(table, COORD_LOG_FROM_POSITION, start, WAIT_MS, NULL, &log, &err));
    OK(coord_table_log_next(log, WAIT_MS, NULL, &entry, &err));
    EQUAL(coord_log_entry_operation(entry), COORD_OPERATION_REPLACE);
    SAME_TEXT(coord_log_entry_source(entry), "ann");
    SAME_TEXT(coord_log_entry_key(entry), "1");
    EQUAL(coord_log_entry_key_length(entry), 1);
    CHECK(coord_log_entry_position(entry) > start && coord_log_entry_at_ms(entry) > 1600000000000);
    EQUAL(coord_log_entry_has_revision(entry), 1);
    CHECK(coord_log_entry_revision(entry) != 0);
    EQUAL(coord_log_entry_changed_count(entry), 0);
    coord_log_entry_destroy(entry);
    OK(coord_table_log_next_start(log, queue, 1, NULL, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_LOG_ENTRY, 1, COORD_OK);
    OK(coord_event_take_log_entry(event, &entry, &err));
    coord_event_destroy(event);
    EQUAL(coord_log_entry_operation(entry), COORD_OPERATION_DELETE);
    EQUAL(coord_log_entry_has_revision(entry), 0);
    coord_log_entry_destroy(entry);
    coord_table_log_destroy(log);

    OK(coord_table_log_start(table, COORD_LOG_FROM_NOW, 0, WAIT_MS, queue, 2, NULL, &err));
    event = expect_event(queue, COORD_EVENT_TABLE_LOG, 2, COORD_OK);
    OK(coord_event_take_table_log(event, &log, &err));
    coord_event_destroy(event);
    write_json(COORD_WRITE_UPDATE, "2", "{\"$set\":{\"b\":1,\"a\":2}}");
    OK(coord_table_log_next(log, WAIT_MS, NULL, &entry, &err));
    EQUAL(coord_log_entry_operation(entry), COORD_OPERATION_UPDATE);
    EQUAL(coord_log_entry_changed_count(entry), 2);
    SAME_TEXT(coord_log_entry_changed_at(entry, 0), "a");
    SAME_TEXT(coord_log_entry_changed_at(entry, 1), "b");
    SAME_TEXT(coord_log_entry_changed_at(entry, 2), "");
    coord_log_entry_destroy(entry);
    OK(coord_table_log_next_start(log, queue, 3, NULL, &err));
    OK(coord_table_log_close(log, &err));
    expect(queue, COORD_EVENT_LOG_ENTRY, 3, COORD_E_CLOSED);
    coord_table_log_destroy(log);
}

static void cached(void) {
    coord_options_t *options = NULL;
    coord_cached_table_t *copy = NULL;
    OK(coord_options_new(&options, &err));
    OK(coord_options_set_number(options, "max_bytes", COORD_NUL, 10, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_cached_table_open(table, NULL, 0, options, WAIT_MS, NULL, &copy, &err));
    coord_options_destroy(options);
    OK(coord_cached_table_open(table, "{\"n\":{\"$exists\":true}}", COORD_NUL, NULL, WAIT_MS, NULL, &copy, &err));
    EQUAL(coord_cached_table_is_synced(copy), 1);

    /* One's own writes are shown when they are done. */
    coord_written_t *written = NULL;
    coord_stored_t *stored = NULL;
    OK(coord_cached_table_write(copy, COORD_WRITE_PUT, "7", 1, "{\"n\":7}", COORD_NUL, NULL, NULL, WAIT_MS, NULL, &written, &err));
    CHECK(coord_cached_table_position(copy) >= coord_written_position(written));
    uint64_t revision = coord_written_revision(written);
    coord_written_destroy(written);
    OK(coord_cached_table_get(copy, "7", 1, &stored, &err));
    SAME_TEXT(coord_stored_document(stored), "{\"_id\":7,\"n\":7}");
    EQUAL(coord_stored_revision(stored), revision);
    coord_stored_destroy(stored);
    CHECK(coord_cached_table_bytes(copy) > 20);
    OK(coord_cached_table_write(copy, COORD_WRITE_LOCATE, "7", 1, "{\"m\":1}", COORD_NUL, NULL, NULL, WAIT_MS, NULL, NULL, &err));
    FAILS(COORD_E_CONFLICT, coord_cached_table_write(copy, COORD_WRITE_DELETE, "7", 1, NULL, 0, &revision, NULL, WAIT_MS, NULL, NULL,
                                                     &err));

    /* What others write is waited for. */
    uint64_t position = write_json(COORD_WRITE_PUT, "8", "{\"n\":8}"), count = 0;
    OK(coord_cached_table_wait_until(copy, position, WAIT_MS, NULL, &err));
    OK(coord_cached_table_count(copy, NULL, 0, &count, &err));
    EQUAL(count, 3);
    coord_stored_list_t *list = NULL;
    OK(coord_options_new(&options, &err));
    OK(coord_options_set_document(options, "sort", COORD_NUL, "{\"n\":-1}", COORD_NUL, &err));
    OK(coord_cached_table_find(copy, "{\"n\":{\"$gt\":0}}", COORD_NUL, options, &list, &err));
    coord_options_destroy(options);
    EQUAL(coord_stored_list_count(list), 2);
    SAME_TEXT(coord_stored_document(coord_stored_list_at(list, 0)), "{\"_id\":8,\"n\":8}");
    coord_stored_list_destroy(list);
    FAILS(COORD_E_NOT_FOUND, coord_cached_table_get(copy, "9", 1, &stored, &err));
    OK(coord_cached_table_get_fresh(copy, "8", 1, WAIT_MS, NULL, &stored, &err));
    coord_stored_destroy(stored);

    OK(coord_cached_table_get_fresh_start(copy, "8", 1, WAIT_MS, queue, 1, NULL, &err));
    expect(queue, COORD_EVENT_STORED, 1, COORD_OK);
    OK(coord_cached_table_write_start(copy, COORD_WRITE_DELETE, "8", 1, NULL, 0, NULL, NULL, WAIT_MS, queue, 2, NULL, &err));
    expect(queue, COORD_EVENT_WRITTEN, 2, COORD_OK);
    FAILS(COORD_E_NOT_FOUND, coord_cached_table_get(copy, "8", 1, &stored, &err));
    OK(coord_cached_table_wait_until_start(copy, UINT64_MAX, -1, queue, 3, NULL, &err));
    coord_cached_table_destroy(copy);
    expect(queue, COORD_EVENT_DONE, 3, COORD_E_CLOSED);
    OK(coord_cached_table_open_start(table, NULL, 0, NULL, WAIT_MS, queue, 4, NULL, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_CACHED_TABLE, 4, COORD_OK);
    OK(coord_event_take_cached_table(event, &copy, &err));
    coord_event_destroy(event);
    OK(coord_client_close(client, WAIT_MS, &err));
    FAILS(COORD_E_CLOSED, coord_cached_table_get(copy, "7", 1, &stored, &err));
    coord_cached_table_destroy(copy);
}

int main(void) {
    client = connect_as("ann");
    queue = new_queue();
    OK(coord_table_new(client, "t", 1, COORD_FORMAT_JSON, &table, &err));
    uint64_t start = watched();
    logged(start);
    resumed();
    cached();
    expect_no_event(queue);
    coord_queue_destroy(queue);
    coord_table_destroy(table);
    coord_client_destroy(client);
    return 0;
}
