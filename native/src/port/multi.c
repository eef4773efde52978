#include "port/multi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_NS 200000000  /* how long a frame waits for a member that does not say how far it is */
#define HOT_NS 500000000      /* how long order is kept after the last frame that was handed over */
#define BLOCKED_WAIT_NS 200000

typedef struct member {
    smos__port_t *port;
    smos__frame_t frames[SMOS__BURST]; /* received and not yet delivered: from at to count */
    int at, count;
    int64_t clear_ns; /* all that it had up to then was delivered, or lies in frames */
    bool remote;      /* what other workers took from the wire */
} member_t;

typedef struct multi {
    smos__port_t port;
    member_t *members;
    int count, first, devices;
    uint64_t number;
    int64_t hot_until_ns;
    bool (*route)(void *, smos__frame_t *);
    void *context;
    bool again; /* something came while the members were armed */
} multi_t;


static int64_t host_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}


/* The sum over the members; what they count apart stays in them. */
static void add_up(multi_t *m)
{
    smos__port_stats_t sum = {0};
    uint64_t *to = (uint64_t *)&sum;
    for (int i = 0; i < m->count; i++) {
        const uint64_t *from = (const uint64_t *)&m->members[i].port->stats;
        for (size_t k = 0; k < sizeof sum / sizeof *to; k++) to[k] += from[k];
    }
    m->port.stats = sum;
}


/* Receives into the member's own frames, which were all delivered. */
static int fill(multi_t *m, int which, int max)
{
    member_t *e = &m->members[which];
    e->at = e->count = 0;
    int got = e->port->receive(e->port, e->frames, max);
    if (got == SMOS__PORT_FAILED) memcpy(m->port.error, e->port->error, sizeof m->port.error);
    if (got <= 0) {
        if (e->port->clear_ns > e->clear_ns) e->clear_ns = e->port->clear_ns;
        return got == SMOS__PORT_FAILED ? got : 0;
    }
    bool route = m->hot_until_ns && m->route && !e->remote;
    for (int i = 0; i < got; i++) {
        smos__frame_t *frame = &e->frames[i];
        if (!e->remote) frame->port = (uint16_t)which;
        if (frame->time_ns > e->clear_ns) e->clear_ns = frame->time_ns;
        if (route && !m->route(m->context, frame)) {
            if (e->port->drop) e->port->drop(e->port, frame);
            continue;
        }
        if (e->count != i) e->frames[e->count] = *frame;
        e->count++;
    }
    return got;
}


/* The member whose next frame is the oldest; -1: none has one. */
static int oldest(const multi_t *m)
{
    int best = -1;
    for (int i = 0; i < m->count; i++) {
        const member_t *e = &m->members[i];
        if (e->at < e->count && (best < 0 || e->frames[e->at].time_ns < m->members[best].frames[m->members[best].at].time_ns)) best = i;
    }
    return best;
}


/* Some member may still come with something older than `time_ns`. */
static bool too_early(const multi_t *m, int64_t time_ns)
{
    for (int i = 0; i < m->count; i++)
        if (m->members[i].at == m->members[i].count && m->members[i].clear_ns < time_ns) return true;
    return false;
}


/* In order of time over all members. Blocks of several devices, and what is handed over, come later than they were stamped: each frame waits
 * until everybody is as far. */
static int merge(multi_t *m, smos__frame_t *burst, int max)
{
    int64_t now = 0;
    int n = 0;
    while (n < max) {
        int which = oldest(m);
        if (which < 0) break;
        member_t *e = &m->members[which];
        int64_t time_ns = e->frames[e->at].time_ns;
        if ((m->hot_until_ns || m->devices > 1) && too_early(m, time_ns)) {
            if (!now) now = host_ns();
            if (now - time_ns < PATIENCE_NS) break;
            e->port->stats.unordered++;
        }
        burst[n] = e->frames[e->at++];
        burst[n++].number = ++m->number;
    }
    return n;
}


static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    multi_t *m = (multi_t *)port;
    int share = max / (m->count ? m->count : 1);
    bool remote = false, waiting = false, got_any = false;
    if (share < 8) share = 8;
    if (share > SMOS__BURST) share = SMOS__BURST;
    for (int i = 0; i < m->count; i++) {
        int which = (m->first + i) % m->count;
        member_t *e = &m->members[which];
        if (e->at < e->count) continue;
        int got = fill(m, which, share);
        if (got < 0) return got;
        remote |= got > 0 && e->remote;
        got_any |= got > 0;
    }
    m->first = m->count ? (m->first + 1) % m->count : 0;
    if ((remote || m->hot_until_ns) && m->hot_until_ns != INT64_MAX) {
        int64_t now = host_ns();
        if (remote) m->hot_until_ns = now + HOT_NS;
        if (now > m->hot_until_ns) m->hot_until_ns = 0;
        for (int i = 0; remote && i < m->count; i++)
            if (m->members[i].port->want_clock) m->members[i].port->want_clock(m->members[i].port, m->hot_until_ns);
    }
    int n = merge(m, burst, max);
    for (int i = 0; i < m->count; i++) waiting |= m->members[i].at < m->members[i].count;
    port->blocked = waiting;
    port->wait_ns = waiting ? BLOCKED_WAIT_NS : got_any ? 1 : 0; /* what was all others' leaves more to be looked for */
    if (!n && !waiting && !got_any) {
        int more = 0;
        for (int i = 0; i < m->count; i++) {
            smos__port_t *p = m->members[i].port;
            if (p->now_ns > port->now_ns) port->now_ns = p->now_ns;
            if (p->arm) more |= p->arm(p);
        }
        if (more && !m->again) return m->again = true, receive(port, burst, max);
    }
    m->again = false;
    add_up(m);
    return n;
}


