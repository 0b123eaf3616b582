/* Exits with 0 if the library can connect to the store in its argument. */
#include <coord.h>

int main(int count, char **arguments) {
    coord_config_t *config = NULL;
    coord_client_t *client = NULL;
    if (count != 2 || coord_config_new(COORD_ABI_VERSION, arguments[1], COORD_NUL, &config, NULL) != COORD_OK) return 2;
    return coord_client_connect(config, 30000, NULL, &client, NULL) == COORD_OK ? 0 : 1;
}
