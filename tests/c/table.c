/* Tables: what is written comes back exactly, in both formats; conditions, fences, cursors, filters and indexes. */
#include "test.h"

static coord_client_t *client;
static coord_queue_t *queue;

static coord_table_t *table_of(const char *name, int32_t format) {
    coord_table_t *table = NULL;
    OK(coord_table_new(client, name, COORD_NUL, format, &table, &err));
    return table;
}

/* Writes in JSON, and gives the revision. */
static uint64_t write_json(coord_table_t *table, int32_t action, const char *key, const char *document) {
    coord_written_t *written = NULL;
    OK(coord_table_write(table, action, key, COORD_NUL, document, COORD_NUL, NULL, NULL, WAIT_MS, NULL, &written, &err));
    uint64_t revision = coord_written_revision(written);
    CHECK(coord_written_position(written) > 0);
    coord_written_destroy(written);
    return revision;
}

static void stored_is(coord_table_t *table, const char *key, const char *document) {
    coord_stored_t *stored = NULL;
    OK(coord_table_get(table, key, COORD_NUL, WAIT_MS, NULL, &stored, &err));
    SAME_TEXT(coord_stored_key(stored), key);
    SAME_TEXT(coord_stored_document(stored), document);
    EQUAL(coord_stored_document_length(stored), strlen(document));
    EQUAL(coord_stored_key_length(stored), strlen(key));
    EQUAL(coord_stored_has_revision(stored), 1);
    coord_stored_destroy(stored);
}

static void written_and_read(coord_table_t *table) {
    coord_written_t *written = NULL;
    coord_stored_t *none = NULL;
    OK(coord_table_write(table, COORD_WRITE_INSERT, "\"ann\"", COORD_NUL, "{\"z\":1,\"a\":{\"b\":[1.5,null]}}", COORD_NUL, NULL,
                         NULL, WAIT_MS, NULL, &written, &err));
    EQUAL(coord_written_created(written), 1);
    EQUAL(coord_written_has_revision(written), 1);
    SAME_TEXT(coord_written_document(written), "{\"_id\":\"ann\",\"z\":1,\"a\":{\"b\":[1.5,null]}}");
    EQUAL(coord_written_document_length(written), strlen(coord_written_document(written)));
    coord_written_destroy(written);
    stored_is(table, "\"ann\"", "{\"_id\":\"ann\",\"z\":1,\"a\":{\"b\":[1.5,null]}}");
    FAILS(COORD_E_ALREADY_EXISTS, coord_table_write(table, COORD_WRITE_INSERT, "\"ann\"", COORD_NUL, "{}", COORD_NUL, NULL, NULL,
                                                    WAIT_MS, NULL, NULL, &err));
    FAILS(COORD_E_NOT_FOUND, coord_table_get(table, "\"bob\"", COORD_NUL, WAIT_MS, NULL, &none, &err));

    /* Conditions. */
    uint64_t first = write_json(table, COORD_WRITE_PUT, "\"ann\"", "{\"n\":1}");
    uint64_t second = write_json(table, COORD_WRITE_UPDATE, "\"ann\"", "{\"$inc\":{\"n\":1}}");
    CHECK(first != second);
    stored_is(table, "\"ann\"", "{\"_id\":\"ann\",\"n\":2}");
    FAILS(COORD_E_CONFLICT, coord_table_write(table, COORD_WRITE_REPLACE, "\"ann\"", COORD_NUL, "{}", COORD_NUL, &first, NULL,
                                              WAIT_MS, NULL, NULL, &err));
    FAILS(COORD_E_CONFLICT, coord_table_write(table, COORD_WRITE_DELETE, "\"ann\"", COORD_NUL, NULL, 0, &first, NULL, WAIT_MS,
                                              NULL, NULL, &err));
    OK(coord_table_write(table, COORD_WRITE_REPLACE, "\"ann\"", COORD_NUL, "{\"n\":3}", COORD_NUL, &second, NULL, WAIT_MS, NULL,
                         NULL, &err));
    write_json(table, COORD_WRITE_LOCATE, "\"ann\"", "{\"m\":true}");
    stored_is(table, "\"ann\"", "{\"_id\":\"ann\",\"n\":3,\"m\":true}");
    write_json(table, COORD_WRITE_UPSERT, "42", "{\"$set\":{\"n\":7}}");
    write_json(table, COORD_WRITE_PUT, "{\"b\":1,\"a\":\"x\"}", "{\"n\":9}");
    stored_is(table, "{\"b\":1,\"a\":\"x\"}", "{\"_id\":{\"b\":1,\"a\":\"x\"},\"n\":9}");
    OK(coord_table_write(table, COORD_WRITE_DELETE, "42", COORD_NUL, NULL, 0, NULL, NULL, WAIT_MS, NULL, &written, &err));
    EQUAL(coord_written_has_revision(written), 0);
    EQUAL(coord_written_created(written), 0);
    SAME_TEXT(coord_written_document(written), "{\"_id\":42,\"n\":7}");
    coord_written_destroy(written);
    FAILS(COORD_E_NOT_FOUND, coord_table_write(table, COORD_WRITE_DELETE, "42", 2, NULL, 0, NULL, NULL, WAIT_MS, NULL, NULL, &err));
}

