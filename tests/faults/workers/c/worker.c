/* The worker in C: worker URL HISTORY SEED TTL_MS. Takes, holds, checks and gives back locks and terms, and watches
 * elections, until its input ends. What it writes down is told in tests/faults/src/history.rs. */
#define _GNU_SOURCE
#include <coord.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LOCKS = 3, ELECTIONS = 2 };

static atomic_int ended;
static uint64_t random_state;
static int history;
static int watched;
static char folder[4096];

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* The boot-time clock by itself: a library that fakes dates may stand before the C library's function. */
static uint64_t now(void) {
    struct timespec time;
    if (syscall(SYS_clock_gettime, CLOCK_BOOTTIME, &time) != 0) {
        die("clock");
    }
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void pause_for(uint64_t ns) {
    struct timespec time = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    nanosleep(&time, NULL);
}

/* SplitMix64, as in the other workers. */
static uint64_t random_bits(void) {
    uint64_t z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static int chance(unsigned percent) { return random_bits() % 100 < percent; }

static uint64_t between(uint64_t shortest, uint64_t longest) {
    return shortest + random_bits() % (longest - shortest + 1);
}

/* One line in one write, so that a killed process leaves whole lines. */
static void note(int file, uint64_t t, const char *event, const char *name, const char *rest) {
    char line[512];
    int length = snprintf(line, sizeof line, "{\"t\":%llu,\"e\":\"%s\",\"lock\":\"%s\"%s}\n", (unsigned long long)t,
                          event, name, rest);
    if (write(file, line, (size_t)length) != length) {
        die("history");
    }
}

static void note_token(uint64_t t, const char *event, const char *name, int64_t token, const char *rest) {
    char text[96];
    snprintf(text, sizeof text, ",\"token\":%lld%s", (long long)token, rest);
    note(history, t, event, name, text);
}

/* What is had: a hold of a lock, or a term. */
typedef struct {
    coord_held_t *held;
    coord_term_t *term;
} having_t;

static int64_t token_of(const having_t *having) {
    return having->held ? coord_held_token(having->held) : coord_term_token(having->term);
}

static int is_valid(const having_t *having) {
    return (having->held ? coord_held_check(having->held, NULL) : coord_term_check(having->term, NULL)) == COORD_OK;
}

static int give_back(const having_t *having) {
    coord_status_t status = having->held ? coord_held_release(having->held, -1, NULL, NULL)
                                         : coord_term_resign(having->term, -1, NULL, NULL);
    coord_held_destroy(having->held);
    coord_term_destroy(having->term);
    return status == COORD_OK;
}

static coord_status_t take_lock(coord_client_t *client, const char *name, int64_t patience, having_t *having,
                                coord_error_t **error) {
    coord_lock_t *lock = NULL;
    coord_status_t status = coord_lock_new(client, name, COORD_NUL, &lock, NULL);
    if (status == COORD_OK) {
        status = patience < 0 ? coord_lock_try_acquire(lock, NULL, &having->held, error)
                              : coord_lock_acquire(lock, patience, NULL, &having->held, error);
    }
    coord_lock_destroy(lock);
    return status;
}

static coord_status_t take_term(coord_client_t *client, const char *name, int64_t patience, having_t *having,
                                coord_error_t **error) {
    coord_election_t *election = NULL;
    coord_status_t status = coord_election_new(client, name, COORD_NUL, &election, NULL);
    if (status == COORD_OK) {
        status = patience < 0
                     ? coord_election_try_campaign(election, "c", COORD_NUL, NULL, &having->term, error)
                     : coord_election_campaign(election, "c", COORD_NUL, NULL, patience, NULL, &having->term, error);
    }
    coord_election_destroy(election);
    return status;
}

/* The resource that the lock protects: a file that its own lock guards, so it is right whatever ours does. */
static void write_resource(const char *name, int64_t token) {
    char path[4200];
    snprintf(path, sizeof path, "%s/%s.register", folder, name);
    FILE *file = fopen(path, "a+");
    if (file == NULL) {
        die("register");
    }
    /* One that was stopped in the middle of a write must not stop the others. */
    if (flock(fileno(file), LOCK_EX | LOCK_NB) == 0) {
        long long highest = 0, read = 0;
        rewind(file);
        while (fscanf(file, "%lld", &read) == 1) {
            highest = read;
        }
        int accepted = token >= highest;
        char line[32];
        int length = snprintf(line, sizeof line, "%lld\n", (long long)token);
        if (token > highest && write(fileno(file), line, (size_t)length) != length) {
            die("register");
        }
        fclose(file);
        note_token(now(), "wrote", name, token, accepted ? ",\"accepted\":true" : ",\"accepted\":false");
        return;
    }
    fclose(file);
}

static void hold(const char *name, having_t *having, uint64_t ttl) {
    int64_t token = token_of(having);
    /* Only holds that are comparable with the ttl can overlap. */
    uint64_t until = now() + between(0, chance(60) ? ttl + ttl / 5 : 50000000);
    for (;;) {
        uint64_t before = now();
        if (!is_valid(having)) {
            note_token(now(), "lost", name, token, "");
            break;
        }
        note_token(before, "ok", name, token, "");
        if (before >= until || ended) {
            break;
        }
        if (chance(30)) {
            write_resource(name, token);
        }
        pause_for(between(1000000, 20000000));
    }
    int clean = give_back(having);
    note_token(now(), "released", name, token, clean ? ",\"clean\":true" : ",\"clean\":false");
}

static void attempt(coord_client_t *client, uint64_t ttl, unsigned long n) {
    unsigned number = (unsigned)(random_bits() % (LOCKS + ELECTIONS));
    int is_lock = number < LOCKS;
    char name[16], rest[160];
    snprintf(name, sizeof name, "%c%u", is_lock ? 'l' : 'e', is_lock ? number : number - LOCKS);
    int wait = chance(80);
    int64_t patience = wait ? (int64_t)(between(20000000, ttl * 4) / 1000000) : -1;
    snprintf(rest, sizeof rest, ",\"n\":%lu,\"wait\":%s,\"patience_ms\":%lld", n, wait ? "true" : "false",
             wait ? (long long)patience : 0);
    note(history, now(), "attempt", name, rest);
    having_t having = {NULL, NULL};
    coord_error_t *error = NULL;
    coord_status_t status = (is_lock ? take_lock : take_term)(client, name, patience, &having, &error);
    if (status == COORD_OK) {
        snprintf(rest, sizeof rest, ",\"n\":%lu,\"token\":%lld", n, (long long)token_of(&having));
        note(history, now(), "granted", name, rest);
        hold(name, &having, ttl);
        return;
    }
    const char *code = status == COORD_E_CONTENDED ? "Contended" : status == COORD_E_TIMEOUT ? "Timeout" : coord_status_name(status);
    const coord_holder_t *holder = coord_error_holder(error);
    int length = snprintf(rest, sizeof rest, ",\"n\":%lu,\"code\":\"%s\"", n, code);
    if (holder != NULL) {
        snprintf(rest + length, sizeof rest - (size_t)length, ",\"holder\":%lld", (long long)coord_holder_token(holder));
    }
    coord_error_destroy(error);
    note(history, now(), "refused", name, rest);
    pause_for(between(1000000, 200000000));
}

typedef struct {
    coord_election_t *election;
    char name[16];
} watching_t;

static void *watch(void *argument) {
    watching_t *watching = argument;
    coord_leader_watch_t *stream = NULL;
    coord_status_t status;
    while ((status = coord_election_observe(watching->election, -1, NULL, &stream, NULL)) != COORD_OK) {
        if (status == COORD_E_CLOSED) {
            return NULL;
        }
        pause_for(100000000); /* the store is away: not at once again */
    }
    for (;;) {
        coord_leader_t *leader = NULL;
        status = coord_leader_watch_next(stream, -1, NULL, &leader, NULL);
        if (status == COORD_OK) {
            char rest[64] = ",\"token\":null";
            if (leader != NULL) {
                snprintf(rest, sizeof rest, ",\"token\":%lld", (long long)coord_leader_token(leader));
            }
            note(watched, now(), "watched", watching->name, rest);
        } else if (status == COORD_E_CLOSED) {
            break;
        } else {
            pause_for(100000000);
        }
        coord_leader_destroy(leader);
    }
    coord_leader_watch_destroy(stream);
    return NULL;
}

static void *wait_for_end(void *unused) {
    char byte;
    (void)unused;
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    ended = 1;
    return NULL;
}

static coord_client_t *connect_to(const char *url) {
    while (!ended) {
        coord_config_t *config = NULL;
        coord_client_t *client = NULL;
        coord_error_t *error = NULL;
        coord_status_t status = coord_config_new(COORD_ABI_VERSION, url, COORD_NUL, &config, &error);
        if (status == COORD_OK) {
            status = coord_client_connect(config, -1, NULL, &client, &error);
        }
        coord_config_destroy(config);
        if (status == COORD_OK) {
            return client;
        }
        fprintf(stderr, "connecting again: %s\n", coord_error_message(error));
        coord_error_destroy(error);
        pause_for(200000000); /* the store is away: not at once again */
    }
    return NULL;
}

static int open_log(const char *path) {
    int file = open(path, O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0600);
    if (file < 0) {
        die(path);
    }
    return file;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: worker URL HISTORY SEED TTL_MS\n");
        return 2;
    }
    char path[4096];
    snprintf(folder, sizeof folder, "%s", argv[2]);
    *strrchr(folder, '/') = '\0';
    history = open_log(argv[2]);
    /* Beside its own history, whose last line says whether it holds something. */
    snprintf(path, sizeof path, "%.*s.watch.jsonl", (int)(strrchr(argv[2], '.') - argv[2]), argv[2]);
    watched = open_log(path);
    random_state = strtoull(argv[3], NULL, 10);
    uint64_t ttl = strtoull(argv[4], NULL, 10) * 1000000;

    pthread_t input, watchers[ELECTIONS];
    watching_t watching[ELECTIONS];
    pthread_create(&input, NULL, wait_for_end, NULL);
    coord_client_t *client = connect_to(argv[1]);
    if (client == NULL) {
        return 0;
    }
    for (int i = 0; i < ELECTIONS; i++) {
        snprintf(watching[i].name, sizeof watching[i].name, "e%d", i);
        if (coord_election_new(client, watching[i].name, COORD_NUL, &watching[i].election, NULL) != COORD_OK) {
            return 1;
        }
        pthread_create(&watchers[i], NULL, watch, &watching[i]);
    }
    for (unsigned long n = 1; !ended; n++) {
        attempt(client, ttl, n);
    }
    coord_error_t *error = NULL;
    if (coord_client_close(client, 20000, &error) != COORD_OK) {
        fprintf(stderr, "closing: %s\n", coord_error_message(error));
        coord_error_destroy(error);
    }
    for (int i = 0; i < ELECTIONS; i++) {
        pthread_join(watchers[i], NULL);
        coord_election_destroy(watching[i].election);
    }
    coord_client_destroy(client);
    return 0;
}
