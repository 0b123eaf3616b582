/* Bad input through every entry point: an error with its code and a message, no crash, no hang, and no change in the
 * store. The runner checks with the header that no function is missing here. */
#include "test.h"

static coord_config_t *config;
static coord_client_t *client, *closed;
static coord_lock_t *lock, *closed_lock;
static coord_held_t *held;
static coord_queue_t *queue;
static coord_cancel_t *cancel;
static coord_op_t *op;
static coord_event_t *event;
static coord_error_t *error;
static coord_session_t *session;
static coord_stats_t *stats;
static coord_lock_list_t *list;
static const coord_holder_t *holder;

/* Out-parameters: nothing may be written to them in this program once it abuses. */
#define UNTOUCHED ((void *)(uintptr_t)0x5a5a5a5a)
static coord_config_t *new_config = UNTOUCHED;
static coord_client_t *new_client = UNTOUCHED;
static coord_lock_t *new_lock = UNTOUCHED;
static coord_held_t *new_held = UNTOUCHED;
static coord_queue_t *new_queue_ = UNTOUCHED;
static coord_cancel_t *new_cancel = UNTOUCHED;
static coord_op_t *new_op = UNTOUCHED;
static coord_event_t *new_event = UNTOUCHED;
static coord_session_t *new_session = UNTOUCHED;
static coord_stats_t *new_stats = UNTOUCHED;
static coord_lock_list_t *new_list = UNTOUCHED;
static int32_t number = 77;
static size_t count = 77;
static char buffer[COORD_NAME_SIZE];

static int32_t must_not_run(coord_held_t *unused, void *user_data) {
    (void)unused, (void)user_data;
    CHECK(!"this function runs under no lock");
    return 0;
}

static void must_not_be_called(coord_event_t *unused, void *user_data) {
    (void)unused, (void)user_data;
    CHECK(!"no event may come");
}

/* Every function that takes this handle, as its first argument. */
#define WITH_CONFIG(code, h) \
    FAILS(code, coord_config_set(h, "ttl", COORD_NUL, "5s", COORD_NUL, &err)); \
    FAILS(code, coord_client_connect(h, WAIT_MS, NULL, &new_client, &err)); \
    FAILS(code, coord_client_connect_start(h, WAIT_MS, queue, 1, &new_op, &err))

