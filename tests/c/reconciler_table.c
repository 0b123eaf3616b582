/* Each document is a key: run as it is when its run begins, once for what is there and once more for each change, deletions
 * included; and what a run writes under its right is refused when the right is lost. */
#include "test.h"

static coord_table_t *table_of(coord_client_t *client, const char *name) {
    coord_table_t *table = NULL;
    OK(coord_table_new(client, name, COORD_NUL, COORD_FORMAT_JSON, &table, &err));
    return table;
}

/* Writes, and gives the place of the write in the store's history. */
static uint64_t write_to(coord_table_t *table, int32_t action, const char *key, const char *document) {
    coord_written_t *written = NULL;
    OK(coord_table_write(table, action, key, COORD_NUL, document, document == NULL ? 0 : COORD_NUL, NULL, NULL, WAIT_MS, NULL,
                         &written, &err));
    uint64_t position = coord_written_position(written);
    coord_written_destroy(written);
    return position;
}

static coord_reconciler_t *reconcile(coord_client_t *client, coord_table_t *table, const char *filter, const char *mode) {
    coord_source_t *source = NULL;
    coord_options_t *options = NULL;
    coord_reconciler_t *reconciler = NULL;
    OK(coord_source_table(table, filter, filter == NULL ? 0 : COORD_NUL, &source, &err));
    OK(coord_options_new(&options, &err));
    OK(coord_options_set_text(options, "mode", COORD_NUL, mode, COORD_NUL, &err));
    OK(coord_client_reconcile(client, "r", 1, source, COORD_FORMAT_JSON, options, WAIT_MS, NULL, &reconciler, &err));
    coord_options_destroy(options);
    coord_source_destroy(source);
    return reconciler;
}

/* The next run, which is of this key and sees this document; NULL for none. */
static coord_work_t *next(coord_reconciler_t *reconciler, const char *key, const char *document) {
    coord_work_t *work = NULL;
    OK(coord_reconciler_next(reconciler, WAIT_MS, NULL, &work, &err));
    SAME_TEXT(coord_work_key(work), key);
    EQUAL(coord_work_has_document(work), document != NULL);
    SAME_TEXT(coord_work_document(work), document == NULL ? "" : document);
    EQUAL(coord_work_has_revision(work), document != NULL);
    return work;
}

static void done(coord_work_t *work) {
    OK(coord_work_complete(work, COORD_OUTCOME_DONE, 0, NULL, 0, &err));
    coord_work_destroy(work);
}

static void every_change(coord_client_t *client, coord_client_t *other) {
    coord_table_t *table = table_of(other, "things"), *own = table_of(client, "things");
    write_to(table, COORD_WRITE_INSERT, "1", "{\"on\":true}");
    coord_reconciler_t *r = reconcile(client, own, "{\"on\":true}", "all");
    coord_table_destroy(own);
    done(next(r, "1", "{\"_id\":1,\"on\":true}"));
    write_to(table, COORD_WRITE_INSERT, "2", "{\"on\":false}");
    uint64_t position = write_to(table, COORD_WRITE_UPDATE, "1", "{\"$set\":{\"n\":1}}");
    FAILS(COORD_E_TIMEOUT, coord_reconciler_wait_until_reconciled(r, "1", 1, position, 0, NULL, &err));
    coord_work_t *work = next(r, "1", "{\"_id\":1,\"on\":true,\"n\":1}");

    /* Two changes during a run are one more run, which sees the second; then it matches no more, and then it is gone. */
    write_to(table, COORD_WRITE_UPDATE, "1", "{\"$inc\":{\"n\":1}}");
    position = write_to(table, COORD_WRITE_UPDATE, "1", "{\"$inc\":{\"n\":1}}");
    /* Both are in the queue when another key, which has nothing to be run, is reconciled up to the second. */
    OK(coord_reconciler_wait_until_reconciled(r, "0", 1, position, WAIT_MS, NULL, &err));
    done(work);
    done(next(r, "1", "{\"_id\":1,\"on\":true,\"n\":3}"));
    OK(coord_reconciler_wait_until_reconciled(r, "1", 1, position, WAIT_MS, NULL, &err));
    write_to(table, COORD_WRITE_UPDATE, "1", "{\"$set\":{\"on\":false}}");
    done(next(r, "1", NULL));
    write_to(table, COORD_WRITE_UPDATE, "2", "{\"$set\":{\"on\":true}}");
    work = next(r, "2", "{\"_id\":2,\"on\":true}");
    uint64_t revision = coord_work_revision(work);
    OK(coord_table_write(table, COORD_WRITE_REPLACE, "2", 1, "{\"on\":true,\"seen\":1}", COORD_NUL, &revision, NULL, WAIT_MS,
                         NULL, NULL, &err));
    done(work);
    done(next(r, "2", "{\"_id\":2,\"on\":true,\"seen\":1}"));
    position = write_to(table, COORD_WRITE_DELETE, "2", NULL);
    done(next(r, "2", NULL));
    OK(coord_reconciler_wait_until_reconciled(r, "2", 1, position, WAIT_MS, NULL, &err));
    OK(coord_reconciler_close(r, WAIT_MS, NULL, &err));
    coord_reconciler_destroy(r);
    coord_table_destroy(table);
}

