/* A queue with a callback delivers one event at a time on a thread of its own, and frees the data exactly once. */
#include "test.h"
#include <signal.h>

static coord_queue_t *queue;
static coord_client_t *client;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int delivered, inside, destroyed;

static void deliver(coord_event_t *event, void *user_data) {
    CHECK(user_data == &delivered);
    CHECK(__atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST) == 1);
    EQUAL(coord_event_status(event), COORD_OK);
    EQUAL(destroyed, 0);

    sigset_t blocked;
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &blocked) == 0);
    CHECK(sigismember(&blocked, SIGPIPE) == 1 && sigismember(&blocked, SIGTERM) == 1);

    /* What could wait for this function is refused; other blocking calls are not. */
    coord_event_t *none = NULL;
    FAILS(COORD_E_REENTRANT, coord_queue_poll(queue, 0, &none, &err));
    FAILS(COORD_E_REENTRANT, coord_client_close(client, WAIT_MS, &err));
    OK(coord_client_health(client, WAIT_MS, NULL, &err));

    uint64_t tag = coord_event_tag(event);
    coord_event_destroy(event);
    if (tag == 100) coord_queue_destroy(queue);
    __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&mutex);
    delivered++;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&mutex);
}

static void destroy(void *user_data) {
    CHECK(user_data == &delivered);
    EQUAL(inside, 0);
    pthread_mutex_lock(&mutex);
    destroyed++;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&mutex);
}

static void wait_until(int *counter, int count) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    pthread_mutex_lock(&mutex);
    while (*counter < count) CHECK(pthread_cond_timedwait(&changed, &mutex, &until) == 0);
    pthread_mutex_unlock(&mutex);
    EQUAL(*counter, count);
}

int main(void) {
    client = connect_as("a");
    queue = new_queue();
    OK(coord_queue_set_callback(queue, deliver, &delivered, destroy, &err));
    for (uint64_t tag = 0; tag < 20; tag++) OK(coord_client_health_start(client, WAIT_MS, queue, tag, NULL, &err));
    wait_until(&delivered, 20);
    EQUAL(destroyed, 0);

    coord_event_t *event = NULL;
    size_t count = 0;
    FAILS(COORD_E_INVALID_ARGUMENT, coord_queue_poll(queue, 0, &event, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_queue_poll_batch(queue, 0, &event, 1, &count, &err));

    /* A registration that fails frees its data before it returns. */
    FAILS(COORD_E_ALREADY_EXISTS, coord_queue_set_callback(queue, deliver, &delivered, destroy, &err));
    EQUAL(destroyed, 1);
    FAILS(COORD_E_HANDLE, coord_queue_set_callback(NULL, deliver, &delivered, destroy, &err));
    EQUAL(destroyed, 2);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_queue_set_callback(queue, NULL, &delivered, destroy, &err));
    EQUAL(destroyed, 3);
    FAILS(COORD_E_HANDLE, coord_queue_set_callback(NULL, deliver, &delivered, NULL, &err));
    destroyed = 0;

    /* The callback itself destroys the queue. */
    OK(coord_client_health_start(client, WAIT_MS, queue, 100, NULL, &err));
    wait_until(&destroyed, 1);
    EQUAL(delivered, 21);
    FAILS(COORD_E_HANDLE, coord_client_health_start(client, WAIT_MS, queue, 101, NULL, &err));

    /* Destroyed by another thread, without a single event. */
    queue = new_queue();
    OK(coord_queue_set_callback(queue, deliver, &delivered, destroy, &err));
    coord_queue_destroy(queue);
    wait_until(&destroyed, 2);
    EQUAL(delivered, 21);

    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    EVENTUALLY(coord_debug_thread_count() == 0);
    EQUAL(destroyed, 2);
    return 0;
}
