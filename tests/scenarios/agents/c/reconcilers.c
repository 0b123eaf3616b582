#define _POSIX_C_SOURCE 200809L
#include "reconcilers.h"

#include <stdlib.h>

/* What was run of a reconciler that is served: its keys, and how many runs. */
struct ran {
    char **keys;
    size_t count;
    long runs;
};

static int is(const words_t *words, const char *verb) { return strcmp(words->verb, verb) == 0; }

/* Numbers in their order, then texts in theirs. */
static int by_key(const void *one, const void *other) {
    const char *a = *(char *const *)one, *b = *(char *const *)other;
    char *after_a = NULL, *after_b = NULL;
    long long number_a = strtoll(a, &after_a, 10), number_b = strtoll(b, &after_b, 10);
    if (*after_a == '\0' && *after_b == '\0') {
        return number_a < number_b ? -1 : number_a > number_b;
    }
    return strcmp(a, b);
}

/* Says keys, which are JSON, as an array in their order. */
static void say_keys(const char *name, char **keys, size_t count) {
    size_t size = 3;
    for (size_t i = 0; i < count; i++) {
        size += strlen(keys[i]) + 1;
    }
    char *array = malloc(size);
    if (array == NULL) {
        abort();
    }
    qsort(keys, count, sizeof *keys, by_key);
    size_t used = 0;
    array[used++] = '[';
    for (size_t i = 0; i < count; i++) {
        used += (size_t)sprintf(array + used, "%s%s", i == 0 ? "" : ",", keys[i]);
    }
    strcpy(array + used, "]");
    say(name, array);
    free(array);
}

/* --- serving ----------------------------------------------------------------------------------------------------- */

static void remember(struct ran *ran, const char *key) {
    ran->runs++;
    for (size_t i = 0; i < ran->count; i++) {
        if (strcmp(ran->keys[i], key) == 0) {
            return;
        }
    }
    char **keys = realloc(ran->keys, (ran->count + 1) * sizeof *keys);
    if (keys == NULL || (keys[ran->count] = malloc(strlen(key) + 1)) == NULL) {
        abort();
    }
    ran->keys = keys;
    strcpy(ran->keys[ran->count++], key);
}

static void *serve(void *user_data) {
    thing_t *thing = user_data;
    coord_work_t *work = NULL;
    while (coord_reconciler_next(thing->reconciler, -1, NULL, &work, NULL) == COORD_OK) {
        pthread_mutex_lock(&thing->mutex);
        remember(thing->ran, coord_work_key(work));
        pthread_mutex_unlock(&thing->mutex);
        coord_work_complete(work, COORD_OUTCOME_DONE, 0, NULL, 0, NULL);
        coord_work_destroy(work);
    }
    return NULL;
}

void end_reconciler(thing_t *thing) {
    coord_reconciler_close(thing->reconciler, CLOSE_MS, NULL, NULL);
    if (thing->ran != NULL) {
        join_background(thing);
        for (size_t i = 0; i < thing->ran->count; i++) {
            free(thing->ran->keys[i]);
        }
        free(thing->ran->keys);
        free(thing->ran);
    }
    forget(thing);
}

static void say_ran(thing_t *thing) {
    if (thing->ran == NULL) {
        say_fail("it is not served");
        return;
    }
    pthread_mutex_lock(&thing->mutex);
    say_ok();
    say_number("count", (long long)thing->ran->count);
    say_number("runs", thing->ran->runs);
    say_keys("keys", thing->ran->keys, thing->ran->count);
    pthread_mutex_unlock(&thing->mutex);
}

/* --- starting ---------------------------------------------------------------------------------------------------- */

static coord_status_t table_source(coord_client_t *client, const char *name, const words_t *words, coord_source_t **source,
                                   coord_error_t **error) {
    coord_table_t *table = NULL;
    size_t length = 0;
    const char *filter = words_get(words, "filter", &length);
    coord_status_t status = coord_table_new(client, name, COORD_NUL, COORD_FORMAT_JSON, &table, error);
    if (status == COORD_OK) {
        status = coord_source_table(table, filter, length, source, error);
    }
    coord_table_destroy(table);
    return status;
}

/* The source that the words name. */
static coord_status_t source_of(const words_t *words, coord_client_t *client, coord_source_t **source,
                                coord_error_t **error) {
    const char *text = words_get(words, "source", NULL);
    if (text == NULL) {
        text = "";
    }
    if (strncmp(text, "table:", 6) == 0) {
        return table_source(client, text + 6, words, source, error);
    }
    if (strncmp(text, "observer:", 9) == 0) {
        return coord_source_observer(text + 9, COORD_NUL, source, error);
    }
    if (strncmp(text, "locks:", 6) == 0) {
        return coord_source_released_locks(text + 6, COORD_NUL, source, error);
    }
    return coord_source_manual(source, error);
}

