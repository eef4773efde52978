/* Captures that cannot be mapped by every worker are read once here and dealt out over hand-over rings. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "port/ring.h"
#include "shardmos/engine.h"
#include "wire/decode.h"
#include "wire/owner.h"

#define MAX_WORKERS 256
#define CLOCK_STEP_NS 100000000 /* a worker that gets no packets still learns the time this often */
#define FULL_WAIT_NS 50000

typedef struct hand {
    void *memory;
    size_t bytes;
    smos__ring_t *ring;
    int64_t clock_ns; /* the last time it was told */
    uint64_t epoch;
    int wanted;       /* the current frame is yet to be pushed */
} hand_t;

struct smos_dealer {
    smos__port_t *port;
    hand_t *hands;
    int workers;
    uint32_t seed;
    int at, count; /* of burst */
    int chosen;    /* hands[].wanted says who gets burst[at] */
    int ended;     /* 1 the end, 2 a failure: the rings are to be told */
    int64_t now_ns;
    char error[SMOS_ERROR_SIZE];
    smos__frame_t burst[SMOS__BURST];
    smos__decoded_t decoded;
};

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void give(smos_dealer_t *d, const smos_tuple_t *tuple)
{
    d->hands[smos__owner(smos__owner_hash(tuple, d->seed), (uint32_t)d->workers)].wanted = 1;
}

/* Marks who gets the frame. Fragments go to all: which flow they belong to is known only when they are whole. */
static void choose(smos_dealer_t *d, const smos__frame_t *frame)
{
    smos__decode(frame, NULL, &d->decoded);
    const smos__decoded_t *decoded = &d->decoded;
    int all = decoded->result == SMOS__WIRE_FRAGMENT || decoded->fragments > 0;
    for (int i = 0; i < d->workers; i++) d->hands[i].wanted = all;
    for (int i = 0; !all && i < decoded->layers; i++) {
        give(d, &decoded->layer[i].tuple);
        if (decoded->layer[i].flags & SMOS__ICMP_ERROR) give(d, &decoded->layer[i].quoted);
    }
    /* what holds no flow is counted by one worker, all else by the owner of the innermost layer */
    if (decoded->layers == 0) d->hands[smos__owner(decoded->owner_hash, (uint32_t)d->workers)].wanted = 1;
}

/* Everything worker `hand` must see before and with the current frame. 1 done, 0 its ring is full. */
static int deal(smos_dealer_t *d, hand_t *hand, const smos__frame_t *frame)
{
    if (hand->epoch != d->port->epoch) {
        if (!smos__ring_push_epoch(hand->ring, d->port->epoch)) return 0;
        hand->epoch = d->port->epoch;
    }
    if (hand->wanted) {
        if (!smos__ring_push(hand->ring, frame)) return 0;
        hand->wanted = 0;
        if (frame->time_ns > hand->clock_ns) hand->clock_ns = frame->time_ns;
    } else if (frame->time_ns > hand->clock_ns && frame->time_ns - hand->clock_ns >= CLOCK_STEP_NS) {
        if (!smos__ring_push_clock(hand->ring, frame->time_ns)) return 0;
        hand->clock_ns = frame->time_ns;
    }
    return 1;
}

/* Deals burst[at]; 1, or 0 when some ring is full (the others have theirs). */
static int deal_frame(smos_dealer_t *d)
{
    const smos__frame_t *frame = &d->burst[d->at];
    if (!d->chosen) choose(d, frame);
    d->chosen = 1;
    int done = 1;
    for (int i = 0; i < d->workers; i++) done &= deal(d, &d->hands[i], frame);
    if (!done) return 0;
    if (frame->time_ns > d->now_ns) d->now_ns = frame->time_ns;
    d->chosen = 0;
    d->at++;
    return 1;
}

/* Tells every worker the last time and the end. 1, or 0 when some ring is full. */
static int deal_end(smos_dealer_t *d)
{
    int done = 1;
    for (int i = 0; i < d->workers; i++) {
        hand_t *hand = &d->hands[i];
        if (hand->ring == NULL) continue;
        if (d->now_ns > hand->clock_ns && !smos__ring_push_clock(hand->ring, d->now_ns)) {
            done = 0;
            continue;
        }
        smos__ring_end(hand->ring, d->ended == 2 ? d->port->error : NULL);
        smos__ring_free(hand->ring);
        hand->ring = NULL;
    }
    return done;
}

