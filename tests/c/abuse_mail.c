/* Bad input through every entry point of mailers and outboxes: as abuse.c. Nothing of it reaches a mail server. */
#include "abuse.h"

static coord_client_t *client;
static coord_queue_t *queue;
static coord_mailer_t *mailer;
static coord_mail_batch_t *batch;
static coord_outbox_t *outbox;
static coord_outbox_watch_t *watch;
static coord_senders_t *senders;

static coord_mailer_t *new_mailer = UNTOUCHED;
static coord_mail_batch_t *new_batch = UNTOUCHED;
static coord_outbox_t *new_outbox = UNTOUCHED;
static coord_outbox_watch_t *new_watch = UNTOUCHED;
static coord_senders_t *new_senders = UNTOUCHED;
static coord_text_t *new_text = UNTOUCHED;
static coord_op_t *new_op = UNTOUCHED;

#define MAIL "{\"to\": \"ann@example.org\"}"
#define URL "smtp://127.0.0.1:1?tls=none&sender=a@example.org&retries=0"

#define WITH_MAILER(code, h) \
    FAILS(code, coord_mailer_send(h, MAIL, COORD_NUL, WAIT_MS, NULL, &new_text, &err)); \
    FAILS(code, coord_mailer_send_start(h, MAIL, COORD_NUL, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_mailer_send_many(h, "[]", COORD_NUL, &new_batch, &err)); \
    FAILS(code, coord_mailer_health(h, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_mailer_health_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_mailer_close(h, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_mailer_close_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_outbox_new(client, "o", 1, h, NULL, 0, &new_outbox, &err)); \
    SAME_TEXT(coord_mailer_location(h), "")

#define WITH_BATCH(code, h) \
    FAILS(code, coord_mail_batch_next(h, WAIT_MS, NULL, &new_text, &err)); \
    FAILS(code, coord_mail_batch_next_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    EQUAL(coord_mail_batch_total(h), 0)

#define WITH_OUTBOX(code, h) \
    FAILS(code, coord_outbox_enqueue(h, MAIL, COORD_NUL, "k", 1, 0, 0, WAIT_MS, NULL, &new_text, &err)); \
    FAILS(code, coord_outbox_enqueue_start(h, MAIL, COORD_NUL, "k", 1, 0, 0, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_outbox_get(h, "i", 1, WAIT_MS, NULL, &new_text, &err)); \
    FAILS(code, coord_outbox_get_start(h, "i", 1, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_outbox_list(h, NULL, 0, 1, WAIT_MS, NULL, &new_text, &err)); \
    FAILS(code, coord_outbox_list_start(h, NULL, 0, 1, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_outbox_stats(h, WAIT_MS, NULL, &new_text, &err)); \
    FAILS(code, coord_outbox_stats_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_outbox_retry(h, "i", 1, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_outbox_retry_start(h, "i", 1, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_outbox_cancel(h, "i", 1, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_outbox_cancel_start(h, "i", 1, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_outbox_purge(h, 1, WAIT_MS, NULL, &new_text, &err)); \
    FAILS(code, coord_outbox_purge_start(h, 1, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_outbox_watch_new(h, &new_watch, &err)); \
    FAILS(code, coord_outbox_start(h, 1, &new_senders, &err))

#define WITH_WATCH(code, h) \
    FAILS(code, coord_outbox_watch_next(h, WAIT_MS, NULL, &new_text, &err)); \
    FAILS(code, coord_outbox_watch_next_start(h, WAIT_MS, queue, 1, &new_op, &err))

#define WITH_SENDERS(code, h) \
    FAILS(code, coord_senders_stop(h, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_senders_stop_start(h, WAIT_MS, queue, 1, &new_op, &err))

static void abuse_everything_with(const void *bad) {
    WITH_MAILER(COORD_E_HANDLE, (coord_mailer_t *)bad);
    WITH_BATCH(COORD_E_HANDLE, (coord_mail_batch_t *)bad);
    WITH_OUTBOX(COORD_E_HANDLE, (coord_outbox_t *)bad);
    WITH_WATCH(COORD_E_HANDLE, (coord_outbox_watch_t *)bad);
    WITH_SENDERS(COORD_E_HANDLE, (coord_senders_t *)bad);
    FAILS(COORD_E_HANDLE, coord_outbox_new((coord_client_t *)bad, "o", 1, mailer, NULL, 0, &new_outbox, &err));
    FAILS(COORD_E_HANDLE, coord_event_take_text((coord_event_t *)bad, &new_text, &err));
    SAME_TEXT(coord_text_data((const coord_text_t *)bad), "");
    EQUAL(coord_text_length((const coord_text_t *)bad), 0);
    if (bad != NULL) {
        FAILS(COORD_E_HANDLE, coord_mailer_new((coord_client_t *)bad, URL, COORD_NUL, NULL, 0, &new_mailer, &err));
    }
    coord_mailer_destroy((coord_mailer_t *)bad);
    coord_mail_batch_destroy((coord_mail_batch_t *)bad);
    coord_outbox_destroy((coord_outbox_t *)bad);
    coord_outbox_watch_destroy((coord_outbox_watch_t *)bad);
    coord_senders_destroy((coord_senders_t *)bad);
    coord_text_destroy((coord_text_t *)bad);
}

static void abuse_foreign_handles(void) {
    const void *handles[] = {client, queue, mailer, batch, outbox, watch, senders};
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) {
        const void *h = handles[i];
        if (h != mailer) { WITH_MAILER(COORD_E_HANDLE, (coord_mailer_t *)h); coord_mailer_destroy((coord_mailer_t *)h); }
        if (h != batch) {
            WITH_BATCH(COORD_E_HANDLE, (coord_mail_batch_t *)h);
            coord_mail_batch_destroy((coord_mail_batch_t *)h);
        }
        if (h != outbox) { WITH_OUTBOX(COORD_E_HANDLE, (coord_outbox_t *)h); coord_outbox_destroy((coord_outbox_t *)h); }
        if (h != watch) {
            WITH_WATCH(COORD_E_HANDLE, (coord_outbox_watch_t *)h);
            coord_outbox_watch_destroy((coord_outbox_watch_t *)h);
        }
        if (h != senders) {
            WITH_SENDERS(COORD_E_HANDLE, (coord_senders_t *)h);
            coord_senders_destroy((coord_senders_t *)h);
        }
    }
}

/* Also JSON that is none, or not what is wanted. */
static void abuse_text(const char *bad, size_t length) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_mailer_new(NULL, bad, length, NULL, 0, &new_mailer, &err));
    FAILS(code, coord_mailer_new(NULL, URL, COORD_NUL, bad, length, &new_mailer, &err));
    FAILS(code, coord_mailer_send(mailer, bad, length, WAIT_MS, NULL, &new_text, &err));
    FAILS(code, coord_mailer_send_start(mailer, bad, length, WAIT_MS, queue, 1, &new_op, &err));
    FAILS(code, coord_mailer_send_many(mailer, bad, length, &new_batch, &err));
    FAILS(code, coord_outbox_new(client, "o", 1, mailer, bad, length, &new_outbox, &err));
    FAILS(code, coord_outbox_enqueue(outbox, bad, length, "k", 1, 0, 0, WAIT_MS, NULL, &new_text, &err));
    FAILS(code, coord_outbox_list(outbox, bad, length, 1, WAIT_MS, NULL, &new_text, &err));
}

static void abuse_unreadable(const char *bad, size_t length) {
    abuse_text(bad, length);
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_outbox_new(client, bad, length, mailer, NULL, 0, &new_outbox, &err));
    FAILS(code, coord_outbox_enqueue(outbox, MAIL, COORD_NUL, bad, length, 0, 0, WAIT_MS, NULL, &new_text, &err));
    FAILS(code, coord_outbox_get(outbox, bad, length, WAIT_MS, NULL, &new_text, &err));
    FAILS(code, coord_outbox_retry(outbox, bad, length, WAIT_MS, NULL, &err));
    FAILS(code, coord_outbox_cancel(outbox, bad, length, WAIT_MS, NULL, &err));
}

static void abuse_numbers_and_outs(void) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_mailer_new(NULL, URL, COORD_NUL, NULL, 0, NULL, &err));
    FAILS(code, coord_mailer_send(mailer, MAIL, COORD_NUL, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_mailer_send(mailer, MAIL, COORD_NUL, -2, NULL, &new_text, &err));
    FAILS(code, coord_mailer_send_many(mailer, "[]", COORD_NUL, NULL, &err));
    FAILS(code, coord_mail_batch_next(batch, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_mail_batch_next(batch, INT64_MIN, NULL, &new_text, &err));
    FAILS(code, coord_outbox_new(client, "o", 1, mailer, NULL, 0, NULL, &err));
    FAILS(code, coord_outbox_enqueue(outbox, MAIL, COORD_NUL, "k", 1, 0, 0, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_outbox_enqueue(outbox, MAIL, COORD_NUL, "", 0, 0, 0, WAIT_MS, NULL, &new_text, &err));
    FAILS(code, coord_outbox_enqueue(outbox, MAIL, COORD_NUL, "k", 1, 0, 1, WAIT_MS, NULL, &new_text, &err));
    FAILS(code, coord_outbox_watch_new(outbox, NULL, &err));
    FAILS(code, coord_outbox_watch_next(watch, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_outbox_start(outbox, 0, &new_senders, &err));
    FAILS(code, coord_outbox_start(outbox, UINT32_MAX, &new_senders, &err));
    FAILS(code, coord_outbox_start(outbox, 1, NULL, &err));
    FAILS(code, coord_senders_stop(senders, -2, NULL, &err));
    FAILS(COORD_E_HANDLE, coord_mailer_send_start(mailer, MAIL, COORD_NUL, WAIT_MS, NULL, 1, &new_op, &err));
    FAILS(COORD_E_HANDLE, coord_outbox_stats_start(outbox, WAIT_MS, NULL, 1, &new_op, &err));
}

int main(void) {
    client = connect_as("client");
    queue = new_queue();
    OK(coord_mailer_new(client, URL, COORD_NUL, NULL, 0, &mailer, &err));
    OK(coord_mailer_send_many(mailer, "[]", COORD_NUL, &batch, &err));
    OK(coord_outbox_new(client, "o", 1, mailer, NULL, 0, &outbox, &err));
    OK(coord_outbox_watch_new(outbox, &watch, &err));
    OK(coord_outbox_start(outbox, 1, &senders, &err));
    with_made_up_handles(abuse_everything_with, mailer);
    abuse_foreign_handles();
    with_unreadable_texts(abuse_unreadable);
    static const char *const none[] = {"", "{", "7", "{\"too\": 1}", "[1]", "{\"to\": 7}", "a b"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) abuse_text(none[i], COORD_NUL);
    abuse_numbers_and_outs();
    CHECK(new_mailer == UNTOUCHED && new_batch == UNTOUCHED && new_outbox == UNTOUCHED && new_watch == UNTOUCHED);
    CHECK(new_senders == UNTOUCHED && new_text == UNTOUCHED && new_op == UNTOUCHED);
    expect_no_event(queue);

    OK(coord_senders_stop(senders, WAIT_MS, NULL, &err));
    coord_senders_destroy(senders);
    WITH_SENDERS(COORD_E_HANDLE, senders);
    coord_outbox_watch_destroy(watch);
    WITH_WATCH(COORD_E_HANDLE, watch);
    coord_outbox_destroy(outbox);
    WITH_OUTBOX(COORD_E_HANDLE, outbox);
    coord_mail_batch_destroy(batch);
    WITH_BATCH(COORD_E_HANDLE, batch);
    coord_mailer_destroy(mailer);
    WITH_MAILER(COORD_E_HANDLE, mailer);
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    coord_queue_destroy(queue);
    return 0;
}
