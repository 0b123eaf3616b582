/* One process leads at a time, publishes where it can be reached, and says so while it does; the others follow it. */
#include <coord.h>
#include <stdio.h>

static int failed(const char *what, coord_error_t *error) {
    fprintf(stderr, "%s: %s\n", what, coord_error_message(error));
    coord_error_destroy(error);
    return 1;
}

int main(void) {
    coord_error_t *error = NULL;
    coord_config_t *config = NULL;
    coord_client_t *client = NULL;
    coord_election_t *election = NULL;
    coord_term_t *term = NULL;
    coord_leader_t *leader = NULL;

    if (coord_config_new(COORD_ABI_VERSION, "sqlite:///t.db", COORD_NUL, &config, &error) != COORD_OK) {
        return failed("config", error);
    }
    if (coord_client_connect(config, 10000, NULL, &client, &error) != COORD_OK) return failed("connect", error);
    coord_config_destroy(config);
    if (coord_election_new(client, "scheduler", COORD_NUL, &election, &error) != COORD_OK) {
        return failed("election", error);
    }

    /* Waits until this process leads. */
    if (coord_election_campaign(election, "http://host-1:8080", COORD_NUL, NULL, -1, NULL, &term, &error) != COORD_OK) {
        return failed("campaign", error);
    }
    /* Before each effect: a term that is lost is known to be so before anybody else can lead. */
    if (coord_term_check(term, &error) != COORD_OK) return failed("check", error);

    if (coord_election_leader(election, 10000, NULL, &leader, &error) != COORD_OK) return failed("leader", error);
    if (leader != NULL) printf("token %lld leads at %s\n", (long long)coord_leader_token(leader), coord_leader_value(leader));
    coord_leader_destroy(leader);

    if (coord_term_resign(term, 10000, NULL, &error) != COORD_OK) return failed("resign", error);
    coord_term_destroy(term);
    coord_election_destroy(election);
    if (coord_client_close(client, 10000, &error) != COORD_OK) return failed("close", error);
    coord_client_destroy(client);
    return 0;
}
