#include "port/multi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

typedef struct multi {
    smos__port_t port;
    smos__port_t *members[SMOS__MULTI_PORTS];
    int count, first;
    uint64_t number;
    bool again; /* something came while the members were armed */
} multi_t;


/* The sum over the members; what they count apart stays in them. */
static void add_up(multi_t *m)
{
    smos__port_stats_t sum = {0};
    uint64_t *to = (uint64_t *)&sum;
    for (int i = 0; i < m->count; i++) {
        const uint64_t *from = (const uint64_t *)&m->members[i]->stats;
        for (size_t k = 0; k < sizeof sum / sizeof *to; k++) to[k] += from[k];
    }
    m->port.stats = sum;
}


/* Members deliver in order of time each; together they nearly do. Equal times stay as they are. */
static void sort(smos__frame_t *burst, int n)
{
    for (int i = 1; i < n; i++) {
        if (burst[i].time_ns >= burst[i - 1].time_ns) continue;
        smos__frame_t frame = burst[i];
        int k = i;
        for (; k > 0 && burst[k - 1].time_ns > frame.time_ns; k--) burst[k] = burst[k - 1];
        burst[k] = frame;
    }
}


static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    multi_t *m = (multi_t *)port;
    int n = 0, from = 0;
    for (int i = 0; i < m->count && n < max; i++) {
        int which = (m->first + i) % m->count, got = 0;
        smos__port_t *member = m->members[which];
        int share = (max - n) / (m->count - i); /* the last may fill up */
        if (share > 0) got = member->receive(member, burst + n, share);
        if (got == SMOS__PORT_FAILED) {
            memcpy(port->error, member->error, sizeof port->error);
            return got;
        }
        for (int k = n; k < n + got; k++) {
            if (!(burst[k].flags & SMOS__FRAME_HANDED)) burst[k].port = (uint16_t)which;
            burst[k].number = ++m->number;
        }
        if (got > 0) n += got, from++;
        if (member->now_ns > port->now_ns) port->now_ns = member->now_ns;
    }
    m->first = m->count ? (m->first + 1) % m->count : 0;
    if (from > 1) sort(burst, n);
    if (!n) {
        int more = 0;
        for (int i = 0; i < m->count; i++)
            if (m->members[i]->arm) more |= m->members[i]->arm(m->members[i]);
        if (more && !m->again) return m->again = true, receive(port, burst, max);
    }
    m->again = false;
    add_up(m);
    return n;
}


static smos__port_t *home(multi_t *m, const smos__frame_t *frame) { return m->members[frame->port < m->count ? frame->port : 0]; }
static void forward(smos__port_t *port, smos__frame_t *frame) { smos__port_t *p = home((multi_t *)port, frame); p->forward(p, frame); }
static void drop(smos__port_t *port, smos__frame_t *frame) { smos__port_t *p = home((multi_t *)port, frame); p->drop(p, frame); }


static int send_ours(smos__port_t *port, int end, const uint8_t *data, uint32_t length, const smos__frame_t *like)
{
    multi_t *m = (multi_t *)port;
    smos__port_t *p = like ? home(m, like) : m->members[0];
    return p->send(p, end, data, length, like);
}


static void flush(smos__port_t *port)
{
    multi_t *m = (multi_t *)port;
    for (int i = 0; i < m->count; i++)
        if (m->members[i]->flush) m->members[i]->flush(m->members[i]);
    add_up(m);
}


static void close_port(smos__port_t *port)
{
    multi_t *m = (multi_t *)port;
    for (int i = 0; i < m->count; i++) m->members[i]->close(m->members[i]);
    if (port->fd >= 0) close(port->fd);
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
    port->stats = m->members[place]->stats;
    m->members[place]->close(m->members[place]);
    m->members[place] = port;
    return 0;
}


int smos__multi_add(smos__port_t *multi, smos__port_t *port, char *error)
{
    multi_t *m = (multi_t *)multi;
    if (m->count == SMOS__MULTI_PORTS) return snprintf(error, SMOS__PORT_ERROR, "more than %d ports", SMOS__MULTI_PORTS), -ENOSPC;
    int status = wait_for(multi, port, error);
    if (status) return status;
    m->members[m->count++] = port;
    if (port->forward) {
        multi->forward = forward;
        multi->drop = drop;
        multi->send = send_ours;
        multi->ends = port->ends;
    }
    multi->flush = flush;
    if (port->fd < 0 && port->wait_ns > 0) multi->wait_ns = port->wait_ns;
    return 0;
}


bool smos__port_is_multi(const smos__port_t *port) { return port->receive == receive; }