static void nap(int64_t ns, int64_t until)
{
    int64_t left = until - clock_ns();
    if (ns <= 0 || ns > 10000000) ns = 10000000; /* short enough to see the caller's bound and a pipe's data */
    if (ns > left) ns = left;
    if (ns > 0) nanosleep(&(struct timespec){ .tv_nsec = ns }, NULL);
}

uint32_t smos_dealer_run(smos_dealer_t *d, int64_t max_ns)
{
    int64_t until = clock_ns() + max_ns;
    do {
        int stuck = 0;
        while (d->at < d->count && !stuck) stuck = !deal_frame(d);
        if (stuck) {
            nap(FULL_WAIT_NS, until);
            continue;
        }
        if (!d->ended) {
            int got = d->port->receive(d->port, d->burst, SMOS__BURST);
            d->at = 0;
            d->count = got > 0 ? got : 0;
            if (got == 0) nap(d->port->wait_ns > 0 ? d->port->wait_ns : 1000000, until);
            if (got == SMOS__PORT_FAILED) snprintf(d->error, sizeof d->error, "%s", d->port->error);
            if (got < 0) d->ended = got == SMOS__PORT_FAILED ? 2 : 1;
        }
        if (d->ended && deal_end(d)) return d->ended == 2 ? SMOS_RUN_FAILED : SMOS_RUN_END;
        if (d->ended) nap(FULL_WAIT_NS, until);
    } while (clock_ns() < until);
    return SMOS_RUN_TIME;
}

const char *smos_dealer_error(const smos_dealer_t *d)
{
    return d->error;
}

void smos_dealer_close(smos_dealer_t *d)
{
    if (d == NULL) return;
    for (int i = 0; d->hands != NULL && i < d->workers; i++) {
        hand_t *hand = &d->hands[i];
        if (hand->ring != NULL) smos__ring_end(hand->ring, d->ended ? NULL : "the capture was not read to its end");
        smos__ring_free(hand->ring);
        if (hand->memory != NULL) munmap(hand->memory, hand->bytes);
    }
    free(d->hands);
    if (d->port != NULL) d->port->close(d->port);
    free(d);
}

/* Sizes the memfd and lays a ring out in it. 0, or a negative errno. */
static int open_hand(hand_t *hand, int fd, uint32_t ring_bytes)
{
    size_t bytes = smos__ring_bytes(ring_bytes);
    if (ftruncate(fd, (off_t)bytes) != 0) return -errno;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) return -errno;
    *hand = (hand_t){ .memory = memory, .bytes = bytes };
    hand->clock_ns = INT64_MIN / 2;
    hand->ring = smos__ring_init(memory, ring_bytes);
    if (hand->ring != NULL) return 0;
    munmap(memory, bytes);
    return -ENOMEM;
}

smos_dealer_t *smos_dealer_open(const char *const *paths, int count, const smos_replay_options_t *options, const int *fds, int workers,
                                uint32_t owner_seed, uint32_t ring_bytes, char *error)
{
    if (workers < 1 || workers > MAX_WORKERS) {
        snprintf(error, SMOS_ERROR_SIZE, "a capture can be dealt to 1 to %d workers, not %d", MAX_WORKERS, workers);
        return NULL;
    }
    smos_dealer_t *d = calloc(1, sizeof *d);
    if (d != NULL) d->hands = calloc((size_t)workers, sizeof *d->hands);
    if (d == NULL || d->hands == NULL) {
        snprintf(error, SMOS_ERROR_SIZE, "out of memory");
        free(d);
        return NULL;
    }
    d->seed = owner_seed;
    d->now_ns = INT64_MIN / 2;
    for (; d->workers < workers; d->workers++) {
        int failed = open_hand(&d->hands[d->workers], fds[d->workers], ring_bytes);
        if (failed == 0) continue;
        snprintf(error, SMOS_ERROR_SIZE, "a hand-over ring of %u bytes cannot be made: %s", ring_bytes, strerror(-failed));
        smos_dealer_close(d);
        return NULL;
    }
    smos__replay_t replay = { 0 };
    if (options != NULL) replay = (smos__replay_t){ .loop = options->loop, .rate = options->rate, .as_recorded = options->as_recorded, .reader = options->reader };
    char problem[SMOS__PORT_ERROR];
    d->port = smos__port_open_captures(paths, count, &replay, problem);
    if (d->port != NULL) return d;
    snprintf(error, SMOS_ERROR_SIZE, "%s", problem);
    smos_dealer_close(d);
    return NULL;
}
