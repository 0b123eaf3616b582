/* Who provides a service is seen by its observers: the first that comes, the last that goes, and what they say. */
#include "test.h"

static coord_provider_t *provide(coord_client_t *client, const char *service, const char *metadata, const char *id) {
    coord_provider_t *provider = NULL;
    coord_options_t *options = NULL;
    OK(coord_options_new(&options, &err));
    OK(coord_options_set_text(options, "instance_id", COORD_NUL, id, COORD_NUL, &err));
    OK(coord_options_set_number(options, "reregister", COORD_NUL, 1, &err));
    OK(coord_client_provide(client, service, COORD_NUL, metadata, COORD_NUL, options, WAIT_MS, NULL, &provider, &err));
    coord_options_destroy(options);
    return provider;
}

static coord_observer_t *observe(coord_client_t *client, const char *pattern, int64_t grace_ms) {
    coord_observer_t *observer = NULL;
    coord_options_t *options = NULL;
    OK(coord_options_new(&options, &err));
    OK(coord_options_set_number(options, "down_grace_ms", COORD_NUL, grace_ms, &err));
    OK(coord_client_observe(client, pattern, COORD_NUL, options, WAIT_MS, NULL, &observer, &err));
    coord_options_destroy(options);
    return observer;
}

/* The next event is of this type and about this instance ("" for none). */
static void next_is(coord_observer_t *observer, int32_t type, const char *instance) {
    coord_observer_event_t *event = NULL;
    OK(coord_observer_next(observer, WAIT_MS, NULL, &event, &err));
    EQUAL(coord_observer_event_type(event), type);
    SAME_TEXT(coord_provider_info_instance_id(coord_observer_event_provider(event)), instance);
    if (type != COORD_OBSERVED_SNAPSHOT_START && type != COORD_OBSERVED_SNAPSHOT_END) {
        SAME_TEXT(coord_observer_event_service(event), "default/default/s");
    }
    coord_observer_event_destroy(event);
}

static void provider_next_is(coord_provider_t *provider, int32_t expected) {
    int32_t type = 0, loss = 77;
    OK(coord_provider_next(provider, WAIT_MS, NULL, &type, &loss, &err));
    EQUAL(type, expected);
    EQUAL(loss, COORD_LOSS_NONE);
}

