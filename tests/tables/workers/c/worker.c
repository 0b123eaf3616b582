/* A reconciler that keeps the last state which it has seen of each key: what every change must have come to.
 *
 *     worker URL TABLE [NAME=VALUE ...]
 *
 * The words, the commands and the file are those of worker.py beside it; the statistics have the names that they have in
 * coord.h. */
#define _POSIX_C_SOURCE 200809L
#include <coord.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLOSE_MS 20000
#define MAX_WORKERS 64

/* What was seen of a key, in a table of hashes that is at most half full. */
struct seen {
    char *key;
    char *document; /* NULL for none */
    int64_t token;
};

static struct seen *seen;
static size_t room = 1024, used, documents;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static coord_reconciler_t *reconciler;

static void fail(const char *what, coord_error_t *error) {
    fprintf(stderr, "worker: %s: %s: %s\n", what, coord_error_name(error), coord_error_message(error));
    exit(1);
}

static void *must(void *memory) {
    if (memory == NULL) {
        fprintf(stderr, "worker: out of memory\n");
        exit(1);
    }
    return memory;
}

/* --- what was seen ----------------------------------------------------------------------------------------------- */

static size_t place_of(const struct seen *table, size_t size, const char *key) {
    uint64_t hash = 14695981039346656037u;
    for (const char *c = key; *c != '\0'; c++) {
        hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    }
    size_t place = hash % size;
    while (table[place].key != NULL && strcmp(table[place].key, key) != 0) {
        place = (place + 1) % size;
    }
    return place;
}

static void grow(void) {
    struct seen *larger = must(calloc(room * 2, sizeof *larger));
    for (size_t i = 0; i < room; i++) {
        if (seen[i].key != NULL) {
            larger[place_of(larger, room * 2, seen[i].key)] = seen[i];
        }
    }
    free(seen);
    seen = larger;
    room *= 2;
}

/* Called by whoever has the key, and nobody else has it meanwhile: what is kept is what was seen last. */
static void keep(coord_work_t *work) {
    char *document = coord_work_has_document(work) ? must(strdup(coord_work_document(work))) : NULL;
    pthread_mutex_lock(&mutex);
    struct seen *one = &seen[place_of(seen, room, coord_work_key(work))];
    if (one->key == NULL) {
        one->key = must(strdup(coord_work_key(work)));
        used++;
    }
    if (coord_work_token(work) < one->token) {
        fprintf(stderr, "the key %s was run with token %lld after %lld\n", one->key, (long long)coord_work_token(work),
                (long long)one->token);
        exit(3);
    }
    one->token = coord_work_token(work);
    documents = documents + (document != NULL) - (one->document != NULL);
    free(one->document);
    one->document = document;
    if (used * 2 > room) {
        grow();
    }
    pthread_mutex_unlock(&mutex);
}

static void *run(void *nothing) {
    coord_work_t *work = NULL;
    coord_error_t *error = NULL;
    while (coord_reconciler_next(reconciler, -1, NULL, &work, &error) == COORD_OK) {
        keep(work);
        if (coord_work_complete(work, COORD_OUTCOME_DONE, 0, NULL, 0, &error) != COORD_OK) {
            coord_error_destroy(error); /* lost meanwhile: whoever is next runs it */
            error = NULL;
        }
        coord_work_destroy(work);
    }
    if (coord_error_code(error) != COORD_E_CLOSED) {
        fail("the source", error);
    }
    coord_error_destroy(error);
    return nothing;
}

/* --- commands ---------------------------------------------------------------------------------------------------- */

static int by_key(const void *one, const void *other) {
    const struct seen *const *a = one, *const *b = other;
    return strcmp((*a)->key, (*b)->key);
}

/* Writes all of it, at once or not at all. */
static void dump(const char *path) {
    char new[4096];
    snprintf(new, sizeof new, "%s.new", path);
    FILE *file = fopen(new, "w");
    if (file == NULL) {
        perror("worker");
        exit(1);
    }
    pthread_mutex_lock(&mutex);
    struct seen **all = must(calloc(documents + 1, sizeof *all));
    size_t count = 0;
    for (size_t i = 0; i < room; i++) {
        if (seen[i].document != NULL) {
            all[count++] = &seen[i];
        }
    }
    qsort(all, count, sizeof *all, by_key);
    for (size_t i = 0; i < count; i++) {
        fprintf(file, "{\"key\": %s, \"document\": %s}\n", all[i]->key, all[i]->document);
    }
    pthread_mutex_unlock(&mutex);
    free(all);
    if (fclose(file) != 0 || rename(new, path) != 0) {
        perror("worker");
        exit(1);
    }
    printf("dumped %zu\n", count);
}

