#define _POSIX_C_SOURCE 200809L
#include "tables.h"

#include <inttypes.h>
#include <stdlib.h>

static int is(const words_t *words, const char *verb) { return strcmp(words->verb, verb) == 0; }

static int says(const words_t *words, const char *name, const char *value) {
    const char *given = words_get(words, name, NULL);
    return given != NULL && strcmp(given, value) == 0;
}

static uint64_t unsigned_of(const words_t *words, const char *name) {
    const char *text = words_get(words, name, NULL);
    return text == NULL ? 0 : strtoull(text, NULL, 10);
}

static void say_unsigned(const char *name, uint64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    say(name, text);
}

/* --- arguments --------------------------------------------------------------------------------------------------- */

/* What a table and its copy are asked. */
typedef struct {
    const char *op, *key, *document, *filter;
    size_t key_length, document_length, filter_length;
    const uint64_t *revision;
    uint64_t given_revision;
    coord_fence_t *fence;
} asked_t;

static coord_status_t fence_of(const words_t *words, coord_fence_t **fence, coord_error_t **error) {
    const char *name = words_get(words, "fence", NULL);
    int32_t strict = says(words, "strict", "true");
    thing_t *work = find(name, WORK), *term = find(name, TERM), *hold = find(name, HOLD);
    if (work != NULL) {
        return coord_work_fence(work->work, strict, fence, error);
    }
    if (term != NULL) {
        return coord_term_fence(term->term, strict, fence, error);
    }
    return coord_held_fence(hold == NULL ? NULL : hold->held, strict, fence, error);
}

static coord_status_t read_asked(const words_t *words, asked_t *asked, coord_error_t **error) {
    memset(asked, 0, sizeof *asked);
    asked->op = words_get(words, "op", NULL);
    asked->key = words_get(words, "key", &asked->key_length);
    asked->document = words_get(words, "document", &asked->document_length);
    asked->filter = words_get(words, "filter", &asked->filter_length);
    if (asked->op == NULL) {
        asked->op = "";
    }
    if (words_get(words, "revision", NULL) != NULL) {
        asked->given_revision = unsigned_of(words, "revision");
        asked->revision = &asked->given_revision;
    }
    return words_get(words, "fence", NULL) == NULL ? COORD_OK : fence_of(words, &asked->fence, error);
}

/* Options of a read, or of a copy. */
static coord_options_t *options_of(const words_t *words) {
    static const char *const documents[] = {"sort", "projection"}, *const numbers[] = {"skip", "limit", "max_bytes"};
    coord_options_t *options = NULL;
    coord_options_new(&options, NULL);
    for (size_t i = 0; i < 2; i++) {
        size_t length = 0;
        const char *document = words_get(words, documents[i], &length);
        if (document != NULL) {
            coord_options_set_document(options, documents[i], COORD_NUL, document, length, NULL);
        }
    }
    for (size_t i = 0; i < 3; i++) {
        if (words_get(words, numbers[i], NULL) != NULL) {
            coord_options_set_number(options, numbers[i], COORD_NUL, number_of(words, numbers[i], 0), NULL);
        }
    }
    if (says(words, "read_your_writes", "false")) {
        coord_options_set_number(options, "read_your_writes", COORD_NUL, 0, NULL);
    }
    if (says(words, "previous", "true")) {
        coord_options_set_number(options, "previous", COORD_NUL, 1, NULL);
    }
    return options;
}

/* The action of a write to one document; 0 if it is none. */
static int32_t action_of(const char *op) {
    static const char *const names[] = {"insert", "put", "update", "upsert", "locate", "replace", "delete"};
    static const int32_t actions[] = {COORD_WRITE_INSERT, COORD_WRITE_PUT,     COORD_WRITE_UPDATE, COORD_WRITE_UPSERT,
                                      COORD_WRITE_LOCATE, COORD_WRITE_REPLACE, COORD_WRITE_DELETE};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(op, names[i]) == 0) {
            return actions[i];
        }
    }
    return 0;
}

/* --- answers ----------------------------------------------------------------------------------------------------- */

static void say_written(coord_written_t *written) {
    say("document", coord_written_document(written));
    say_unsigned("position", coord_written_position(written));
    say("created", coord_written_created(written) ? "true" : "false");
    if (coord_written_has_revision(written)) {
        say_unsigned("revision", coord_written_revision(written));
    }
    coord_written_destroy(written);
}