int main(void) {
    coord_config_t *config = NULL;
    coord_client_t *a = NULL, *b = connect_as("b");
    OK(coord_config_new(COORD_ABI_VERSION, test_url(), COORD_NUL, &config, &err));
    OK(coord_config_set(config, "name", COORD_NUL, "a", COORD_NUL, &err));
    OK(coord_config_set(config, "label.role", COORD_NUL, "web", COORD_NUL, &err));
    OK(coord_client_connect(config, WAIT_MS, NULL, &a, &err));
    coord_config_destroy(config);
    coord_queue_t *queue = new_queue();

    coord_observer_t *view = observe(b, "s", 0);
    SAME_TEXT(coord_observer_pattern(view), "default/default/s");
    EQUAL(coord_observer_is_synced(view), 1);
    next_is(view, COORD_OBSERVED_SNAPSHOT_START, "");
    next_is(view, COORD_OBSERVED_SNAPSHOT_END, "");
    int32_t available = 77;
    OK(coord_observer_is_available(view, "s", 1, &available, &err));
    EQUAL(available, 0);
    FAILS(COORD_E_TIMEOUT, coord_observer_wait_available(view, NULL, 0, 20, NULL, &err));
    coord_observer_event_t *none = NULL;
    FAILS(COORD_E_TIMEOUT, coord_observer_next(view, 20, NULL, &none, &err));

    coord_provider_t *one = provide(a, "s", "host:1", "i1");
    SAME_TEXT(coord_provider_service(one), "default/default/s");
    SAME_TEXT(coord_provider_instance_id(one), "i1");
    EQUAL(coord_provider_is_registered(one), 1);
    provider_next_is(one, COORD_PROVIDER_REGISTERED);
    coord_provider_t *twice = NULL;
    next_is(view, COORD_OBSERVED_FIRST_UP, "i1");
    next_is(view, COORD_OBSERVED_JOINED, "i1");
    OK(coord_observer_wait_available(view, "default/default/s", COORD_NUL, WAIT_MS, NULL, &err));

    coord_provider_list_t *list = NULL;
    OK(coord_observer_providers(view, NULL, 0, &list, &err));
    EQUAL(coord_provider_list_count(list), 1);
    const coord_provider_info_t *info = coord_provider_list_at(list, 0);
    SAME_TEXT(coord_provider_info_service(info), "default/default/s");
    SAME_TEXT(coord_provider_info_metadata(info), "host:1");
    SAME_TEXT(coord_provider_info_name(info), "a");
    EQUAL(coord_provider_info_pid(info), getpid());
    EQUAL(strlen(coord_provider_info_session(info)), 32);
    CHECK(coord_provider_info_host(info)[0] != 0);
    EQUAL(coord_provider_info_label_count(info), 1);
    SAME_TEXT(coord_provider_info_label_key(info, 0), "role");
    SAME_TEXT(coord_provider_info_label_value(info, 0), "web");
    coord_provider_list_destroy(list);
    SAME_TEXT(coord_provider_info_metadata(info), "");
    coord_name_list_t *names = NULL;
    OK(coord_observer_services(view, &names, &err));
    EQUAL(coord_name_list_count(names), 1);
    SAME_TEXT(coord_name_list_at(names, 0), "default/default/s");
    coord_name_list_destroy(names);

    /* The same instance only once; other metadata are told. */
    coord_options_t *options = NULL;
    OK(coord_options_new(&options, &err));
    OK(coord_options_set_text(options, "instance_id", COORD_NUL, "i1", 2, &err));
    FAILS(COORD_E_ALREADY_EXISTS, coord_client_provide(a, "s", 1, NULL, 0, options, WAIT_MS, NULL, &twice, &err));
    coord_options_destroy(options);
    OK(coord_provider_update(one, "host:2", COORD_NUL, WAIT_MS, NULL, &err));
    next_is(view, COORD_OBSERVED_CHANGED, "i1");
    coord_text_t *metadata = NULL;
    OK(coord_provider_metadata(one, &metadata, &err));
    SAME_TEXT(coord_text_data(metadata), "host:2");
    coord_text_destroy(metadata);

    /* By queue: a provider that nobody takes out of its event is withdrawn. */
    OK(coord_observer_next_start(view, queue, 1, NULL, &err));
    OK(coord_client_provide_start(a, "s", 1, "x", 1, NULL, WAIT_MS, queue, 2, NULL, &err));
    coord_event_t *first = NULL, *second = NULL;
    OK(coord_queue_poll(queue, WAIT_MS, &first, &err));
    OK(coord_queue_poll(queue, WAIT_MS, &second, &err));
    coord_event_t *told = coord_event_tag(first) == 1 ? first : second, *made = told == first ? second : first;
    coord_observer_event_t *joined = NULL;
    OK(coord_event_take_observer_event(told, &joined, &err));
    EQUAL(coord_observer_event_type(joined), COORD_OBSERVED_JOINED);
    coord_observer_event_destroy(joined);
    EQUAL(coord_event_type(made), COORD_EVENT_PROVIDER);
    EQUAL(coord_event_status(made), COORD_OK);
    coord_event_destroy(told);
    coord_event_destroy(made);
    coord_observer_event_t *left = NULL;
    OK(coord_observer_next(view, WAIT_MS, NULL, &left, &err));
    EQUAL(coord_observer_event_type(left), COORD_OBSERVED_LEFT);
    coord_observer_event_destroy(left);

    /* The last goes. A patient observer waits for it to come back. */
    coord_observer_t *patient = observe(b, "s", 600000);
    next_is(patient, COORD_OBSERVED_SNAPSHOT_START, "");
    next_is(patient, COORD_OBSERVED_FIRST_UP, "i1");
    next_is(patient, COORD_OBSERVED_JOINED, "i1");
    next_is(patient, COORD_OBSERVED_SNAPSHOT_END, "");
    OK(coord_observer_wait_unavailable_start(view, "s", 1, WAIT_MS, queue, 3, NULL, &err));
    OK(coord_provider_next_start(one, queue, 4, NULL, &err));
    OK(coord_provider_close(one, WAIT_MS, NULL, &err));
    OK(coord_provider_close(one, WAIT_MS, NULL, &err));
    OK(coord_queue_poll(queue, WAIT_MS, &first, &err));
    OK(coord_queue_poll(queue, WAIT_MS, &second, &err));
    told = coord_event_tag(first) == 4 ? first : second, made = told == first ? second : first;
    int32_t type = 0, loss = 0;
    OK(coord_event_take_provider_event(told, &type, &loss, &err));
    EQUAL(type, COORD_PROVIDER_CLOSED);
    EQUAL(coord_event_tag(made), 3);
    EQUAL(coord_event_status(made), COORD_OK);
    coord_event_destroy(first);
    coord_event_destroy(second);
    EQUAL(coord_provider_is_registered(one), 0);
    FAILS(COORD_E_CLOSED, coord_provider_next(one, WAIT_MS, NULL, &type, NULL, &err));
    FAILS(COORD_E_CLOSED, coord_provider_update(one, "x", 1, WAIT_MS, NULL, &err));
    coord_provider_destroy(one);
    next_is(view, COORD_OBSERVED_LEFT, "i1");
    next_is(view, COORD_OBSERVED_LAST_DOWN, "");
    next_is(patient, COORD_OBSERVED_LEFT, "i1");
    one = provide(a, "s", "host:3", "i2");
    next_is(view, COORD_OBSERVED_FIRST_UP, "i2");
    next_is(view, COORD_OBSERVED_JOINED, "i2");
    next_is(patient, COORD_OBSERVED_JOINED, "i2");

    /* Destroying a provider withdraws it; closing its client, too. */
    coord_provider_destroy(one);
    OK(coord_observer_wait_unavailable(view, "s", 1, WAIT_MS, NULL, &err));
    one = provide(a, "s", "", "i3");
    OK(coord_observer_wait_available(view, "s", 1, WAIT_MS, NULL, &err));
    OK(coord_client_close(a, WAIT_MS, &err));
    OK(coord_observer_wait_unavailable(view, "s", 1, WAIT_MS, NULL, &err));
    coord_provider_destroy(one);

    /* An observer that is ended ends its waits. */
    OK(coord_observer_wait_available_start(view, "s", 1, -1, queue, 5, NULL, &err));
    OK(coord_observer_close(view, &err));
    OK(coord_observer_close(view, &err));
    expect(queue, COORD_EVENT_DONE, 5, COORD_E_CLOSED);
    FAILS(COORD_E_CLOSED, coord_observer_is_available(view, "s", 1, &available, &err));
    OK(coord_observer_wait_available_start(patient, "s", 1, -1, queue, 6, NULL, &err));
    coord_observer_destroy(patient);
    expect(queue, COORD_EVENT_DONE, 6, COORD_E_CLOSED);
    coord_observer_destroy(view);

    OK(coord_client_observe_start(b, "*", 1, NULL, WAIT_MS, queue, 7, NULL, &err));
    first = expect_event(queue, COORD_EVENT_OBSERVER, 7, COORD_OK);
    OK(coord_event_take_observer(first, &view, &err));
    SAME_TEXT(coord_observer_pattern(view), "default/default/*");
    coord_event_destroy(first);
    coord_observer_destroy(view);

    coord_queue_destroy(queue);
    OK(coord_client_close(b, WAIT_MS, &err));
    coord_client_destroy(a);
    coord_client_destroy(b);
    return 0;
}