#define ASKING_CLIENT(code, h) \
    FAILS(code, coord_client_open_session(h, WAIT_MS, NULL, &new_client, &err)); \
    FAILS(code, coord_client_health(h, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_client_break_lock(h, "a", COORD_NUL, 1, 0, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_client_session_wait(h, session, WAIT_MS, NULL, &new_session, &err)); \
    FAILS(code, coord_client_locks(h, NULL, 0, WAIT_MS, NULL, &new_list, &err)); \
    FAILS(code, coord_client_lock_info(h, "a", COORD_NUL, WAIT_MS, NULL, &new_list, &err))

#define WITH_CLIENT(code, h) \
    ASKING_CLIENT(code, h); \
    FAILS(code, coord_client_open_session_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_client_close(h, WAIT_MS, &err)); \
    FAILS(code, coord_client_close_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_client_health_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_client_break_lock_start(h, "a", COORD_NUL, 1, 0, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_client_session(h, &new_session, &err)); \
    FAILS(code, coord_client_session_wait_start(h, session, queue, 1, &new_op, &err)); \
    FAILS(code, coord_client_stats(h, &new_stats, &err)); \
    FAILS(code, coord_client_locks_start(h, NULL, 0, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_client_lock_info_start(h, "a", COORD_NUL, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_lock_new(h, "a", COORD_NUL, &new_lock, &err)); \
    EQUAL(coord_client_is_open(h), 0); \
    EQUAL(coord_client_session_state(h), COORD_SESSION_LOST)

#define WITH_LOCK(code, h) \
    FAILS(code, coord_lock_acquire(h, WAIT_MS, NULL, &new_held, &err)); \
    FAILS(code, coord_lock_try_acquire(h, NULL, &new_held, &err)); \
    FAILS(code, coord_lock_run(h, WAIT_MS, NULL, must_not_run, NULL, &number, &err))

#define WITH_HELD(code, h) \
    FAILS(code, coord_held_check(h, &err)); \
    FAILS(code, coord_held_ensure(h, 1, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_held_ensure_start(h, 1, WAIT_MS, queue, 1, &new_op, &err)); \
    FAILS(code, coord_held_manage(h, &err)); \
    FAILS(code, coord_held_wait_lost(h, WAIT_MS, NULL, &number, &err)); \
    FAILS(code, coord_held_wait_lost_start(h, queue, 1, &new_op, &err)); \
    FAILS(code, coord_held_release(h, WAIT_MS, NULL, &err)); \
    FAILS(code, coord_held_release_start(h, WAIT_MS, queue, 1, &new_op, &err)); \
    SAME_TEXT(coord_held_name(h), ""); \
    EQUAL(coord_held_token(h), 0); \
    EQUAL(coord_held_remaining_ms(h), 0); \
    EQUAL(coord_held_loss(h), COORD_LOSS_NONE)

/* As the queue to report to, and as the one to poll. */
#define WITH_QUEUE(code, h) \
    FAILS(code, coord_queue_poll(h, 0, &new_event, &err)); \
    FAILS(code, coord_queue_poll_batch(h, 0, &new_event, 1, &count, &err)); \
    FAILS(code, coord_queue_set_callback(h, must_not_be_called, NULL, NULL, &err)); \
    FAILS(code, coord_client_connect_start(config, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_client_open_session_start(client, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_client_close_start(client, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_client_health_start(client, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_client_break_lock_start(client, "a", COORD_NUL, 1, 1, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_client_session_wait_start(client, session, h, 1, &new_op, &err)); \
    FAILS(code, coord_client_locks_start(client, NULL, 0, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_client_lock_info_start(client, "a", COORD_NUL, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_lock_acquire_start(lock, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_held_ensure_start(held, 1, WAIT_MS, h, 1, &new_op, &err)); \
    FAILS(code, coord_held_wait_lost_start(held, h, 1, &new_op, &err)); \
    FAILS(code, coord_held_release_start(held, WAIT_MS, h, 1, &new_op, &err)); \
    EQUAL(coord_queue_fd(h), -1); \
    coord_queue_skip_ended(h); \
    coord_queue_yield(h)

#define WITH_CANCEL(code, h) \
    FAILS(code, coord_client_connect(config, WAIT_MS, h, &new_client, &err)); \
    FAILS(code, coord_client_open_session(client, WAIT_MS, h, &new_client, &err)); \
    FAILS(code, coord_client_health(client, WAIT_MS, h, &err)); \
    FAILS(code, coord_client_break_lock(client, "a", COORD_NUL, 1, 1, WAIT_MS, h, &err)); \
    FAILS(code, coord_client_session_wait(client, session, WAIT_MS, h, &new_session, &err)); \
    FAILS(code, coord_client_locks(client, NULL, 0, WAIT_MS, h, &new_list, &err)); \
    FAILS(code, coord_client_lock_info(client, "a", COORD_NUL, WAIT_MS, h, &new_list, &err)); \
    FAILS(code, coord_lock_acquire(lock, WAIT_MS, h, &new_held, &err)); \
    FAILS(code, coord_lock_try_acquire(lock, h, &new_held, &err)); \
    FAILS(code, coord_lock_run(lock, WAIT_MS, h, must_not_run, NULL, &number, &err)); \
    FAILS(code, coord_held_ensure(held, 1, WAIT_MS, h, &err)); \
    FAILS(code, coord_held_wait_lost(held, WAIT_MS, h, &number, &err)); \
    FAILS(code, coord_held_release(held, WAIT_MS, h, &err)); \
    coord_cancel_fire(h); \
    EQUAL(coord_cancel_is_fired(h), 0)

#define WITH_EVENT(code, h) \
    FAILS(code, coord_event_take_client(h, &new_client, &err)); \
    FAILS(code, coord_event_take_held(h, &new_held, &err)); \
    FAILS(code, coord_event_take_locks(h, &new_list, &err)); \
    FAILS(code, coord_event_take_session(h, &new_session, &err)); \
    EQUAL(coord_event_type(h), COORD_EVENT_NONE); \
    EQUAL(coord_event_tag(h), 0); \
    EQUAL(coord_event_status(h), COORD_E_HANDLE); \
    EQUAL(coord_event_loss(h), COORD_LOSS_NONE); \
    CHECK(coord_event_error(h) == NULL)

#define WITH_SESSION(code, h) \
    FAILS(code, coord_client_session_wait(client, h, WAIT_MS, NULL, &new_session, &err)); \
    FAILS(code, coord_client_session_wait_start(client, h, queue, 1, &new_op, &err)); \
    EQUAL(coord_session_state(h), COORD_SESSION_LOST); \
    EQUAL(coord_session_loss(h), COORD_LOSS_NONE); \
    SAME_TEXT(coord_session_id(h), ""); \
    SAME_TEXT(coord_session_name(h), ""); \
    SAME_TEXT(coord_session_host(h), ""); \
    EQUAL(coord_session_remaining_ms(h), 0); \
    EQUAL(coord_session_ttl_ms(h), 0)

#define WITH_LIST(h) \
    EQUAL(coord_lock_list_count(h), 0); \
    SAME_TEXT(coord_lock_list_name(h, 0), ""); \
    EQUAL(coord_lock_list_token(h, 0), 0); \
    EQUAL(coord_lock_list_is_breaking(h, 0), 0); \
    CHECK(coord_lock_list_holder(h, 0) == NULL); \
    EQUAL(coord_lock_list_waiter_count(h, 0), 0); \
    CHECK(coord_lock_list_waiter(h, 0, 0) == NULL)

#define WITH_HOLDER(h) \
    SAME_TEXT(coord_holder_name(h), ""); \
    SAME_TEXT(coord_holder_session(h), ""); \
    SAME_TEXT(coord_holder_host(h), ""); \
    EQUAL(coord_holder_pid(h), 0); \
    EQUAL(coord_holder_token(h), 0); \
    EQUAL(coord_holder_since_ms(h), 0); \
    EQUAL(coord_holder_state(h), COORD_HOLDER_LIVE); \
    EQUAL(coord_holder_silent_ms(h), 0); \
    EQUAL(coord_holder_is_self(h), 0)

#define WITH_ERROR(h) \
    EQUAL(coord_error_code(h), COORD_OK); \
    SAME_TEXT(coord_error_name(h), ""); \
    SAME_TEXT(coord_error_message(h), ""); \
    EQUAL(coord_error_is_retryable(h), 0); \
    EQUAL(coord_error_loss(h), COORD_LOSS_NONE); \
    CHECK(coord_error_holder(h) == NULL)

/* No handle of any kind. */
static void abuse_everything_with(const void *bad) {
    WITH_CONFIG(COORD_E_HANDLE, (coord_config_t *)bad);
    WITH_CLIENT(COORD_E_HANDLE, (coord_client_t *)bad);
    WITH_LOCK(COORD_E_HANDLE, (coord_lock_t *)bad);
    FAILS(COORD_E_HANDLE, coord_lock_acquire_start((coord_lock_t *)bad, WAIT_MS, queue, 1, &new_op, &err));
    SAME_TEXT(coord_lock_name((coord_lock_t *)bad), "");
    WITH_HELD(COORD_E_HANDLE, (coord_held_t *)bad);
    WITH_QUEUE(COORD_E_HANDLE, (coord_queue_t *)bad);
    WITH_EVENT(COORD_E_HANDLE, (coord_event_t *)bad);
    WITH_SESSION(COORD_E_HANDLE, (coord_session_t *)bad);
    WITH_LIST((const coord_lock_list_t *)bad);
    WITH_HOLDER((const coord_holder_t *)bad);
    WITH_ERROR((const coord_error_t *)bad);
    EQUAL(coord_stats_value((const coord_stats_t *)bad, 0), -1);
    coord_op_cancel((coord_op_t *)bad);
    if (bad != NULL) {
        WITH_CANCEL(COORD_E_HANDLE, (coord_cancel_t *)bad);
    } else {
        coord_cancel_fire(NULL);
        EQUAL(coord_cancel_is_fired(NULL), 0);
    }
    coord_config_destroy((coord_config_t *)bad);
    coord_client_destroy((coord_client_t *)bad);
    coord_lock_destroy((coord_lock_t *)bad);
    coord_held_destroy((coord_held_t *)bad);
    coord_queue_destroy((coord_queue_t *)bad);
    coord_cancel_destroy((coord_cancel_t *)bad);
    FAILS(COORD_E_HANDLE, coord_op_take_event((coord_op_t *)bad, &new_event, &err));
    coord_op_destroy((coord_op_t *)bad);
    coord_event_destroy((coord_event_t *)bad);
    coord_error_destroy((coord_error_t *)bad);
    coord_session_destroy((coord_session_t *)bad);
    coord_stats_destroy((coord_stats_t *)bad);
    coord_lock_list_destroy((coord_lock_list_t *)bad);
}

/* Handles of one kind given as another: nothing happens to them. */
static void abuse_foreign_handles(void) {
    const void *handles[] = {config, client, lock, held, queue, cancel, op, event, error, session, stats, list, holder};
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) {
        const void *h = handles[i];
        if (h != config) { WITH_CONFIG(COORD_E_HANDLE, (coord_config_t *)h); coord_config_destroy((coord_config_t *)h); }
        if (h != client) { WITH_CLIENT(COORD_E_HANDLE, (coord_client_t *)h); coord_client_destroy((coord_client_t *)h); }
        if (h != lock) { WITH_LOCK(COORD_E_HANDLE, (coord_lock_t *)h); coord_lock_destroy((coord_lock_t *)h); }
        if (h != held) { WITH_HELD(COORD_E_HANDLE, (coord_held_t *)h); coord_held_destroy((coord_held_t *)h); }
        if (h != queue) { WITH_QUEUE(COORD_E_HANDLE, (coord_queue_t *)h); coord_queue_destroy((coord_queue_t *)h); }
        if (h != cancel) { WITH_CANCEL(COORD_E_HANDLE, (coord_cancel_t *)h); coord_cancel_destroy((coord_cancel_t *)h); }
        if (h != op) {
            FAILS(COORD_E_HANDLE, coord_op_take_event((coord_op_t *)h, &new_event, &err));
            coord_op_cancel((coord_op_t *)h);
            coord_op_destroy((coord_op_t *)h);
        }
        if (h != event) { WITH_EVENT(COORD_E_HANDLE, (coord_event_t *)h); coord_event_destroy((coord_event_t *)h); }
        if (h != session) {
            WITH_SESSION(COORD_E_HANDLE, (coord_session_t *)h);
            coord_session_destroy((coord_session_t *)h);
        }
        if (h != error) { WITH_ERROR((const coord_error_t *)h); coord_error_destroy((coord_error_t *)h); }
        if (h != list) { WITH_LIST((const coord_lock_list_t *)h); coord_lock_list_destroy((coord_lock_list_t *)h); }
        if (h != holder) { WITH_HOLDER((const coord_holder_t *)h); }
        if (h != stats) {
            EQUAL(coord_stats_value((const coord_stats_t *)h, 0), -1);
            coord_stats_destroy((coord_stats_t *)h);
        }
    }
}

/* One bad text as each text of the interface. */
static void abuse_text(const char *text, size_t length) {
    FAILS(COORD_E_INVALID_ARGUMENT, coord_config_set(config, text, length, "1s", COORD_NUL, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_config_set(config, "ttl", COORD_NUL, text, length, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_lock_new(client, text, length, &new_lock, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_client_lock_info(client, text, length, WAIT_MS, NULL, &new_list, &err));
    FAILS(COORD_E_INVALID_ARGUMENT, coord_client_break_lock(client, text, length, 1, 1, WAIT_MS, NULL, &err));
    if (text != NULL) {
        FAILS(COORD_E_INVALID_ARGUMENT, coord_config_new(COORD_ABI_VERSION, text, length, &new_config, &err));
    }
}

/* Text that cannot be read at all: an error also where any text would do. */
static void abuse_unreadable(const char *text, size_t length) {
    abuse_text(text, length);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_name_sanitize(text, length, buffer, sizeof buffer, &err));
    FAILS(COORD_E_INVALID_ARGUMENT,
          coord_client_lock_info_start(client, text, length, WAIT_MS, queue, 1, &new_op, &err));
    FAILS(COORD_E_INVALID_ARGUMENT,
          coord_client_break_lock_start(client, text, length, 1, 1, WAIT_MS, queue, 1, &new_op, &err));
    if (text != NULL) {
        FAILS(COORD_E_INVALID_ARGUMENT, coord_client_locks(client, text, length, WAIT_MS, NULL, &new_list, &err));
        FAILS(COORD_E_INVALID_ARGUMENT,
              coord_client_locks_start(client, text, length, WAIT_MS, queue, 1, &new_op, &err));
    }
}

static void abuse_timeouts(int64_t bad) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_client_connect(config, bad, NULL, &new_client, &err));
    FAILS(code, coord_client_connect_start(config, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_client_open_session(client, bad, NULL, &new_client, &err));
    FAILS(code, coord_client_open_session_start(client, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_client_close(client, bad, &err));
    FAILS(code, coord_client_close_start(client, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_client_health(client, bad, NULL, &err));
    FAILS(code, coord_client_health_start(client, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_client_break_lock(client, "a", COORD_NUL, 1, 1, bad, NULL, &err));
    FAILS(code, coord_client_break_lock_start(client, "a", COORD_NUL, 1, 1, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_client_session_wait(client, session, bad, NULL, &new_session, &err));
    FAILS(code, coord_client_locks(client, NULL, 0, bad, NULL, &new_list, &err));
    FAILS(code, coord_client_locks_start(client, NULL, 0, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_client_lock_info(client, "a", COORD_NUL, bad, NULL, &new_list, &err));
    FAILS(code, coord_client_lock_info_start(client, "a", COORD_NUL, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_lock_acquire(lock, bad, NULL, &new_held, &err));
    FAILS(code, coord_lock_acquire_start(lock, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_lock_run(lock, bad, NULL, must_not_run, NULL, &number, &err));
    FAILS(code, coord_held_ensure(held, 1, bad, NULL, &err));
    FAILS(code, coord_held_ensure_start(held, 1, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_held_ensure(held, bad, WAIT_MS, NULL, &err));
    FAILS(code, coord_held_ensure_start(held, bad, WAIT_MS, queue, 1, &new_op, &err));
    FAILS(code, coord_held_wait_lost(held, bad, NULL, &number, &err));
    FAILS(code, coord_held_release(held, bad, NULL, &err));
    FAILS(code, coord_held_release_start(held, bad, queue, 1, &new_op, &err));
    FAILS(code, coord_queue_poll(queue, bad, &new_event, &err));
    FAILS(code, coord_queue_poll_batch(queue, bad, &new_event, 1, &count, &err));
}

static void abuse_out_parameters(void) {
    coord_status_t code = COORD_E_INVALID_ARGUMENT;
    FAILS(code, coord_config_new(COORD_ABI_VERSION, "memory:", COORD_NUL, NULL, &err));
    FAILS(code, coord_client_connect(config, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_client_open_session(client, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_client_session(client, NULL, &err));
    FAILS(code, coord_client_session_wait(client, session, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_client_stats(client, NULL, &err));
    FAILS(code, coord_client_locks(client, NULL, 0, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_client_lock_info(client, "a", COORD_NUL, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_lock_new(client, "a", COORD_NUL, NULL, &err));
    FAILS(code, coord_lock_acquire(lock, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_lock_try_acquire(lock, NULL, NULL, &err));
    FAILS(code, coord_lock_run(lock, WAIT_MS, NULL, NULL, NULL, NULL, &err));
    FAILS(code, coord_held_wait_lost(held, WAIT_MS, NULL, NULL, &err));
    FAILS(code, coord_cancel_new(NULL, &err));
    FAILS(code, coord_queue_new(NULL, &err));
    FAILS(code, coord_queue_poll(queue, 0, NULL, &err));
    FAILS(code, coord_queue_poll_batch(queue, 0, NULL, 1, &count, &err));
    FAILS(code, coord_queue_poll_batch(queue, 0, &new_event, 0, &count, &err));
    FAILS(code, coord_queue_poll_batch(queue, 0, &new_event, 1, NULL, &err));
    FAILS(code, coord_queue_set_callback(queue, NULL, NULL, NULL, &err));
    FAILS(code, coord_event_take_client(event, NULL, &err));
    FAILS(code, coord_event_take_held(event, NULL, &err));
    FAILS(code, coord_event_take_locks(event, NULL, &err));
    FAILS(code, coord_event_take_session(event, NULL, &err));
    FAILS(code, coord_name_sanitize("a", COORD_NUL, NULL, sizeof buffer, &err));
    FAILS(code, coord_name_sanitize("a", COORD_NUL, buffer, 0, &err));
    FAILS(code, coord_log_set_callback(99, NULL, NULL, NULL, &err));
    /* Without a place for the error, the status alone. */
    EQUAL(coord_lock_acquire(NULL, WAIT_MS, NULL, &new_held, NULL), COORD_E_HANDLE);
}

static void check_untouched(void) {
    CHECK(new_config == UNTOUCHED && new_client == UNTOUCHED && new_lock == UNTOUCHED && new_held == UNTOUCHED);
    CHECK(new_queue_ == UNTOUCHED && new_cancel == UNTOUCHED && new_op == UNTOUCHED && new_event == UNTOUCHED);
    CHECK(new_session == UNTOUCHED && new_stats == UNTOUCHED && new_list == UNTOUCHED);
    EQUAL(number, 77);
    EQUAL(count, 77);
    expect_no_event(queue);
}

/* What the store holds, by another client's eyes. */
static void describe_store(coord_client_t *witness, char *text, size_t size) {
    coord_lock_list_t *locks = NULL;
    size_t used = 0;
    OK(coord_client_locks(witness, NULL, 0, WAIT_MS, NULL, &locks, &err));
    for (size_t i = 0; i < coord_lock_list_count(locks); i++) {
        used += (size_t)snprintf(text + used, size - used, "%s %lld %s %zu %d\n", coord_lock_list_name(locks, i),
                                 (long long)coord_lock_list_token(locks, i),
                                 coord_holder_session(coord_lock_list_holder(locks, i)),
                                 coord_lock_list_waiter_count(locks, i), coord_lock_list_is_breaking(locks, i));
        CHECK(used < size);
    }
    coord_lock_list_destroy(locks);
}

int main(void) {
    coord_client_t *witness = connect_as("witness");
    OK(coord_config_new(COORD_ABI_VERSION, test_url(), COORD_NUL, &config, &err));
    OK(coord_client_open_session(witness, WAIT_MS, NULL, &client, &err));
    OK(coord_client_open_session(witness, WAIT_MS, NULL, &closed, &err));
    closed_lock = lock_of(closed, "a");
    OK(coord_client_close(closed, WAIT_MS, &err));
    lock = lock_of(client, "a");
    held = acquire(lock);
    queue = new_queue();
    OK(coord_cancel_new(&cancel, &err));
    OK(coord_client_session(client, &session, &err));
    OK(coord_client_stats(client, &stats, &err));
    OK(coord_client_locks(client, NULL, 0, WAIT_MS, NULL, &list, &err));
    holder = coord_lock_list_holder(list, 0);
    CHECK(holder != NULL);
    OK(coord_client_health_start(client, WAIT_MS, queue, 5, &op, &err));
    event = expect_event(queue, COORD_EVENT_DONE, 5, COORD_OK);
    coord_held_t *none = NULL;
    EQUAL(coord_lock_try_acquire(lock, NULL, &none, &error), COORD_E_CONTENDED);
    char before[4096] = "", after[4096] = "";
    describe_store(witness, before, sizeof before);

    /* Handles that never were. */
    long on_stack = 0;
    void *on_heap = malloc(64);
    const void *made_up[] = {NULL, (void *)1, (void *)2, (void *)0xdeadbeef, (void *)UINTPTR_MAX, (void *)(uintptr_t)0x3f,
                             &on_stack, on_heap, (char *)on_heap + 1, (void *)((uintptr_t)held ^ ((uintptr_t)1 << 40)),
                             (void *)((uintptr_t)client | ((uintptr_t)0x3fffff << 11)), "text"};
    for (size_t i = 0; i < sizeof made_up / sizeof *made_up; i++) abuse_everything_with(made_up[i]);
    free(on_heap);

    /* Handles that are no more. */
    coord_config_t *old_config = NULL;
    coord_cancel_t *old_cancel = NULL;
    OK(coord_config_new(COORD_ABI_VERSION, "memory:", COORD_NUL, &old_config, &err));
    coord_config_destroy(old_config);
    coord_client_t *old_client = NULL;
    OK(coord_client_open_session(witness, WAIT_MS, NULL, &old_client, &err));
    coord_lock_t *old_lock = lock_of(old_client, "a");
    OK(coord_client_close(old_client, WAIT_MS, &err));
    coord_client_destroy(old_client);
    coord_lock_destroy(old_lock);
    coord_queue_t *old_queue = new_queue();
    coord_queue_destroy(old_queue);
    OK(coord_cancel_new(&old_cancel, &err));
    coord_cancel_destroy(old_cancel);
    for (int twice = 0; twice < 2; twice++) {
        abuse_everything_with(old_config);
        abuse_everything_with(old_client);
        abuse_everything_with(old_lock);
        abuse_everything_with(old_queue);
        abuse_everything_with(old_cancel);
    }

    abuse_foreign_handles();

    /* A closed client. */
    ASKING_CLIENT(COORD_E_CLOSED, closed);
    WITH_LOCK(COORD_E_CLOSED, closed_lock);
    OK(coord_client_health_start(closed, WAIT_MS, queue, 9, NULL, &err));
    expect(queue, COORD_EVENT_DONE, 9, COORD_E_CLOSED);
    OK(coord_lock_acquire_start(closed_lock, WAIT_MS, queue, 9, NULL, &err));
    expect(queue, COORD_EVENT_HELD, 9, COORD_E_CLOSED);

    /* Texts. */
    static char long_text[10001];
    memset(long_text, 'a', 10000);
    abuse_text("", 0);
    abuse_text("", COORD_NUL);
    abuse_text(long_text, 10000);
    abuse_text(long_text, COORD_NUL);
    abuse_text("a b", 3);
    abuse_text("/", 1);
    abuse_text("a\0b", 3);
    abuse_unreadable(NULL, 0);
    abuse_unreadable(NULL, 5);
    abuse_unreadable(NULL, COORD_NUL);
    abuse_unreadable("a\xff", 2);
    abuse_unreadable("\xc3", 1);
    abuse_unreadable("\xed\xa0\x80", COORD_NUL);
    abuse_unreadable("a", COORD_NUL - 1);
    abuse_unreadable("a", COORD_NUL / 2);
    abuse_unreadable("a", (size_t)1 << 40);

    abuse_timeouts(-2);
    abuse_timeouts(INT64_MIN);
    FAILS(COORD_E_INVALID_ARGUMENT, coord_held_ensure(held, INT64_MAX, WAIT_MS, NULL, &err));
    FAILS(COORD_E_TIMEOUT, coord_lock_acquire(lock, 1, NULL, &new_held, &err));
    abuse_out_parameters();

    /* Other versions of the interface. */
    uint32_t versions[] = {0, COORD_ABI_VERSION - 1, COORD_ABI_VERSION + 1, COORD_ABI_VERSION + 0x10000, UINT32_MAX};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        FAILS(COORD_E_ABI_MISMATCH, coord_config_new(versions[i], "memory:", COORD_NUL, &new_config, &err));
    }

    check_untouched();
    /* What timed out takes its place in the queue back in the background. */
    EVENTUALLY((describe_store(witness, after, sizeof after), strcmp(after, before) == 0));

    /* Everything is as it was: huge limits are no limits, and the lock is still held. */
    OK(coord_held_check(held, &err));
    OK(coord_client_health(client, INT64_MAX, NULL, &err));
    OK(coord_held_release(held, INT64_MAX, NULL, &err));
    coord_held_destroy(held);
    OK(coord_lock_acquire(lock, INT64_MAX, NULL, &held, &err));
    release(held);
    EQUAL(coord_cancel_is_fired(cancel), 0);

    coord_event_destroy(event);
    coord_error_destroy(error);
    coord_op_destroy(op);
    coord_lock_list_destroy(list);
    coord_stats_destroy(stats);
    coord_session_destroy(session);
    coord_cancel_destroy(cancel);
    coord_queue_destroy(queue);
    coord_lock_destroy(lock);
    coord_lock_destroy(closed_lock);
    coord_config_destroy(config);
    OK(coord_client_close(client, INT64_MAX, &err));
    OK(coord_client_close(witness, WAIT_MS, &err));
    coord_client_destroy(client);
    coord_client_destroy(closed);
    coord_client_destroy(witness);
    return 0;
}