/* Every type of value that MongoDB and JSON know, and the edges of numbers. */
static void exact(coord_table_t *json, coord_table_t *bson) {
    static const char document[] =
        "{\"_id\":\"exact\",\"text\":\"a\\u0000b \xf0\x9f\x98\x80\",\"long\":9223372036854775807,\"low\":-9223372036854775808,"
        "\"half\":0.1,\"whole\":5.0,\"zero\":-0.0,\"big\":1.7976931348623157e+308,\"nan\":{\"$numberDouble\":\"NaN\"},"
        "\"inf\":{\"$numberDouble\":\"-Infinity\"},\"date\":{\"$date\":\"2023-11-14T22:13:20.123Z\"},"
        "\"old\":{\"$date\":{\"$numberLong\":\"-1\"}},\"far\":{\"$date\":{\"$numberLong\":\"9223372036854775807\"}},"
        "\"bytes\":{\"$binary\":{\"base64\":\"AP8=\",\"subType\":\"00\"}},\"id\":{\"$oid\":\"65a1b2c3d4e5f60718293a4b\"},"
        "\"exact\":{\"$numberDecimal\":\"0.10\"},\"stamp\":{\"$timestamp\":{\"t\":3,\"i\":9}},\"none\":null,\"yes\":true}";
    write_json(json, COORD_WRITE_PUT, "\"exact\"", document);
    stored_is(json, "\"exact\"", document);
    /* Read as BSON and written again as such, it is the same in JSON. */
    static const char key[] = "\x14\0\0\0\2_id\0\6\0\0\0exact\0";
    const size_t length = sizeof key;
    coord_stored_t *stored = NULL;
    OK(coord_table_get(bson, key, length, WAIT_MS, NULL, &stored, &err));
    EQUAL(coord_stored_key_length(stored), length);
    CHECK(memcmp(coord_stored_key(stored), key, length) == 0);
    OK(coord_table_write(bson, COORD_WRITE_DELETE, key, length, NULL, 0, NULL, NULL, WAIT_MS, NULL, NULL, &err));
    OK(coord_table_write(bson, COORD_WRITE_INSERT, key, length, coord_stored_document(stored),
                         coord_stored_document_length(stored), NULL, NULL, WAIT_MS, NULL, NULL, &err));
    coord_stored_destroy(stored);
    stored_is(json, "\"exact\"", document);
}

static size_t fetch(coord_cursor_t *cursor, size_t max, const char *first) {
    coord_stored_list_t *list = NULL;
    OK(coord_cursor_next(cursor, max, WAIT_MS, NULL, &list, &err));
    size_t count = coord_stored_list_count(list);
    if (count > 0) SAME_TEXT(coord_stored_key(coord_stored_list_at(list, 0)), first);
    CHECK(coord_stored_list_at(list, count) == NULL);
    coord_stored_list_destroy(list);
    return count;
}

static uint64_t count(coord_table_t *table, const char *filter) {
    uint64_t count = 0;
    OK(coord_table_count(table, filter, filter == NULL ? 0 : COORD_NUL, WAIT_MS, NULL, &count, &err));
    return count;
}