static coord_options_t *options_of(const words_t *words) {
    static const struct { const char *word, *option; } numbers[] = {
        {"workers", "workers"}, {"shards", "shards"}, {"backoff_ms", "backoff_min_ms"}, {"backoff_ms", "backoff_max_ms"},
        {"resync_ms", "resync_ms"}, {"move_grace_ms", "move_grace_ms"}};
    coord_options_t *options = NULL;
    size_t length = 0;
    const char *mode = words_get(words, "mode", &length);
    coord_options_new(&options, NULL);
    if (mode != NULL) {
        coord_options_set_text(options, "mode", COORD_NUL, mode, length, NULL);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (words_get(words, numbers[i].word, NULL) != NULL) {
            coord_options_set_number(options, numbers[i].option, COORD_NUL, number_of(words, numbers[i].word, 0), NULL);
        }
    }
    return options;
}

int do_reconcile(const words_t *words, coord_client_t *client) {
    if (!is(words, "reconcile")) {
        return 0;
    }
    coord_source_t *source = NULL;
    coord_reconciler_t *reconciler = NULL;
    coord_error_t *error = NULL;
    size_t length = 0;
    const char *name = words_get(words, "name", &length), *served = words_get(words, "serve", NULL);
    coord_options_t *options = options_of(words);
    coord_status_t status = source_of(words, client, &source, &error);
    if (status == COORD_OK) {
        status = coord_client_reconcile(client, name, length, source, COORD_FORMAT_JSON, options, BOUND_MS, NULL, &reconciler,
                                        &error);
    }
    coord_source_destroy(source);
    coord_options_destroy(options);
    if (!say_status(status, &error)) {
        return 1;
    }
    thing_t *thing = add(RECONCILER, words_get(words, "as", NULL));
    if (thing == NULL) {
        coord_reconciler_destroy(reconciler);
        return 1;
    }
    thing->reconciler = reconciler;
    if (served != NULL && strcmp(served, "true") == 0) {
        thing->ran = calloc(1, sizeof *thing->ran);
        run_in_background(thing, serve);
    }
    return 1;
}

/* --- runs -------------------------------------------------------------------------------------------------------- */

static void do_work(const words_t *words, coord_reconciler_t *reconciler) {
    coord_work_t *work = NULL;
    coord_error_t *error = NULL;
    coord_status_t status = coord_reconciler_next(reconciler, BOUND_MS, NULL, &work, &error);
    if (status == COORD_E_TIMEOUT) {
        coord_error_destroy(error);
        say_fail("no key has come within 30 s");
        return;
    }
    if (!say_status(status, &error)) {
        return;
    }
    say("key", coord_work_key(work));
    say_number("attempt", coord_work_attempt(work));
    if (coord_work_has_document(work)) {
        say("document", coord_work_document(work));
    }
    if (coord_work_has_revision(work)) {
        say_number("revision", (long long)coord_work_revision(work));
    }
    if (coord_work_token(work) != 0) {
        say_number("token", coord_work_token(work));
    }
    thing_t *thing = add(WORK, words_get(words, "as", NULL));
    if (thing == NULL) {
        coord_work_destroy(work);
        return;
    }
    thing->work = work;
}

static void do_complete(const words_t *words, thing_t *thing) {
    static const char *const outcomes[] = {"done", "requeue", "error", "terminal"};
    static const int32_t numbers[] = {COORD_OUTCOME_DONE, COORD_OUTCOME_REQUEUE_AFTER, COORD_OUTCOME_ERROR,
                                      COORD_OUTCOME_TERMINAL};
    coord_error_t *error = NULL;
    const char *text = words_get(words, "outcome", NULL), *message = words_get(words, "message", NULL);
    size_t which = 0;
    while (text != NULL && which < 4 && strcmp(outcomes[which], text) != 0) {
        which++;
    }
    if (which == 4) {
        say_fail("there is no such outcome");
        return;
    }
    int32_t outcome = numbers[which];
    if (outcome == COORD_OUTCOME_ERROR && words_get(words, "after_ms", NULL) != NULL) {
        outcome = COORD_OUTCOME_ERROR_AFTER;
    }
    if (outcome == COORD_OUTCOME_DONE || outcome == COORD_OUTCOME_REQUEUE_AFTER) {
        message = NULL;
    } else if (message == NULL) {
        message = "failed";
    }
    say_status(coord_work_complete(thing->work, outcome, number_of(words, "after_ms", 0), message, COORD_NUL, &error), &error);
    forget(thing);
}

static int do_with_work(const words_t *words, thing_t *thing) {
    coord_error_t *error = NULL;
    if (is(words, "complete")) {
        do_complete(words, thing);
    } else if (is(words, "check")) {
        say_status(coord_work_check(thing->work, &error), &error);
    } else if (is(words, "cancelled")) {
        say_status(coord_work_wait_cancelled(thing->work, BOUND_MS, NULL, &error), &error);
    } else {
        return 0;
    }
    return 1;
}

