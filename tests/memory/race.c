/* Two races that the thread sanitizer must find: `race ours` between two threads of the program, `race theirs` between
 * one of them and the library, which reads a text while it is written. */
#include "../c/test.h"

static char text[] = "30s";

static void *write_it(void *unused) {
    (void)unused;
    for (int i = 0; i < 10000; i++) text[0] = (char)('1' + i % 9);
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    pthread_t writer;
    coord_config_t *config = NULL;
    OK(coord_config_new(COORD_ABI_VERSION, "memory:race", COORD_NUL, &config, &err));
    EQUAL(pthread_create(&writer, NULL, write_it, NULL), 0);
    for (int i = 0; i < 1000; i++) {
        if (strcmp(argv[1], "ours") == 0) {
            text[0] = '1';
        } else {
            coord_config_set(config, "ttl", COORD_NUL, text, 3, NULL);
        }
    }
    EQUAL(pthread_join(writer, NULL), 0);
    coord_config_destroy(config);
    return 0;
}
