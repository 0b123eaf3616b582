/* The C member of the demo: member URL NAME

   Provides the service demo/member and wants to lead. Says `leads TOKEN NS` when it does, and then stands there until
   it is killed. */
#define _POSIX_C_SOURCE 200809L
#include <coord.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void must(coord_status_t status, coord_error_t *error) {
    if (status != COORD_OK) {
        fprintf(stderr, "member: %s\n", coord_error_message(error));
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        return 2;
    }
    coord_error_t *error = NULL;
    coord_config_t *config = NULL;
    coord_client_t *client = NULL;
    coord_provider_t *provider = NULL;
    coord_election_t *election = NULL;
    coord_term_t *term = NULL;
    must(coord_config_new(COORD_ABI_VERSION, argv[1], COORD_NUL, &config, &error), error);
    must(coord_config_set(config, "name", COORD_NUL, argv[2], COORD_NUL, &error), error);
    must(coord_client_connect(config, 30000, NULL, &client, &error), error);
    must(coord_client_provide(client, "demo/member", COORD_NUL, argv[2], COORD_NUL, NULL, 30000, NULL, &provider, &error),
         error);
    must(coord_election_new(client, "demo/leader", COORD_NUL, &election, &error), error);
    must(coord_election_campaign(election, argv[2], COORD_NUL, NULL, -1, NULL, &term, &error), error);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("leads %lld %lld\n", (long long)coord_term_token(term), now.tv_sec * 1000000000LL + now.tv_nsec);
    fflush(stdout);
    int32_t loss = 0;
    must(coord_term_wait_lost(term, -1, NULL, &loss, &error), error);
    must(coord_term_check(term, &error), error);
    return 0;
}