static void say_stats(void) {
    coord_reconciler_stats_t *stats = NULL;
    coord_error_t *error = NULL;
    if (coord_reconciler_stats(reconciler, &stats, &error) != COORD_OK) {
        fail("stats", error);
    }
    printf("{");
    for (int32_t i = 0; coord_reconciler_stat_name(i)[0] != '\0'; i++) {
        printf("\"%s\": %lld, ", coord_reconciler_stat_name(i), (long long)coord_reconciler_stats_value(stats, i));
    }
    pthread_mutex_lock(&mutex);
    printf("\"keys\": %zu}\n", documents);
    pthread_mutex_unlock(&mutex);
    coord_reconciler_stats_destroy(stats);
}

/* --- beginning and end ------------------------------------------------------------------------------------------- */

/* Takes NAME=VALUE apart: "name" and "workers" are told, the others are options. 0 if it is not of that form. */
static int set(coord_options_t *options, char *setting, const char **name, int64_t *workers) {
    char *value = strchr(setting, '=');
    if (value == NULL) {
        return 0;
    }
    *value++ = '\0';
    if (strcmp(setting, "name") == 0) {
        *name = value;
        return 1;
    }
    if (strcmp(setting, "workers") == 0) {
        *workers = strtoll(value, NULL, 10);
    }
    coord_status_t status = strcmp(setting, "mode") == 0
                                ? coord_options_set_text(options, setting, COORD_NUL, value, COORD_NUL, NULL)
                                : coord_options_set_number(options, setting, COORD_NUL, strtoll(value, NULL, 10), NULL);
    return status == COORD_OK;
}

static void start(const char *url, const char *named, const char *name, coord_options_t *options) {
    char own[32];
    coord_config_t *config = NULL;
    coord_client_t *client = NULL;
    coord_table_t *table = NULL;
    coord_source_t *source = NULL;
    coord_error_t *error = NULL;
    snprintf(own, sizeof own, "worker-%ld", (long)getpid());
    if (coord_config_new(COORD_ABI_VERSION, url, COORD_NUL, &config, &error) != COORD_OK ||
        coord_config_set(config, "name", COORD_NUL, own, COORD_NUL, &error) != COORD_OK ||
        coord_client_connect(config, -1, NULL, &client, &error) != COORD_OK ||
        coord_table_new(client, named, COORD_NUL, COORD_FORMAT_JSON, &table, &error) != COORD_OK ||
        coord_source_table(table, NULL, 0, &source, &error) != COORD_OK ||
        coord_client_reconcile(client, name, COORD_NUL, source, COORD_FORMAT_JSON, options, -1, NULL, &reconciler,
                               &error) != COORD_OK) {
        fail("start", error);
    }
    coord_source_destroy(source);
    coord_table_destroy(table);
    coord_client_destroy(client); /* the reconciler keeps it open */
    coord_config_destroy(config);
}

static void obey(char *line) {
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(line, "dump ", 5) == 0) {
        dump(line + 5);
    } else if (strcmp(line, "stats") == 0) {
        say_stats();
    } else {
        fprintf(stderr, "there is no command '%s'\n", line);
        exit(1);
    }
    fflush(stdout);
}

int main(int count, char **arguments) {
    const char *name = "last-states";
    int64_t workers = 4;
    coord_options_t *options = NULL;
    coord_options_new(&options, NULL);
    coord_options_set_number(options, "workers", COORD_NUL, workers, NULL);
    int good = count > 2;
    for (int i = 3; i < count; i++) {
        good = set(options, arguments[i], &name, &workers) && good;
    }
    if (!good || workers < 1 || workers > MAX_WORKERS) {
        fprintf(stderr, "usage: worker URL TABLE [NAME=VALUE ...], with up to %d workers\n", MAX_WORKERS);
        return 2;
    }
    seen = must(calloc(room, sizeof *seen));
    start(arguments[1], arguments[2], name, options);
    coord_options_destroy(options);
    pthread_t threads[MAX_WORKERS];
    for (int64_t i = 0; i < workers; i++) {
        if (pthread_create(&threads[i], NULL, run, NULL) != 0) {
            fprintf(stderr, "worker: no thread\n");
            return 1;
        }
    }
    puts("ready");
    fflush(stdout);
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0 && strcmp(line, "end\n") != 0) {
        obey(line);
    }
    free(line);
    coord_error_t *error = NULL;
    if (coord_reconciler_close(reconciler, CLOSE_MS, NULL, &error) != COORD_OK) {
        fail("close", error);
    }
    for (int64_t i = 0; i < workers; i++) {
        pthread_join(threads[i], NULL);
    }
    coord_reconciler_destroy(reconciler);
    for (size_t i = 0; i < room; i++) {
        free(seen[i].key);
        free(seen[i].document);
    }
    free(seen);
    puts("ended");
    return 0;
}
