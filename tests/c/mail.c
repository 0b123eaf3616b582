/* A mailer and an outbox: what is sent arrives, and results cross as JSON. The mail server is in COORD_TEST_SMTP. */
#include "test.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <sys/socket.h>

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

static coord_outbox_watch_t *watch_past_the_gap(coord_outbox_t *outbox) {
    coord_outbox_watch_t *watch = NULL;
    coord_text_t *text = NULL;
    OK(coord_outbox_watch_new(outbox, &watch, &err));
    OK(coord_outbox_watch_next(watch, WAIT_MS, NULL, &text, &err));
    HAS(text, "\"gap\"");
    coord_text_destroy(text);
    return watch;
}

static void *waits_for_ever(void *watch) {
    coord_text_t *text = NULL;
    coord_status_t status = coord_outbox_watch_next(watch, -1, NULL, &text, NULL);
    /* The second if the handle was gone before the call. */
    CHECK(status == COORD_E_CLOSED || status == COORD_E_HANDLE);
    CHECK(text == NULL);
    return NULL;
}

/* A wait ends with its handle and with its client, though the store has other sessions. */
static void ends_of_waits(void) {
    coord_client_t *first = connect_as("first"), *client = NULL;
    OK(coord_client_open_session(first, WAIT_MS, NULL, &client, &err));
    coord_mailer_t *mailer = mailer_of(client, "{\"sender\": \"shop@example.org\"}");
    coord_queue_t *queue = new_queue();
    coord_outbox_t *outbox = NULL;
    OK(coord_outbox_new(client, "watched", COORD_NUL, mailer, NULL, 0, &outbox, &err));

    coord_outbox_watch_t *watch = watch_past_the_gap(outbox);
    pthread_t thread;
    OK(coord_outbox_watch_next_start(watch, -1, queue, 1, NULL, &err));
    CHECK(pthread_create(&thread, NULL, waits_for_ever, watch) == 0);
    coord_outbox_watch_destroy(watch);
    expect(queue, COORD_EVENT_TEXT, 1, COORD_E_CLOSED);
    CHECK(pthread_join(thread, NULL) == 0);

    watch = watch_past_the_gap(outbox);
    OK(coord_outbox_watch_next_start(watch, -1, queue, 2, NULL, &err));
    OK(coord_client_close(client, WAIT_MS, &err));
    expect(queue, COORD_EVENT_TEXT, 2, COORD_E_CLOSED);
    coord_outbox_watch_destroy(watch);
    coord_outbox_destroy(outbox);
    coord_mailer_destroy(mailer);
    coord_queue_destroy(queue);
    coord_client_destroy(client);
    OK(coord_client_close(first, WAIT_MS, &err));
    coord_client_destroy(first);
}

/* A mail server that takes all of a message and says nothing more, and how many messages it has taken. */
static atomic_int taken;

static void say(int connection, const char *reply) {
    CHECK(send(connection, reply, strlen(reply), MSG_NOSIGNAL) == (ssize_t)strlen(reply));
}

static void *speaks(void *connection_) {
    int connection = (int)(intptr_t)connection_, content = 0;
    FILE *lines = fdopen(connection, "r");
    char line[2000];
    CHECK(lines != NULL);
    say(connection, "220 here\r\n");
    while (fgets(line, sizeof line, lines) != NULL) {
        if (content) {
            if (strcmp(line, ".\r\n") == 0) {
                content = 0;
                atomic_fetch_add(&taken, 1);
            }
        } else if (strncmp(line, "DATA", 4) == 0) {
            content = 1;
            say(connection, "354 go on\r\n");
        } else {
            say(connection, "250 fine\r\n");
        }
    }
    fclose(lines);
    return NULL;
}

static void *listens(void *socket_) {
    pthread_t threads[8];
    int count = 0, connection;
    while ((connection = accept((int)(intptr_t)socket_, NULL, NULL)) >= 0) {
        CHECK(count < 8);
        CHECK(pthread_create(&threads[count++], NULL, speaks, (void *)(intptr_t)connection) == 0);
    }
    while (count > 0) CHECK(pthread_join(threads[--count], NULL) == 0);
    return NULL;
}

