/* Captures as if they were a live port: again and again, at a rate, or at the pace they were recorded with. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "port/capture.h"

#define SECOND 1000000000
#define LEAST_WAIT 1000000 /* a paced replay lets packets gather for so long: a sleep for each would cost more than the packet */

typedef struct replay {
    smos__port_t port;
    smos__port_t *inner;
    char **paths;
    int count;
    smos__replay_t how;
    smos__frame_t held[SMOS__BURST]; /* received, not yet due */
    int at, ready;
    int begun;
    int64_t start_ns;      /* host clock at the first packet, moved on when we fall behind */
    int64_t first_ns;      /* time of that packet */
    uint64_t paced;        /* packets since start_ns */
    uint64_t packets;      /* in all */
    int64_t shift_ns;      /* of this round */
    int64_t last_ns;
    uint64_t round;        /* packets of this round */
    int64_t earliest_ns, latest_ns; /* of this round, as in the file */
    int64_t resume_ns;     /* a later round begins here */
} replay_t;

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND + now.tv_nsec;
}

static int64_t add(int64_t a, int64_t b)
{
    int64_t sum;
    return !__builtin_add_overflow(a, b, &sum) ? sum : b > 0 ? INT64_MAX : INT64_MIN;
}

static int64_t subtract(int64_t a, int64_t b)
{
    int64_t difference;
    return !__builtin_sub_overflow(a, b, &difference) ? difference : b < 0 ? INT64_MAX : INT64_MIN;
}

/* Opens the captures again. 1, or SMOS__PORT_END after a round without packets (it would never end), or SMOS__PORT_FAILED. */
static int start_over(replay_t *r)
{
    if (r->round == 0) return SMOS__PORT_END;
    int64_t distance = r->round > 1 ? subtract(r->latest_ns, r->earliest_ns) / (int64_t)(r->round - 1) : 0;
    r->resume_ns = add(add(r->latest_ns, r->shift_ns), distance > 0 ? distance : 1000);
    r->round = 0;
    r->port.epoch++;
    r->inner->close(r->inner);
    r->inner = smos__captures_once((const char *const *)r->paths, r->count, r->how.reader, r->port.error);
    return r->inner != NULL ? 1 : SMOS__PORT_FAILED;
}

/* Takes the next frames of the round into `held`; 1, or as receive. */
static int hold(replay_t *r, int max)
{
    if (r->inner == NULL) return SMOS__PORT_FAILED;
    int got;
    while ((got = r->inner->receive(r->inner, r->held, max)) == SMOS__PORT_END && r->how.loop) {
        int over = start_over(r);
        if (over != 1) return over;
    }
    if (got == SMOS__PORT_FAILED) memcpy(r->port.error, r->inner->error, sizeof r->port.error);
    if (got == 0) {
        r->port.fd = r->inner->fd;
        r->port.wait_ns = r->inner->wait_ns;
    }
    r->port.ahead = r->inner->ahead;
    r->port.ahead_end = r->inner->ahead_end;
    if (got <= 0) return got;
    r->at = 0;
    r->ready = got;
    if (r->round == 0) {
        r->earliest_ns = r->latest_ns = r->held[0].time_ns;
        r->shift_ns = r->port.epoch == 0 ? 0 : subtract(r->resume_ns, r->held[0].time_ns);
    }
    r->round += (uint64_t)got;
    for (int i = 0; i < got; i++) {
        int64_t time_ns = r->held[i].time_ns;
        if (time_ns < r->earliest_ns) r->earliest_ns = time_ns;
        if (time_ns > r->latest_ns) r->latest_ns = time_ns;
        r->held[i].time_ns = add(time_ns, r->shift_ns);
        if (r->port.epoch > 0 && r->held[i].time_ns < r->resume_ns) r->held[i].time_ns = r->resume_ns; /* a file may go back before its own first time */
    }
    return 1;
}

/* Host time at which the next packet, of time_ns, is due. */
static int64_t due_ns(const replay_t *r, int64_t time_ns)
{
    if (r->how.as_recorded) return add(r->start_ns, subtract(time_ns, r->first_ns));
    return add(r->start_ns, (int64_t)((double)r->paced * 1e9 / r->how.rate));
}

static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    replay_t *r = (replay_t *)port;
    int paced = r->how.as_recorded || r->how.rate > 0;
    port->fd = -1;
    port->wait_ns = 0;
    if (r->at == r->ready) {
        int got = hold(r, max < SMOS__BURST ? max : SMOS__BURST);
        if (got != 1) return got;
    }
    int64_t now = paced ? clock_ns() : 0;
    if (paced && !r->begun) {
        r->begun = 1;
        r->start_ns = now;
        r->first_ns = r->held[r->at].time_ns;
    }
    int n = 0;
    for (; n < max && r->at < r->ready; r->at++, n++) {
        int64_t time_ns = r->held[r->at].time_ns;
        if (paced) {
            int64_t early = subtract(due_ns(r, time_ns), now);
            if (early > 0) {
                if (n == 0) port->wait_ns = early > LEAST_WAIT ? early : LEAST_WAIT;
                break;
            }
            if (early < -(int64_t)SECOND) r->start_ns = add(r->start_ns, -early); /* stopped for long: no flood to catch up */
        }
        burst[n] = r->held[r->at];
        burst[n].number = ++r->packets;
        r->paced++;
        port->stats.bytes += burst[n].len;
        port->stats.time_backward += r->packets > 1 && time_ns < r->last_ns;
        r->last_ns = time_ns;
    }
    port->stats.packets += (uint64_t)n;
    return n;
}

static void close_replay(smos__port_t *port)
{
    replay_t *r = (replay_t *)port;
    if (r->inner != NULL) r->inner->close(r->inner);
    for (int i = 0; r->paths != NULL && i < r->count; i++) free(r->paths[i]);
    free(r->paths);
    free(r);
}

/* Only what can be opened a second time can be looped. */
static int check_loop(const char *const *paths, int count, char *error)
{
    for (int i = 0; i < count; i++) {
        struct stat st;
        int again = strcmp(paths[i], "-") != 0 && (stat(paths[i], &st) != 0 || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
        if (again) continue;
        char name[120];
        smos__capture_name(paths[i], name, sizeof name);
        snprintf(error, SMOS__PORT_ERROR, "%s cannot be replayed in a loop: it can be read only once", name);
        return -1;
    }
    return 0;
}

smos__port_t *smos__replay_open(const char *const *paths, int count, const smos__replay_t *how, char *error)
{
    if (how->loop && check_loop(paths, count, error) != 0) return NULL;
    if (how->rate > 0 && how->as_recorded) {
        snprintf(error, SMOS__PORT_ERROR, "a replay goes at a rate or as recorded, not both");
        return NULL;
    }
    replay_t *r = calloc(1, sizeof *r);
    int copied = r != NULL && (r->paths = calloc((size_t)count, sizeof *r->paths)) != NULL;
    for (; copied && r->count < count; r->count += copied) copied = (r->paths[r->count] = strdup(paths[r->count])) != NULL;
    if (!copied) {
        snprintf(error, SMOS__PORT_ERROR, "out of memory");
        if (r != NULL) close_replay(&r->port);
        return NULL;
    }
    r->how = *how;
    r->port.receive = receive;
    r->port.close = close_replay;
    r->port.fd = -1;
    r->inner = smos__captures_once(paths, count, how->reader, error);
    if (r->inner != NULL) return &r->port;
    close_replay(&r->port);
    return NULL;
}
