/* Sends an outbox's mails until it is killed: sender STORE MAILSERVER OUTBOX. Says "ready" when it does. */
#include <coord.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    coord_config_t *config = NULL; coord_client_t *client = NULL; coord_mailer_t *mailer = NULL;
    coord_outbox_t *outbox = NULL; coord_senders_t *senders = NULL; coord_error_t *err = NULL;
    if (argc != 4) return 2;
    coord_status_t status = coord_config_new(COORD_ABI_VERSION, argv[1], COORD_NUL, &config, &err);
    if (!status) status = coord_client_connect(config, -1, NULL, &client, &err);
    if (!status) status = coord_mailer_new(client, argv[2], COORD_NUL, NULL, 0, &mailer, &err);
    if (!status) status = coord_outbox_new(client, argv[3], COORD_NUL, mailer, "{\"poll\": \"50ms\"}", COORD_NUL, &outbox, &err);
    if (!status) status = coord_outbox_start(outbox, 2, &senders, &err);
    if (status) {
        fprintf(stderr, "%s\n", coord_error_message(err));
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) pause();
}