static void found(coord_table_t *table) {
    char key[16], document[32];
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "%d", i);
        snprintf(document, sizeof document, "{\"n\":%d}", 20 - i);
        write_json(table, COORD_WRITE_INSERT, key, document);
    }
    EQUAL(count(table, NULL), 20);
    EQUAL(count(table, "{\"n\":{\"$lte\":5}}"), 5);
    coord_options_t *options = NULL;
    coord_cursor_t *cursor = NULL;
    OK(coord_options_new(&options, &err));
    OK(coord_options_set_document(options, "sort", COORD_NUL, "{\"n\":1}", COORD_NUL, &err));
    OK(coord_options_set_document(options, "projection", COORD_NUL, "{\"_id\":0}", COORD_NUL, &err));
    OK(coord_options_set_number(options, "skip", COORD_NUL, 2, &err));
    OK(coord_options_set_number(options, "limit", COORD_NUL, 9, &err));
    OK(coord_table_find(table, "{\"n\":{\"$gt\":3}}", COORD_NUL, options, WAIT_MS, NULL, &cursor, &err));
    coord_options_destroy(options);
    EQUAL(fetch(cursor, 4, "14"), 4);
    EQUAL(fetch(cursor, 100, "10"), 5);
    EQUAL(fetch(cursor, 100, ""), 0);
    EQUAL(fetch(cursor, 1, ""), 0);
    coord_cursor_destroy(cursor);

    /* By queue; a cursor that nobody takes is gone. */
    OK(coord_table_find_start(table, NULL, 0, NULL, WAIT_MS, queue, 1, NULL, &err));
    coord_event_destroy(expect_event(queue, COORD_EVENT_CURSOR, 1, COORD_OK));
    OK(coord_table_find_start(table, NULL, 0, NULL, WAIT_MS, queue, 2, NULL, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_CURSOR, 2, COORD_OK);
    OK(coord_event_take_cursor(event, &cursor, &err));
    coord_event_destroy(event);
    OK(coord_cursor_next_start(cursor, 100, WAIT_MS, queue, 3, NULL, &err));
    event = expect_event(queue, COORD_EVENT_STORED_LIST, 3, COORD_OK);
    coord_stored_list_t *list = NULL;
    OK(coord_event_take_stored_list(event, &list, &err));
    coord_event_destroy(event);
    EQUAL(coord_stored_list_count(list), 20);
    coord_stored_list_destroy(list);
    coord_cursor_destroy(cursor);
    OK(coord_table_count_start(table, NULL, 0, WAIT_MS, queue, 4, NULL, &err));
    event = expect_event(queue, COORD_EVENT_NUMBER, 4, COORD_OK);
    uint64_t number = 0, position = 0;
    OK(coord_event_take_number(event, &number, &err));
    EQUAL(number, 20);
    FAILS(COORD_E_NOT_FOUND, coord_event_take_number(event, &number, &err));
    coord_event_destroy(event);

    OK(coord_table_write_many(table, COORD_WRITE_UPDATE, "{\"n\":{\"$lte\":5}}", COORD_NUL, "{\"$set\":{\"few\":true}}", COORD_NUL,
                              NULL, WAIT_MS, NULL, &number, &position, &err));
    EQUAL(number, 5);
    CHECK(position > 0);
    OK(coord_table_write_many_start(table, COORD_WRITE_DELETE, "{\"few\":true}", COORD_NUL, NULL, 0, NULL, WAIT_MS, queue, 5, NULL,
                                    &err));
    event = expect_event(queue, COORD_EVENT_MANY_WRITTEN, 5, COORD_OK);
    OK(coord_event_take_many_written(event, &number, &position, &err));
    coord_event_destroy(event);
    EQUAL(number, 5);
    EQUAL(count(table, NULL), 15);

    coord_status_t status = coord_table_aggregate(table, "[{\"$group\":{\"_id\":null,\"most\":{\"$max\":\"$n\"}}}]", COORD_NUL,
                                                  WAIT_MS, NULL, &cursor, NULL);
    if (strncmp(test_url(), "mongodb", 7) == 0) {
        EQUAL(status, COORD_OK);
        OK(coord_cursor_next(cursor, 9, WAIT_MS, NULL, &list, &err));
        EQUAL(coord_stored_list_count(list), 1);
        SAME_TEXT(coord_stored_document(coord_stored_list_at(list, 0)), "{\"_id\":null,\"most\":20}");
        SAME_TEXT(coord_stored_key(coord_stored_list_at(list, 0)), "");
        coord_stored_list_destroy(list);
        coord_cursor_destroy(cursor);
    } else {
        EQUAL(status, COORD_E_UNSUPPORTED);
        FAILS(COORD_E_UNSUPPORTED, coord_table_count(table, "{\"$where\":\"1\"}", COORD_NUL, WAIT_MS, NULL, &number, &err));
    }
}

