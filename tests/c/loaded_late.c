/* A program may load the library, use it and unload it, with threads of it still running, and load it again. */
#include "test.h"
#include <dlfcn.h>

/* The type of a function in the header, taken from its declaration without linking to it. */
#define LOAD(name) \
    __typeof__(name) *name##_; \
    *(void **)&name##_ = dlsym(library, #name); \
    CHECK(name##_ != NULL)

static void use(int close) {
    void *library = dlopen("libcoord.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) fprintf(stderr, "%s\n", dlerror());
    CHECK(library != NULL);
    LOAD(coord_config_new);
    LOAD(coord_config_destroy);
    LOAD(coord_client_connect);
    LOAD(coord_client_close);
    LOAD(coord_client_destroy);
    LOAD(coord_lock_new);
    LOAD(coord_lock_acquire);
    LOAD(coord_lock_destroy);
    LOAD(coord_held_destroy);

    coord_config_t *config = NULL;
    coord_client_t *client = NULL;
    coord_lock_t *lock = NULL;
    coord_held_t *held = NULL;
    EQUAL(coord_config_new_(COORD_ABI_VERSION, test_url(), COORD_NUL, &config, NULL), COORD_OK);
    EQUAL(coord_client_connect_(config, WAIT_MS, NULL, &client, NULL), COORD_OK);
    EQUAL(coord_lock_new_(client, "a", COORD_NUL, &lock, NULL), COORD_OK);
    EQUAL(coord_lock_acquire_(lock, WAIT_MS, NULL, &held, NULL), COORD_OK);
    if (close) EQUAL(coord_client_close_(client, WAIT_MS, NULL), COORD_OK);
    coord_held_destroy_(held);
    coord_lock_destroy_(lock);
    coord_client_destroy_(client);
    coord_config_destroy_(config);
    CHECK(dlclose(library) == 0);
}

static void *use_on_thread(void *unused) {
    use(0);
    return unused;
}

int main(void) {
    for (int i = 0; i < 3; i++) use(i % 2);
    /* A thread that ends after the library was unloaded runs the destructors of its thread-local values. */
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, use_on_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    use(1);
    return 0;
}