static void fenced_writes(coord_client_t *client, coord_client_t *other) {
    coord_table_t *table = table_of(client, "led");
    write_to(table, COORD_WRITE_INSERT, "\"x\"", "{}");
    coord_reconciler_t *first = reconcile(client, table, NULL, "leader");
    coord_work_t *work = next(first, "\"x\"", "{\"_id\":\"x\"}");
    coord_fence_t *old = NULL, *fence = NULL;
    FAILS(COORD_E_INVALID_ARGUMENT, coord_work_fence(work, 2, &old, &err));
    OK(coord_work_fence(work, 0, &old, &err));
    OK(coord_work_fence(work, 1, &fence, &err));
    OK(coord_table_write(table, COORD_WRITE_PUT, "\"y\"", 3, "{}", 2, NULL, fence, WAIT_MS, NULL, NULL, &err));
    coord_fence_destroy(fence);
    done(work);
    OK(coord_reconciler_close(first, WAIT_MS, NULL, &err));
    coord_reconciler_destroy(first);

    coord_table_t *theirs = table_of(other, "led");
    coord_reconciler_t *second = reconcile(other, theirs, "{\"_id\":\"y\"}", "leader");
    coord_table_destroy(theirs);
    work = next(second, "\"y\"", "{\"_id\":\"y\"}");
    OK(coord_work_fence(work, 0, &fence, &err));
    OK(coord_table_write(table, COORD_WRITE_UPDATE, "\"y\"", 3, "{\"$set\":{\"by\":2}}", COORD_NUL, NULL, fence, WAIT_MS, NULL,
                         NULL, &err));
    FAILS(COORD_E_FENCED, coord_table_write(table, COORD_WRITE_PUT, "\"y\"", 3, "{}", 2, NULL, old, WAIT_MS, NULL, NULL, &err));
    coord_fence_destroy(old);
    coord_fence_destroy(fence);
    done(work);
    done(next(second, "\"y\"", "{\"_id\":\"y\",\"by\":2}"));
    OK(coord_reconciler_close(second, WAIT_MS, NULL, &err));
    coord_reconciler_destroy(second);
    coord_table_destroy(table);
}

int main(void) {
    coord_client_t *client = connect_as("client"), *other = connect_as("other");
    every_change(client, other);
    fenced_writes(client, other);
    OK(coord_client_close(client, WAIT_MS, &err));
    OK(coord_client_close(other, WAIT_MS, &err));
    coord_client_destroy(client);
    coord_client_destroy(other);
    return 0;
}