static void say_stored(coord_stored_t *stored) {
    say("key", coord_stored_key(stored));
    say("document", coord_stored_document(stored));
    if (coord_stored_has_revision(stored)) {
        say_unsigned("revision", coord_stored_revision(stored));
    }
    coord_stored_destroy(stored);
}

/* Documents as an array, which grows. */
typedef struct {
    char *text;
    size_t used;
    long count;
} array_t;

static void append(array_t *array, const coord_stored_list_t *list) {
    for (size_t i = 0; i < coord_stored_list_count(list); i++) {
        const coord_stored_t *stored = coord_stored_list_at(list, i);
        size_t length = coord_stored_document_length(stored);
        array->text = realloc(array->text, array->used + length + 3);
        if (array->text == NULL) {
            abort();
        }
        array->text[array->used++] = array->count++ == 0 ? '[' : ',';
        memcpy(array->text + array->used, coord_stored_document(stored), length);
        array->used += length;
        strcpy(array->text + array->used, "]");
    }
}

static void say_array(array_t *array) {
    say_number("count", array->count);
    say("documents", array->text == NULL ? "[]" : array->text);
}

/* Reads a cursor to its end, and answers. */
static void say_cursor(coord_cursor_t *cursor) {
    array_t array = {NULL, 0, 0};
    coord_error_t *error = NULL;
    coord_status_t status = COORD_OK;
    size_t count = 1;
    while (status == COORD_OK && count > 0) {
        coord_stored_list_t *list = NULL;
        status = coord_cursor_next(cursor, 50, BOUND_MS, NULL, &list, &error);
        count = coord_stored_list_count(list);
        append(&array, list);
        coord_stored_list_destroy(list);
    }
    if (say_status(status, &error)) {
        say_array(&array);
    }
    free(array.text);
    coord_cursor_destroy(cursor);
}

/* --- tables ------------------------------------------------------------------------------------------------------ */

static void read_many(const words_t *words, coord_table_t *table, const asked_t *asked) {
    coord_cursor_t *cursor = NULL;
    coord_error_t *error = NULL;
    coord_status_t status;
    if (strcmp(asked->op, "aggregate") == 0) {
        status = coord_table_aggregate(table, asked->document, asked->document_length, BOUND_MS, NULL, &cursor, &error);
    } else {
        coord_options_t *options = options_of(words);
        status = coord_table_find(table, asked->filter, asked->filter_length, options, BOUND_MS, NULL, &cursor, &error);
        coord_options_destroy(options);
    }
    if (status == COORD_OK) {
        say_cursor(cursor);
    } else {
        say_status(status, &error);
    }
}

static void write_many(coord_table_t *table, const asked_t *asked) {
    int32_t action = strcmp(asked->op, "update_many") == 0 ? COORD_WRITE_UPDATE : COORD_WRITE_DELETE;
    uint64_t count = 0, position = 0;
    coord_error_t *error = NULL;
    coord_status_t status =
        coord_table_write_many(table, action, asked->filter, asked->filter_length, asked->document,
                               asked->document_length, asked->fence, BOUND_MS, NULL, &count, &position, &error);
    if (say_status(status, &error)) {
        say_unsigned("count", count);
        say_unsigned("position", position);
    }
}

static void contains(coord_table_t *table, const asked_t *asked) {
    coord_stored_t *stored = NULL;
    coord_error_t *error = NULL;
    coord_status_t status = coord_table_get(table, asked->key, asked->key_length, BOUND_MS, NULL, &stored, &error);
    if (status == COORD_E_NOT_FOUND) {
        coord_error_destroy(error);
        error = NULL;
    }
    if (say_status(status == COORD_E_NOT_FOUND ? COORD_OK : status, &error)) {
        say("contains", status == COORD_OK ? "true" : "false");
    }
    coord_stored_destroy(stored);
}

