/* A mailer and an outbox: what is sent arrives, and results cross as JSON. The mail server is in COORD_TEST_SMTP. */
#include "test.h"

static coord_mailer_t *mailer_of(coord_client_t *client, const char *more) {
    char url[200];
    const char *port = getenv("COORD_TEST_SMTP");
    snprintf(url, sizeof url, "smtp://127.0.0.1:%s?tls=none", port);
    coord_mailer_t *mailer = NULL;
    OK(coord_mailer_new(client, url, COORD_NUL, more, COORD_NUL, &mailer, &err));
    CHECK(strstr(coord_mailer_location(mailer), "smtp://127.0.0.1:") != NULL);
    return mailer;
}

#define HAS(text, part) \
    do { \
        if (strstr(coord_text_data(text), part) == NULL) { \
            fprintf(stderr, "%s:%d: no %s in %s\n", __FILE__, __LINE__, part, coord_text_data(text)); \
            abort(); \
        } \
    } while (0)

static const char *MESSAGE = "{\"to\": [\"ann@example.org\", {\"name\": \"Bob\", \"address\": \"bob@example.org\"}], "
                             "\"subject\": \"Grüße\", \"text\": \"Hello.\"}";

static void sending(coord_client_t *client) {
    coord_mailer_t *mailer = mailer_of(client, "{\"sender\": \"shop@example.org\", \"timeout\": 30}");
    coord_queue_t *queue = new_queue();
    coord_text_t *text = NULL;
    OK(coord_mailer_health(mailer, WAIT_MS, NULL, &err));
    OK(coord_mailer_send(mailer, MESSAGE, COORD_NUL, WAIT_MS, NULL, &text, &err));
    HAS(text, "\"address\":\"bob@example.org\"");
    HAS(text, "\"status\":\"accepted\"");
    EQUAL(coord_text_length(text), strlen(coord_text_data(text)));
    coord_text_destroy(text);

    OK(coord_mailer_send_start(mailer, MESSAGE, COORD_NUL, WAIT_MS, queue, 7, NULL, &err));
    coord_event_t *event = expect_event(queue, COORD_EVENT_TEXT, 7, COORD_OK);
    OK(coord_event_take_text(event, &text, &err));
    HAS(text, "\"code\":250");
    coord_text_destroy(text);
    FAILS(COORD_E_NOT_FOUND, coord_event_take_text(event, &text, &err));
    coord_event_destroy(event);

    FAILS(COORD_E_INVALID_ARGUMENT, coord_mailer_send(mailer, "{}", COORD_NUL, WAIT_MS, NULL, &text, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_mailer_send(mailer, "[]", COORD_NUL, WAIT_MS, NULL, &text, &err));
    coord_error_t *error = NULL;
    EQUAL(coord_mailer_send(mailer, "{\"to\": \"a@b.c\", \"subject\": \"x\\r\\nBcc: e@f.g\"}", COORD_NUL, WAIT_MS, NULL,
                            &text, &error), COORD_E_INVALID_ARGUMENT);
    CHECK(strncmp(coord_error_message(error), "subject:", 8) == 0);
    coord_error_destroy(error);

    coord_mail_batch_t *batch = NULL;
    char many[1000];
    snprintf(many, sizeof many, "[%s, {}, %s]", MESSAGE, MESSAGE);
    OK(coord_mailer_send_many(mailer, many, COORD_NUL, &batch, &err));
    EQUAL(coord_mail_batch_total(batch), 3);
    int reports = 0, errors = 0;
    for (;;) {
        OK(coord_mail_batch_next(batch, WAIT_MS, NULL, &text, &err));
        if (text == NULL) break;
        if (strstr(coord_text_data(text), "\"report\"") != NULL) reports++;
        if (strstr(coord_text_data(text), "\"name\":\"InvalidArgument\"") != NULL) errors++;
        coord_text_destroy(text);
    }
    EQUAL(reports, 2);
    EQUAL(errors, 1);
    OK(coord_mail_batch_next_start(batch, WAIT_MS, queue, 8, NULL, &err));
    event = expect_event(queue, COORD_EVENT_TEXT, 8, COORD_OK);
    OK(coord_event_take_text(event, &text, &err));
    CHECK(text == NULL);
    coord_event_destroy(event);
    coord_mail_batch_destroy(batch);

    OK(coord_mailer_health_start(mailer, WAIT_MS, queue, 9, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 9, COORD_OK);
    OK(coord_mailer_close_start(mailer, WAIT_MS, queue, 10, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 10, COORD_OK);
    OK(coord_mailer_close(mailer, WAIT_MS, NULL, &err));
    FAILS(COORD_E_CLOSED, coord_mailer_send(mailer, MESSAGE, COORD_NUL, WAIT_MS, NULL, &text, &err));
    coord_mailer_destroy(mailer);
    coord_queue_destroy(queue);
}

static void outbox(coord_client_t *client) {
    coord_mailer_t *mailer = mailer_of(client, "{\"sender\": \"shop@example.org\"}");
    coord_outbox_t *outbox = NULL;
    coord_outbox_watch_t *watch = NULL;
    coord_senders_t *senders = NULL;
    coord_text_t *text = NULL;
    char id[65] = "";
    OK(coord_outbox_new(client, "letters", COORD_NUL, mailer, "{\"poll\": \"50ms\"}", COORD_NUL, &outbox, &err));
    OK(coord_outbox_watch_new(outbox, &watch, &err));
    OK(coord_outbox_watch_next(watch, WAIT_MS, NULL, &text, &err));
    HAS(text, "\"gap\"");
    coord_text_destroy(text);

    OK(coord_outbox_enqueue(outbox, MESSAGE, COORD_NUL, "k", COORD_NUL, 0, 0, WAIT_MS, NULL, &text, &err));
    HAS(text, "\"new\":true");
    const char *found = strstr(coord_text_data(text), "\"id\":\"");
    CHECK(found != NULL);
    memcpy(id, found + 6, 64);
    coord_text_destroy(text);
    OK(coord_outbox_enqueue(outbox, MESSAGE, COORD_NUL, "k", COORD_NUL, 0, 0, WAIT_MS, NULL, &text, &err));
    HAS(text, "\"new\":false");
    coord_text_destroy(text);
    OK(coord_outbox_list(outbox, "queued", COORD_NUL, 10, WAIT_MS, NULL, &text, &err));
    HAS(text, id);
    coord_text_destroy(text);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_outbox_list(outbox, "lost", COORD_NUL, 10, WAIT_MS, NULL, &text, &err));

    OK(coord_outbox_start(outbox, 2, &senders, &err));
    do {
        OK(coord_outbox_watch_next(watch, WAIT_MS, NULL, &text, &err));
        found = strstr(coord_text_data(text), "\"state\":\"sent\"");
        coord_text_destroy(text);
    } while (found == NULL);
    OK(coord_outbox_get(outbox, id, COORD_NUL, WAIT_MS, NULL, &text, &err));
    HAS(text, "\"attempts\":1");
    coord_text_destroy(text);
    OK(coord_outbox_get(outbox, "none", COORD_NUL, WAIT_MS, NULL, &text, &err));
    CHECK(text == NULL);
    FAILS(COORD_E_CONFLICT, coord_outbox_retry(outbox, id, COORD_NUL, WAIT_MS, NULL, &err));
    FAILS(COORD_E_CONFLICT, coord_outbox_cancel(outbox, id, COORD_NUL, WAIT_MS, NULL, &err));
    FAILS(COORD_E_NOT_FOUND, coord_outbox_cancel(outbox, "none", COORD_NUL, WAIT_MS, NULL, &err));
    OK(coord_outbox_stats(outbox, WAIT_MS, NULL, &text, &err));
    HAS(text, "\"sent\":1");
    coord_text_destroy(text);
    OK(coord_senders_stop(senders, WAIT_MS, NULL, &err));
    coord_senders_destroy(senders);
    OK(coord_outbox_purge(outbox, 0, WAIT_MS, NULL, &text, &err));
    SAME_TEXT(coord_text_data(text), "1");
    coord_text_destroy(text);
    coord_outbox_watch_destroy(watch);
    coord_outbox_destroy(outbox);
    coord_mailer_destroy(mailer);
}

int main(void) {
    coord_client_t *client = connect_as("mail");
    sending(NULL);
    sending(client);
    outbox(client);
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    return 0;
}
