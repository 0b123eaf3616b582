/* A forked child is told so by every call, touches nothing of the parent's, and the parent works on. */
#include "test.h"
#include <sys/wait.h>

static coord_config_t *config;
static coord_client_t *client;
static coord_lock_t *lock;
static coord_held_t *held;
static coord_queue_t *queue;

static void in_child(void) {
    coord_client_t *new_client = NULL;
    coord_held_t *new_held = NULL;
    coord_event_t *event = NULL;
    coord_lock_list_t *list = NULL;
    coord_queue_t *new_queue = NULL;
    FAILS(COORD_E_FORKED, coord_held_check(held, &err));
    FAILS(COORD_E_FORKED, coord_held_release(held, WAIT_MS, NULL, &err));
    FAILS(COORD_E_FORKED, coord_lock_acquire(lock, WAIT_MS, NULL, &new_held, &err));
    FAILS(COORD_E_FORKED, coord_lock_acquire_start(lock, WAIT_MS, queue, 1, NULL, &err));
    FAILS(COORD_E_FORKED, coord_client_health(client, WAIT_MS, NULL, &err));
    FAILS(COORD_E_FORKED, coord_client_close(client, WAIT_MS, &err));
    FAILS(COORD_E_FORKED, coord_client_locks(client, NULL, 0, WAIT_MS, NULL, &list, &err));
    FAILS(COORD_E_FORKED, coord_client_connect(config, WAIT_MS, NULL, &new_client, &err));
    FAILS(COORD_E_FORKED, coord_queue_poll(queue, WAIT_MS, &event, &err));
    FAILS(COORD_E_FORKED, coord_queue_new(&new_queue, &err));
    EQUAL(coord_held_check(held, NULL), COORD_E_FORKED);
    EQUAL(coord_held_token(held), 0);
    EQUAL(coord_held_remaining_ms(held), 0);
    EQUAL(coord_client_session_state(client), COORD_SESSION_LOST);
    EQUAL(coord_queue_fd(queue), -1);
    coord_error_t *err = NULL;
    EQUAL(coord_held_check(held, &err), COORD_E_FORKED);
    EQUAL(coord_error_loss(err), COORD_LOSS_FORKED);
    CHECK(strstr(coord_error_message(err), "fork before the first client") != NULL);
    coord_error_destroy(err);
    /* None of these may release or close what is the parent's. */
    coord_held_destroy(held);
    coord_lock_destroy(lock);
    coord_client_destroy(client);
    coord_queue_destroy(queue);
    coord_config_destroy(config);
}

static void *allocate_and_free(void *stop) {
    while (!__atomic_load_n((int *)stop, __ATOMIC_SEQ_CST)) {
        coord_cancel_t *cancel = NULL;
        OK(coord_cancel_new(&cancel, &err));
        coord_cancel_destroy(cancel);
        FAILS(COORD_E_HANDLE, coord_held_check(NULL, &err));
    }
    return NULL;
}

static void fork_and_wait(void) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60); /* a child that hangs dies, and fails the test */
        in_child();
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    EQUAL(WEXITSTATUS(status), 0);
}

int main(void) {
    OK(coord_config_new(COORD_ABI_VERSION, test_url(), COORD_NUL, &config, &err));
    client = connect_as("parent");
    lock = lock_of(client, "a");
    held = acquire(lock);
    queue = new_queue();

    fork_and_wait();

    /* Again and again while other threads hold the library's own locks: the child never waits for one of these. */
    int stop = 0;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, allocate_and_free, &stop) == 0);
    for (int i = 0; i < 20; i++) fork_and_wait();
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);

    OK(coord_held_check(held, &err));
    OK(coord_client_health(client, WAIT_MS, NULL, &err));
    coord_client_t *other = NULL;
    OK(coord_client_open_session(client, WAIT_MS, NULL, &other, &err));
    coord_lock_t *others = lock_of(other, "a");
    coord_held_t *none = NULL;
    FAILS(COORD_E_CONTENDED, coord_lock_try_acquire(others, NULL, &none, &err));
    release(held);
    release(acquire(others));
    coord_lock_destroy(others);
    coord_lock_destroy(lock);
    coord_queue_destroy(queue);
    coord_config_destroy(config);
    OK(coord_client_close(other, WAIT_MS, &err));
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(other);
    coord_client_destroy(client);
    return 0;
}