static smos__port_t *home(multi_t *m, const smos__frame_t *frame) { return m->members[frame->port < m->count ? frame->port : 0].port; }
static void forward(smos__port_t *port, smos__frame_t *frame) { smos__port_t *p = home((multi_t *)port, frame); p->forward(p, frame); }
static void drop(smos__port_t *port, smos__frame_t *frame) { smos__port_t *p = home((multi_t *)port, frame); p->drop(p, frame); }


static int send_ours(smos__port_t *port, int end, const uint8_t *data, uint32_t length, const smos__frame_t *like)
{
    multi_t *m = (multi_t *)port;
    smos__port_t *p = like ? home(m, like) : m->members[0].port;
    return p->send(p, end, data, length, like);
}


static void flush(smos__port_t *port)
{
    multi_t *m = (multi_t *)port;
    int64_t clear = INT64_MAX;
    for (int i = 0; i < m->count; i++) {
        member_t *e = &m->members[i];
        if (e->port->flush) e->port->flush(e->port);
        if (e->remote) continue;
        int64_t mine = !m->route && e->at < e->count ? e->frames[e->at].time_ns - 1 : e->clear_ns; /* routed: others have theirs of what waits */
        if (mine < clear) clear = mine;
    }
    port->clear_ns = clear == INT64_MAX ? 0 : clear;
    add_up(m);
}


static void close_port(smos__port_t *port)
{
    multi_t *m = (multi_t *)port;
    for (int i = 0; i < m->count; i++) m->members[i].port->close(m->members[i].port);
    if (port->fd >= 0) close(port->fd);
    free(m->members);
    free(m);
}


smos__port_t *smos__multi_open(char *error)
{
    multi_t *m = calloc(1, sizeof *m);
    if (!m) return snprintf(error, SMOS__PORT_ERROR, "out of memory"), NULL;
    m->port = (smos__port_t){.receive = receive, .close = close_port, .fd = epoll_create1(EPOLL_CLOEXEC), .ends = 1};
    return &m->port;
}


static int wait_for(smos__port_t *multi, smos__port_t *port, char *error)
{
    struct epoll_event event = {.events = EPOLLIN};
    if (port->fd < 0 || !epoll_ctl(multi->fd, EPOLL_CTL_ADD, port->fd, &event)) return 0;
    return snprintf(error, SMOS__PORT_ERROR, "a port cannot be waited for: %s", strerror(errno)), -errno;
}


int smos__multi_replace(smos__port_t *multi, int place, smos__port_t *port, char *error)
{
    multi_t *m = (multi_t *)multi;
    if (place < 0 || place >= m->count) return snprintf(error, SMOS__PORT_ERROR, "there is no port %d", place), -ENOENT;
    int status = wait_for(multi, port, error);
    if (status) return status;
    member_t *e = &m->members[place];
    port->stats = e->port->stats;
    e->port->close(e->port);
    *e = (member_t){.port = port, .clear_ns = e->clear_ns};
    return 0;
}


int smos__multi_add(smos__port_t *multi, smos__port_t *port, char *error)
{
    multi_t *m = (multi_t *)multi;
    if (m->count == SMOS__MULTI_PORTS) return snprintf(error, SMOS__PORT_ERROR, "more than %d ports", SMOS__MULTI_PORTS), -ENOSPC;
    member_t *more = realloc(m->members, (size_t)(m->count + 1) * sizeof *more);
    if (!more) return snprintf(error, SMOS__PORT_ERROR, "out of memory"), -ENOMEM;
    m->members = more;
    int status = wait_for(multi, port, error);
    if (status) return status;
    m->members[m->count++] = (member_t){.port = port, .remote = port->want_clock != NULL};
    m->devices += !port->want_clock;
    if (port->forward) {
        multi->forward = forward;
        multi->drop = drop;
        multi->send = send_ours;
        multi->ends = port->ends;
    }
    multi->flush = flush;
    return 0;
}


void smos__multi_set_route(smos__port_t *multi, bool (*route)(void *context, smos__frame_t *), void *context)
{
    ((multi_t *)multi)->route = route;
    ((multi_t *)multi)->context = context;
}


void smos__multi_keep_order(smos__port_t *multi)
{
    multi_t *m = (multi_t *)multi;
    m->hot_until_ns = INT64_MAX;
    for (int i = 0; i < m->count; i++)
        if (m->members[i].port->want_clock) m->members[i].port->want_clock(m->members[i].port, INT64_MAX);
}


bool smos__port_is_multi(const smos__port_t *port) { return port->receive == receive; }