static void ask_table(const words_t *words, coord_table_t *table, const asked_t *asked) {
    coord_error_t *error = NULL;
    int32_t action = action_of(asked->op);
    if (action != 0) {
        coord_written_t *written = NULL;
        coord_status_t status =
            coord_table_write(table, action, asked->key, asked->key_length, asked->document, asked->document_length,
                              asked->revision, asked->fence, BOUND_MS, NULL, &written, &error);
        if (say_status(status, &error)) {
            say_written(written);
        }
    } else if (strcmp(asked->op, "update_many") == 0 || strcmp(asked->op, "delete_many") == 0) {
        write_many(table, asked);
    } else if (strcmp(asked->op, "get") == 0) {
        coord_stored_t *stored = NULL;
        if (say_status(coord_table_get(table, asked->key, asked->key_length, BOUND_MS, NULL, &stored, &error), &error)) {
            say_stored(stored);
        }
    } else if (strcmp(asked->op, "contains") == 0) {
        contains(table, asked);
    } else if (strcmp(asked->op, "find") == 0 || strcmp(asked->op, "aggregate") == 0) {
        read_many(words, table, asked);
    } else if (strcmp(asked->op, "count") == 0) {
        uint64_t count = 0;
        if (say_status(coord_table_count(table, asked->filter, asked->filter_length, BOUND_MS, NULL, &count, &error),
                       &error)) {
            say_unsigned("count", count);
        }
    } else if (strcmp(asked->op, "ensure_indexes") == 0) {
        say_status(coord_table_ensure_indexes(table, asked->document, asked->document_length, BOUND_MS, NULL, &error),
                   &error);
    } else if (strcmp(asked->op, "drop") == 0) {
        say_status(coord_table_drop(table, BOUND_MS, NULL, &error), &error);
    } else {
        say_fail("there is no such operation of a table");
    }
}

/* In C a write is strict by its fence, so one without a fence cannot be asked for. */
static int refused(const words_t *words) {
    if (!says(words, "strict", "true") || words_get(words, "fence", NULL) != NULL) {
        return 0;
    }
    say_error(coord_status_name(COORD_E_INVALID_ARGUMENT));
    say("message", "a strict write needs the hold that it is done under");
    return 1;
}

static void do_table(const words_t *words, coord_table_t *table) {
    if (refused(words)) {
        return;
    }
    asked_t asked;
    coord_error_t *error = NULL;
    coord_status_t status = read_asked(words, &asked, &error);
    if (status == COORD_OK) {
        ask_table(words, table, &asked);
    } else {
        say_status(status, &error);
    }
    coord_fence_destroy(asked.fence);
}

/* --- what is begun ----------------------------------------------------------------------------------------------- */

/* Keeps what was begun under the name, if that went well, and answers. */
static thing_t *began(const words_t *words, kind_t kind, coord_status_t status, coord_error_t **error) {
    if (status != COORD_OK) {
        say_status(status, error);
        return NULL;
    }
    thing_t *thing = add(kind, words_get(words, "as", NULL));
    if (thing == NULL) {
        say_fail("too many things");
    } else {
        say_ok();
    }
    return thing;
}

static void do_watch(const words_t *words, coord_table_t *table) {
    coord_table_watch_t *watch = NULL;
    coord_error_t *error = NULL;
    size_t length = 0;
    const char *filter = words_get(words, "filter", &length);
    uint64_t from = unsigned_of(words, "from");
    coord_options_t *options = options_of(words);
    coord_status_t status = coord_table_watch(table, filter, length, words_get(words, "from", NULL) == NULL ? NULL : &from,
                                              options, &watch, &error);
    coord_options_destroy(options);
    thing_t *thing = began(words, TABLE_WATCH, status, &error);
    if (thing != NULL) {
        thing->table_watch = watch;
    } else {
        coord_table_watch_destroy(watch);
    }
}

static void do_log(const words_t *words, coord_table_t *table) {
    coord_table_log_t *log = NULL;
    coord_error_t *error = NULL;
    int32_t from = COORD_LOG_FROM_NOW;
    uint64_t place = 0;
    if (words_get(words, "after", NULL) != NULL) {
        from = COORD_LOG_FROM_POSITION;
        place = unsigned_of(words, "after");
    } else if (words_get(words, "since_ms", NULL) != NULL) {
        from = COORD_LOG_FROM_TIME;
        place = unsigned_of(words, "since_ms");
    }
    coord_status_t status = coord_table_log(table, from, place, BOUND_MS, NULL, &log, &error);
    thing_t *thing = began(words, TABLE_LOG, status, &error);
    if (thing != NULL) {
        thing->table_log = log;
    } else {
        coord_table_log_destroy(log);
    }
}

