/* The log goes to one callback, which is never called from within itself, and whose data is freed exactly once. */
#include "test.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int lines, destroyed;
static __thread int inside;

static void log_line(int32_t level, const char *target, const char *message, void *user_data) {
    CHECK(user_data == &lines);
    CHECK(inside++ == 0);
    CHECK(level >= COORD_LOG_ERROR && level <= COORD_LOG_TRACE);
    CHECK(strncmp(target, "coord", 5) == 0);
    CHECK(message[0] != 0);
    /* The library must not be called from here, and says so instead of hanging. */
    FAILS(COORD_E_REENTRANT, coord_held_check(NULL, &err));
    EQUAL(coord_queue_fd(NULL), -1);
    pthread_mutex_lock(&mutex);
    EQUAL(destroyed, 0);
    lines++;
    pthread_mutex_unlock(&mutex);
    inside--;
}

static void destroy(void *user_data) {
    CHECK(user_data == &lines);
    pthread_mutex_lock(&mutex);
    destroyed++;
    pthread_mutex_unlock(&mutex);
}

static void lose_a_hold(void) {
    coord_client_t *a = connect_as("a"), *b = NULL;
    OK(coord_client_open_session(a, WAIT_MS, NULL, &b, &err));
    coord_lock_t *lock = lock_of(a, "a");
    coord_held_t *held = acquire(lock);
    int32_t loss = 0;
    OK(coord_client_break_lock(b, "a", COORD_NUL, coord_held_token(held), 1, WAIT_MS, NULL, &err));
    OK(coord_held_wait_lost(held, WAIT_MS, NULL, &loss, &err));
    coord_held_destroy(held);
    coord_lock_destroy(lock);
    OK(coord_client_close(b, WAIT_MS, &err));
    OK(coord_client_close(a, WAIT_MS, &err));
    coord_client_destroy(a);
    coord_client_destroy(b);
}

int main(void) {
    FAILS(COORD_E_INVALID_ARGUMENT, coord_log_set_callback(6, log_line, &lines, destroy, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_log_set_callback(-1, log_line, &lines, destroy, &err));
    EQUAL(destroyed, 2);
    destroyed = 0;

    OK(coord_log_set_callback(COORD_LOG_WARN, log_line, &lines, destroy, &err));
    lose_a_hold();
    CHECK(lines > 0);
    EVENTUALLY(coord_debug_thread_count() == 0);
    OK(coord_log_set_callback(COORD_LOG_OFF, NULL, NULL, NULL, &err));
    EQUAL(destroyed, 1);
    int before = lines;
    lose_a_hold();
    EQUAL(lines, before);

    /* Replaced by another, and by one that wants nothing: each data is freed once. */
    destroyed = 0;
    OK(coord_log_set_callback(COORD_LOG_ERROR, log_line, &lines, destroy, &err));
    OK(coord_log_set_callback(COORD_LOG_ERROR, log_line, &lines, destroy, &err));
    EQUAL(destroyed, 1);
    OK(coord_log_set_callback(COORD_LOG_OFF, log_line, &lines, destroy, &err));
    EQUAL(destroyed, 3);
    return 0;
}