static void indexed(coord_table_t *table) {
    OK(coord_table_ensure_indexes(table, "[{\"fields\":{\"n\":-1},\"unique\":true,\"name\":\"by_n\"}]", COORD_NUL, WAIT_MS, NULL, &err));
    OK(coord_table_ensure_indexes_start(table, "[{\"fields\":{\"n\":-1},\"unique\":true,\"name\":\"by_n\"}]", COORD_NUL, WAIT_MS,
                                        queue, 1, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 1, COORD_OK);
    write_json(table, COORD_WRITE_INSERT, "1", "{\"n\":1}");
    FAILS(COORD_E_ALREADY_EXISTS, coord_table_write(table, COORD_WRITE_INSERT, "2", 1, "{\"n\":1}", COORD_NUL, NULL, NULL, WAIT_MS,
                                                    NULL, NULL, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_table_ensure_indexes(table, "[{\"fields\":{\"m\":1},\"name\":\"by_n\"}]", COORD_NUL, WAIT_MS,
                                                               NULL, &err));
    OK(coord_table_health(table, WAIT_MS, NULL, &err));
    OK(coord_table_health_start(table, WAIT_MS, queue, 2, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 2, COORD_OK);
    OK(coord_table_drop(table, WAIT_MS, NULL, &err));
    OK(coord_table_drop_start(table, WAIT_MS, queue, 3, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 3, COORD_OK);
    EQUAL(count(table, NULL), 0);
}

/* A holder of before is refused, by the document and, if that is wanted, also when nobody has written since. */
static void fenced(coord_table_t *table) {
    coord_lock_t *lock = lock_of(client, "fence");
    coord_fence_t *stale = NULL, *strict = NULL, *fresh = NULL;
    coord_held_t *held = acquire(lock);
    OK(coord_held_fence(held, 0, &stale, &err));
    OK(coord_held_fence(held, 1, &strict, &err));
    OK(coord_table_write(table, COORD_WRITE_PUT, "1", 1, "{\"by\":1}", COORD_NUL, NULL, strict, WAIT_MS, NULL, NULL, &err));
    release(held);
    FAILS(COORD_E_FENCED, coord_table_write(table, COORD_WRITE_PUT, "2", 1, "{}", 2, NULL, strict, WAIT_MS, NULL, NULL, &err));
    held = acquire(lock);
    OK(coord_held_fence(held, 0, &fresh, &err));
    OK(coord_table_write(table, COORD_WRITE_DELETE, "1", 1, NULL, 0, NULL, fresh, WAIT_MS, NULL, NULL, &err));
    FAILS(COORD_E_FENCED, coord_table_write(table, COORD_WRITE_UPSERT, "1", 1, "{\"$set\":{\"by\":0}}", COORD_NUL, NULL, stale, WAIT_MS,
                                            NULL, NULL, &err));
    OK(coord_table_write(table, COORD_WRITE_INSERT, "1", 1, "{\"by\":2}", COORD_NUL, NULL, fresh, WAIT_MS, NULL, NULL, &err));
    uint64_t number = 77;
    FAILS(COORD_E_FENCED, coord_table_write_many(table, COORD_WRITE_DELETE, NULL, 0, NULL, 0, stale, WAIT_MS, NULL, &number, NULL, &err));
    EQUAL(number, 77);
    stored_is(table, "1", "{\"_id\":1,\"by\":2}");
    coord_fence_destroy(stale);
    coord_fence_destroy(strict);
    coord_fence_destroy(fresh);
    release(held);
    coord_lock_destroy(lock);

    coord_election_t *election = NULL;
    coord_term_t *term = NULL;
    OK(coord_election_new(client, "e", 1, &election, &err));
    OK(coord_election_campaign(election, NULL, 0, NULL, WAIT_MS, NULL, &term, &err));
    OK(coord_term_fence(term, 0, &fresh, &err));
    OK(coord_table_write(table, COORD_WRITE_PUT, "3", 1, "{}", 2, NULL, fresh, WAIT_MS, NULL, NULL, &err));
    coord_fence_destroy(fresh);
    OK(coord_term_resign(term, WAIT_MS, NULL, &err));
    coord_term_destroy(term);
    coord_election_destroy(election);
}

/* Results by queue, taken or not. */
static void by_queue(coord_table_t *table) {
    OK(coord_table_write_start(table, COORD_WRITE_PUT, "1", 1, "{\"n\":1}", COORD_NUL, NULL, NULL, WAIT_MS, queue, 1, NULL, &err));
    expect(queue, COORD_EVENT_WRITTEN, 1, COORD_OK);
    OK(coord_table_write_start(table, COORD_WRITE_PUT, "1", 1, "{\"n\":2}", COORD_NUL, NULL, NULL, WAIT_MS, queue, 2, NULL, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_WRITTEN, 2, COORD_OK);
    coord_written_t *written = NULL;
    OK(coord_event_take_written(event, &written, &err));
    coord_event_destroy(event);
    SAME_TEXT(coord_written_document(written), "{\"_id\":1,\"n\":2}");
    coord_written_destroy(written);
    OK(coord_table_get_start(table, "1", 1, WAIT_MS, queue, 3, NULL, &err));
    event = expect_event(queue, COORD_EVENT_STORED, 3, COORD_OK);
    coord_stored_t *stored = NULL;
    OK(coord_event_take_stored(event, &stored, &err));
    coord_event_destroy(event);
    SAME_TEXT(coord_stored_document(stored), "{\"_id\":1,\"n\":2}");
    coord_stored_destroy(stored);
    OK(coord_table_get_start(table, "9", 1, WAIT_MS, queue, 4, NULL, &err));
    expect(queue, COORD_EVENT_STORED, 4, COORD_E_NOT_FOUND);
}

/* As large as a document may be, and larger. On MongoDB the name of who writes lies beside it, and takes some room. */
static void large(coord_table_t *table) {
    /* In BSON: 5 for the document, 13 for the key, 8 for the text's field. */
    const size_t around = sizeof "{\"b\":\"\"}" - 1, most = 16 * 1024 * 1024 - 5 - 13 - 8;
    const size_t text = strncmp(test_url(), "mongodb", 7) == 0 ? most - 200 : most;
    char *document = malloc(most + 1 + around);
    memcpy(document, "{\"b\":\"", 6);
    memset(document + 6, 'b', most + 1);
    memcpy(document + 6 + most + 1, "\"}", 2);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_table_write(table, COORD_WRITE_PUT, "1", 1, document, most + 1 + around, NULL, NULL, WAIT_MS,
                                                      NULL, NULL, &err));
    memcpy(document + 6 + text, "\"}", 2);
    OK(coord_table_write(table, COORD_WRITE_PUT, "1", 1, document, text + around, NULL, NULL, WAIT_MS, NULL, NULL, &err));
    free(document);
    coord_stored_t *stored = NULL;
    OK(coord_table_get(table, "1", 1, WAIT_MS, NULL, &stored, &err));
    EQUAL(coord_stored_document_length(stored), text + around + sizeof "\"_id\":1," - 1);
    coord_stored_destroy(stored);
    OK(coord_table_drop(table, WAIT_MS, NULL, &err));
}

int main(void) {
    client = connect_as("ann");
    queue = new_queue();
    coord_table_t *table = table_of("people", COORD_FORMAT_JSON), *bson = table_of("people", COORD_FORMAT_BSON);
    SAME_TEXT(coord_table_name(table), "people");
    written_and_read(table);
    exact(table, bson);
    coord_table_destroy(bson);
    coord_table_destroy(table);
    void (*stories[])(coord_table_t *) = {found, indexed, fenced, by_queue, large};
    static const char *const names[] = {"found", "indexed", "fenced", "by_queue", "large"};
    /* Where a program runs some thirty times slower, a large document takes longer than a test waits. */
    size_t count = sizeof stories / sizeof *stories - (getenv("COORD_TEST_SLOW") != NULL);
    for (size_t i = 0; i < count; i++) {
        table = table_of(names[i], COORD_FORMAT_JSON);
        stories[i](table);
        coord_table_destroy(table);
    }
    expect_no_event(queue);
    coord_queue_destroy(queue);
    table = table_of("late", COORD_FORMAT_JSON);
    OK(coord_client_close(client, WAIT_MS, &err));
    FAILS(COORD_E_CLOSED, coord_table_health(table, WAIT_MS, NULL, &err));
    coord_table_destroy(table);
    FAILS(COORD_E_CLOSED, coord_table_new(client, "later", COORD_NUL, COORD_FORMAT_JSON, &table, &err));
    coord_client_destroy(client);
    return 0;
}