static void do_cache(const words_t *words, coord_table_t *table) {
    coord_cached_table_t *cached = NULL;
    coord_error_t *error = NULL;
    size_t length = 0;
    const char *filter = words_get(words, "filter", &length);
    coord_options_t *options = options_of(words);
    coord_status_t status = coord_cached_table_open(table, filter, length, options, BOUND_MS, NULL, &cached, &error);
    coord_options_destroy(options);
    thing_t *thing = began(words, CACHED_TABLE, status, &error);
    if (thing != NULL) {
        thing->cached = cached;
    } else {
        coord_cached_table_destroy(cached);
    }
}

/* --- watches and logs -------------------------------------------------------------------------------------------- */

static void next_delivery(const words_t *words, thing_t *thing) {
    static const char *const names[] = {"none", "init", "init_apply", "init_done", "apply", "delete"};
    coord_delivery_t *delivery = NULL;
    coord_error_t *error = NULL;
    coord_status_t status = coord_table_watch_next(thing->table_watch, BOUND_MS, NULL, &delivery, &error);
    int kept = says(words, "keep", "true");
    if (status == COORD_OK && !kept) {
        status = coord_delivery_done(delivery, NULL, 0, &error);
    }
    if (!say_status(status, &error)) {
        coord_delivery_destroy(delivery);
        return;
    }
    say("event", names[coord_delivery_type(delivery)]);
    say_unsigned("position", coord_delivery_position(delivery));
    say_number("failures", coord_delivery_failures(delivery));
    if (coord_delivery_key_length(delivery) > 0) {
        say("key", coord_delivery_key(delivery));
    }
    if (coord_delivery_document_length(delivery) > 0) {
        say("document", coord_delivery_document(delivery));
    }
    if (coord_delivery_previous_length(delivery) > 0) {
        say("previous", coord_delivery_previous(delivery));
    }
    if (coord_delivery_has_revision(delivery)) {
        say_unsigned("revision", coord_delivery_revision(delivery));
    }
    if (kept) {
        thing->delivery = delivery;
    } else {
        coord_delivery_destroy(delivery);
    }
}

static void do_done(const words_t *words) {
    thing_t *thing = find(words_get(words, "hold", NULL), TABLE_WATCH);
    coord_error_t *error = NULL;
    size_t length = 0;
    const char *failure = words_get(words, "failure", &length);
    if (thing == NULL || thing->delivery == NULL) {
        say_fail("no delivery was kept");
        return;
    }
    say_status(coord_delivery_done(thing->delivery, failure, length, &error), &error);
    coord_delivery_destroy(thing->delivery);
    thing->delivery = NULL;
}

static void next_entry(thing_t *thing) {
    static const char *const names[] = {"none", "insert", "update", "replace", "delete"};
    coord_log_entry_t *entry = NULL;
    coord_error_t *error = NULL;
    if (!say_status(coord_table_log_next(thing->table_log, BOUND_MS, NULL, &entry, &error), &error)) {
        return;
    }
    char changed[4096] = "";
    for (size_t i = 0; i < coord_log_entry_changed_count(entry); i++) {
        size_t used = strlen(changed);
        snprintf(changed + used, sizeof changed - used, "%s%s", i == 0 ? "" : ",", coord_log_entry_changed_at(entry, i));
    }
    say("operation", names[coord_log_entry_operation(entry)]);
    say_number("at_ms", coord_log_entry_at_ms(entry));
    say("key", coord_log_entry_key(entry));
    say("changed", changed);
    say_unsigned("position", coord_log_entry_position(entry));
    if (coord_log_entry_source(entry)[0] != '\0') {
        say("source", coord_log_entry_source(entry));
    }
    if (coord_log_entry_has_revision(entry)) {
        say_unsigned("revision", coord_log_entry_revision(entry));
    }
    coord_log_entry_destroy(entry);
}

/* --- copies in memory -------------------------------------------------------------------------------------------- */

static void say_copy(coord_cached_table_t *cached) {
    say_ok();
    say("synced", coord_cached_table_is_synced(cached) ? "true" : "false");
    say_unsigned("position", coord_cached_table_position(cached));
    say_number("bytes", (long long)coord_cached_table_bytes(cached));
}