/* --- the rest ---------------------------------------------------------------------------------------------------- */

static void say_stats(coord_reconciler_t *reconciler) {
    coord_reconciler_stats_t *stats = NULL;
    coord_error_t *error = NULL;
    if (!say_status(coord_reconciler_stats(reconciler, &stats, &error), &error)) {
        return;
    }
    say("name", coord_reconciler_name(reconciler));
    for (int32_t i = 0; coord_reconciler_stat_name(i)[0] != '\0'; i++) {
        int64_t count = coord_reconciler_stats_value(stats, i);
        if (i == COORD_RECONCILER_STAT_SYNCED || i == COORD_RECONCILER_STAT_PAUSED) {
            say(coord_reconciler_stat_name(i), count ? "true" : "false");
        } else {
            say_number(coord_reconciler_stat_name(i), count);
        }
    }
    char shards[8192] = "";
    size_t used = 0, count = coord_reconciler_stats_shard_count(stats);
    for (size_t i = 0; i < count && used < sizeof shards - 16; i++) {
        used += (size_t)sprintf(shards + used, "%s%u", i == 0 ? "" : ",", coord_reconciler_stats_shard(stats, i));
    }
    say("shards", shards);
    say_number("holds", (long long)count);
    coord_reconciler_stats_destroy(stats);
}

static void say_parked(coord_reconciler_t *reconciler) {
    coord_parked_list_t *list = NULL;
    coord_error_t *error = NULL;
    if (!say_status(coord_reconciler_parked(reconciler, &list, &error), &error)) {
        return;
    }
    char *keys[64], reasons[4096] = "";
    size_t count = coord_parked_list_count(list);
    count = count < 64 ? count : 64;
    for (size_t i = 0; i < count; i++) {
        keys[i] = (char *)coord_parked_list_key(list, i);
    }
    say_number("count", (long long)count);
    say_keys("keys", keys, count);
    /* In the order of the keys. */
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < count; j++) {
            if (keys[i] == coord_parked_list_key(list, j)) {
                size_t used = strlen(reasons);
                snprintf(reasons + used, sizeof reasons - used, "%s%s", i == 0 ? "" : ",", coord_parked_list_reason(list, j));
            }
        }
    }
    say("reasons", reasons);
    coord_parked_list_destroy(list);
}

static void do_with_key(const words_t *words, coord_reconciler_t *reconciler) {
    coord_error_t *error = NULL;
    size_t length = 0;
    const char *key = words_get(words, "key", &length);
    int32_t news = 0;
    coord_status_t status = COORD_OK;
    if (is(words, "reconciled")) {
        uint64_t position = (uint64_t)number_of(words, "position", 0);
        status = coord_reconciler_wait_until_reconciled(reconciler, key, length, position,
                                                        number_of(words, "timeout_ms", BOUND_MS), NULL, &error);
        say_status(status, &error);
        return;
    }
    if (is(words, "cancel_key")) {
        status = coord_reconciler_cancel(reconciler, key, length, &news, &error);
    } else if (words_get(words, "after_ms", NULL) != NULL) {
        status = coord_reconciler_add_after(reconciler, key, length, number_of(words, "after_ms", 0), &news, &error);
    } else {
        status = coord_reconciler_add(reconciler, key, length, &news, &error);
    }
    if (say_status(status, &error)) {
        say("news", news ? "true" : "false");
    }
}

int do_with_reconciler(const words_t *words) {
    coord_error_t *error = NULL;
    const char *name = words_get(words, "hold", NULL);
    thing_t *thing = find(name, RECONCILER), *work = find(name, WORK);
    int64_t timeout_ms = number_of(words, "timeout_ms", BOUND_MS);
    if (work != NULL) {
        return do_with_work(words, work);
    }
    if (thing == NULL) {
        return 0;
    }
    if (is(words, "work")) {
        do_work(words, thing->reconciler);
    } else if (is(words, "reconciler")) {
        say_stats(thing->reconciler);
    } else if (is(words, "ran")) {
        say_ran(thing);
    } else if (is(words, "add") || is(words, "cancel_key") || is(words, "reconciled")) {
        do_with_key(words, thing->reconciler);
    } else if (is(words, "pause")) {
        say_status(coord_reconciler_pause(thing->reconciler, &error), &error);
    } else if (is(words, "resume")) {
        say_status(coord_reconciler_resume(thing->reconciler, &error), &error);
    } else if (is(words, "drain")) {
        say_status(coord_reconciler_drain(thing->reconciler, timeout_ms, NULL, &error), &error);
    } else if (is(words, "parked")) {
        say_parked(thing->reconciler);
    } else if (is(words, "end")) {
        say_status(coord_reconciler_close(thing->reconciler, timeout_ms, NULL, &error), &error);
    } else {
        return 0;
    }
    return 1;
}
