/* A defect of the library ends at its boundary, as an error. */
#include "test.h"

/* Only in the build for tests, and so not in the header. */
coord_status_t coord_test_panic(coord_error_t **err);

int main(void) {
    FAILS(COORD_E_PANIC, coord_test_panic(&err));
    EQUAL(coord_test_panic(NULL), COORD_E_PANIC);
    coord_error_t *err = NULL;
    EQUAL(coord_test_panic(&err), COORD_E_PANIC);
    CHECK(strstr(coord_error_message(err), "on purpose") != NULL);
    coord_error_destroy(err);
    /* It works on. */
    coord_client_t *client = connect_as("a");
    OK(coord_client_health(client, WAIT_MS, NULL, &err));
    OK(coord_client_close(client, WAIT_MS, &err));
    coord_client_destroy(client);
    return 0;
}
