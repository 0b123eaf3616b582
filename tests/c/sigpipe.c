/* A server that closes in the middle of a write does not kill a program that has left SIGPIPE as it is by default. */
#include "test.h"
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>

static int listener;
static int stop;

/* Takes connections, and resets each at once. */
static void *serve(void *unused) {
    while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
        struct pollfd fd = {listener, POLLIN, 0};
        if (poll(&fd, 1, 50) != 1) continue;
        int connection = accept(listener, NULL, NULL);
        if (connection < 0) continue;
        struct linger reset = {1, 0};
        setsockopt(connection, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(connection);
    }
    return unused;
}

int main(void) {
    signal(SIGPIPE, SIG_DFL);
    struct sockaddr_in address = {0};
    socklen_t size = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 64) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, serve, NULL) == 0);

    char url[128];
    coord_config_t *config = NULL;
    coord_client_t *client = NULL;
    coord_error_t *err = NULL;
    snprintf(url, sizeof url, "mongodb://127.0.0.1:%d/?directConnection=true&serverSelectionTimeoutMS=1500",
             ntohs(address.sin_port));
    OK(coord_config_new(COORD_ABI_VERSION, url, COORD_NUL, &config, &err));
    coord_status_t status = coord_client_connect(config, 3000, NULL, &client, &err);
    /* A library that was built without MongoDB has nothing to show here. */
    CHECK(status == COORD_E_UNAVAILABLE || status == COORD_E_TIMEOUT || status == COORD_E_UNSUPPORTED);
    CHECK(client == NULL);
    coord_error_destroy(err);
    coord_config_destroy(config);

    /* The signal is what it was, and so is this thread's mask. */
    struct sigaction action;
    CHECK(sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
    sigset_t blocked;
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &blocked) == 0 && sigismember(&blocked, SIGPIPE) == 0);

    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    CHECK(pthread_join(thread, NULL) == 0);
    close(listener);
    return 0;
}