static void ask_copy(const words_t *words, coord_cached_table_t *cached, const asked_t *asked) {
    coord_error_t *error = NULL;
    int32_t action = action_of(asked->op);
    if (action != 0) {
        coord_written_t *written = NULL;
        coord_status_t status =
            coord_cached_table_write(cached, action, asked->key, asked->key_length, asked->document,
                                     asked->document_length, asked->revision, asked->fence, BOUND_MS, NULL, &written, &error);
        if (say_status(status, &error)) {
            say_written(written);
        }
    } else if (strcmp(asked->op, "get") == 0 || strcmp(asked->op, "get_fresh") == 0) {
        coord_stored_t *stored = NULL;
        coord_status_t status =
            strcmp(asked->op, "get") == 0
                ? coord_cached_table_get(cached, asked->key, asked->key_length, &stored, &error)
                : coord_cached_table_get_fresh(cached, asked->key, asked->key_length, BOUND_MS, NULL, &stored, &error);
        if (say_status(status, &error)) {
            say_stored(stored);
        }
    } else if (strcmp(asked->op, "find") == 0) {
        coord_stored_list_t *list = NULL;
        coord_options_t *options = options_of(words);
        array_t array = {NULL, 0, 0};
        if (say_status(coord_cached_table_find(cached, asked->filter, asked->filter_length, options, &list, &error),
                       &error)) {
            append(&array, list);
            say_array(&array);
        }
        free(array.text);
        coord_stored_list_destroy(list);
        coord_options_destroy(options);
    } else if (strcmp(asked->op, "count") == 0) {
        uint64_t count = 0;
        if (say_status(coord_cached_table_count(cached, asked->filter, asked->filter_length, &count, &error), &error)) {
            say_unsigned("count", count);
        }
    } else if (strcmp(asked->op, "wait_until") == 0) {
        say_status(coord_cached_table_wait_until(cached, unsigned_of(words, "position"), BOUND_MS, NULL, &error), &error);
    } else if (strcmp(asked->op, "synced") == 0) {
        say_copy(cached);
    } else {
        say_fail("there is no such operation of a copy");
    }
}

static void do_cached(const words_t *words) {
    thing_t *thing = find(words_get(words, "hold", NULL), CACHED_TABLE);
    asked_t asked;
    coord_error_t *error = NULL;
    coord_status_t status = read_asked(words, &asked, &error);
    if (thing == NULL) {
        say_fail("there is no copy of that name");
    } else if (status == COORD_OK) {
        ask_copy(words, thing->cached, &asked);
    } else {
        say_status(status, &error);
    }
    coord_fence_destroy(asked.fence);
}

/* --- commands ---------------------------------------------------------------------------------------------------- */

/* What a watch, a log and a copy can be asked. */
static int do_with_begun(const words_t *words) {
    const char *name = words_get(words, "hold", NULL);
    thing_t *watch = find(name, TABLE_WATCH), *log = find(name, TABLE_LOG), *copy = find(name, CACHED_TABLE);
    coord_error_t *error = NULL;
    if (is(words, "next") && watch != NULL) {
        next_delivery(words, watch);
    } else if (is(words, "next") && log != NULL) {
        next_entry(log);
    } else if (is(words, "end") && watch != NULL) {
        say_status(coord_table_watch_close(watch->table_watch, &error), &error);
    } else if (is(words, "end") && log != NULL) {
        say_status(coord_table_log_close(log->table_log, &error), &error);
    } else if (is(words, "end") && copy != NULL) {
        forget(copy);
        say_ok();
    } else if (is(words, "synced") && copy != NULL) {
        say_copy(copy->cached);
    } else {
        return 0;
    }
    return 1;
}

int do_with_table(const words_t *words) {
    static const struct {
        const char *verb;
        void (*act)(const words_t *, coord_table_t *);
    } verbs[] = {{"table", do_table}, {"watch_table", do_watch}, {"log", do_log}, {"cache", do_cache}};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (!is(words, verbs[i].verb)) {
            continue;
        }
        coord_table_t *table = NULL;
        coord_error_t *error = NULL;
        size_t length = 0;
        const char *name = words_get(words, "table", &length);
        coord_status_t status = coord_table_new(client_of(words), name, length, COORD_FORMAT_JSON, &table, &error);
        if (status == COORD_OK) {
            verbs[i].act(words, table);
        } else {
            say_status(status, &error);
        }
        coord_table_destroy(table);
        return 1;
    }
    if (is(words, "done")) {
        do_done(words);
        return 1;
    }
    if (is(words, "cached")) {
        do_cached(words);
        return 1;
    }
    return do_with_begun(words);
}