static void *cancels_when_two_are_taken(void *cancel) {
    EVENTUALLY(atomic_load(&taken) == 2);
    coord_cancel_fire(cancel);
    return NULL;
}

/* Whoever gives a message up that has left as a whole is told so, in each way to give up. */
static void given_up(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(listening >= 0 && bind(listening, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(listening, 8) == 0 && getsockname(listening, (struct sockaddr *)&address, &length) == 0);
    pthread_t server, canceller;
    CHECK(pthread_create(&server, NULL, listens, (void *)(intptr_t)listening) == 0);
    char url[200];
    snprintf(url, sizeof url, "smtp://127.0.0.1:%d?tls=none&sender=a@example.org", ntohs(address.sin_port));
    coord_mailer_t *mailer = NULL;
    coord_queue_t *queue = new_queue();
    coord_cancel_t *cancel = NULL;
    coord_text_t *text = NULL;
    coord_op_t *op = NULL;
    /* For a message to leave; under valgrind it takes longer. */
    int64_t enough = getenv("COORD_TEST_SLOW") == NULL ? 1500 : 10000;
    OK(coord_mailer_new(NULL, url, COORD_NUL, NULL, 0, &mailer, &err));
    OK(coord_cancel_new(&cancel, &err));

    FAILS(COORD_E_OUTCOME_UNKNOWN, coord_mailer_send(mailer, MESSAGE, COORD_NUL, enough, NULL, &text, &err));
    EQUAL(atomic_load(&taken), 1);
    CHECK(pthread_create(&canceller, NULL, cancels_when_two_are_taken, cancel) == 0);
    FAILS(COORD_E_OUTCOME_UNKNOWN, coord_mailer_send(mailer, MESSAGE, COORD_NUL, -1, cancel, &text, &err));
    CHECK(pthread_join(canceller, NULL) == 0);
    OK(coord_mailer_send_start(mailer, MESSAGE, COORD_NUL, -1, queue, 1, &op, &err));
    EVENTUALLY(atomic_load(&taken) == 3);
    coord_op_cancel(op);
    expect(queue, COORD_EVENT_TEXT, 1, COORD_E_OUTCOME_UNKNOWN);
    coord_op_destroy(op);
    OK(coord_mailer_send_start(mailer, MESSAGE, COORD_NUL, enough, queue, 2, NULL, &err));
    expect(queue, COORD_EVENT_TEXT, 2, COORD_E_OUTCOME_UNKNOWN);
    EQUAL(atomic_load(&taken), 4);
    /* With a token that was fired before, nothing is begun. */
    FAILS(COORD_E_CANCELLED, coord_mailer_send(mailer, MESSAGE, COORD_NUL, -1, cancel, &text, &err));
    EQUAL(atomic_load(&taken), 4);

    /* A batch ends with its handle, though somebody waits for its next. */
    coord_mail_batch_t *batch = NULL;
    char many[1000];
    snprintf(many, sizeof many, "[%s, %s]", MESSAGE, MESSAGE);
    OK(coord_mailer_send_many(mailer, many, COORD_NUL, &batch, &err));
    OK(coord_mail_batch_next_start(batch, -1, queue, 3, NULL, &err));
    EVENTUALLY(atomic_load(&taken) == 6);
    coord_mail_batch_destroy(batch);
    expect(queue, COORD_EVENT_TEXT, 3, COORD_E_CLOSED);

    coord_cancel_destroy(cancel);
    coord_queue_destroy(queue);
    coord_mailer_destroy(mailer);
    CHECK(shutdown(listening, SHUT_RDWR) == 0);
    CHECK(pthread_join(server, NULL) == 0);
    close(listening);
}

int main(void) {
    coord_client_t *client = connect_as("mail");
    sending(NULL);
    sending(client);
    outbox(client);
    ends_of_waits();
    if (strncmp(test_url(), "memory:", 7) == 0) given_up(); /* it needs no store */
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    return 0;
}
