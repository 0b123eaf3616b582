/* The session is described, its end is told, and what watches it does not keep the client open. */
#include "test.h"

int main(void) {
    coord_client_t *client = connect_as("watched"), *other = NULL;
    coord_session_t *session = NULL, *changed = NULL;
    coord_queue_t *queue = new_queue();
    OK(coord_client_open_session(client, WAIT_MS, NULL, &other, &err));

    OK(coord_client_session(client, &session, &err));
    EQUAL(coord_session_state(session), COORD_SESSION_LIVE);
    EQUAL(coord_client_session_state(client), COORD_SESSION_LIVE);
    EQUAL(coord_session_loss(session), COORD_LOSS_NONE);
    EQUAL(strlen(coord_session_id(session)), 32);
    SAME_TEXT(coord_session_name(session), "watched");
    CHECK(coord_session_host(session)[0] != 0);
    CHECK(coord_session_ttl_ms(session) >= 1000);
    CHECK(coord_session_remaining_ms(session) > 0);
    CHECK(coord_session_remaining_ms(session) <= coord_session_ttl_ms(session));

    FAILS(COORD_E_TIMEOUT, coord_client_session_wait(client, session, 10, NULL, &changed, &err));
    OK(coord_client_session_wait_start(client, session, queue, 1, NULL, &err));
    OK(coord_client_close(client, WAIT_MS, &err));
    expect(queue, COORD_EVENT_SESSION, 1, COORD_E_CLOSED);
    FAILS(COORD_E_CLOSED, coord_client_session_wait(client, session, WAIT_MS, NULL, &changed, &err));
    CHECK(changed == NULL);
    coord_session_destroy(session);

    /* A snapshot that was not the other's: that is a change, and one that is told at once. */
    OK(coord_client_session(client, &session, &err));
    OK(coord_client_session_wait(other, session, WAIT_MS, NULL, &changed, &err));
    CHECK(strcmp(coord_session_id(session), coord_session_id(changed)) != 0);
    EQUAL(coord_session_state(changed), COORD_SESSION_LIVE);
    coord_session_destroy(session);
    OK(coord_client_session_wait_start(other, changed, queue, 2, NULL, &err));
    coord_client_destroy(other);
    expect(queue, COORD_EVENT_SESSION, 2, COORD_E_CLOSED);
    coord_session_destroy(changed);

    coord_queue_destroy(queue);
    coord_client_destroy(client);
    return 0;
}
