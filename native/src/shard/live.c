/* Live ports of a shard, and sleeping where they have nothing. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>

#include "port/af_packet.h"
#include "port/af_xdp.h"
#include "port/away.h"
#ifdef SMOS_DPDK
#include "port/dpdk.h"
#endif
#include "port/multi.h"
#include "shard/shard.h"

#define MAX_FDS 8
#define SPIN_NS 50000 /* how long a busy worker's word is waited for awake */


int smos__shard_add_port(smos_shard_t *s, smos__port_t *port, char *error)
{
    if (!s->port) return s->port = port, 0;
    if (!smos__port_is_multi(s->port)) {
        smos__port_t *multi = smos__multi_open(error);
        if (!multi) return port->close(port), -ENOMEM;
        int status = smos__multi_add(multi, s->port, error);
        s->port = multi;
        if (status) return port->close(port), status;
    }
    int status = smos__multi_add(s->port, port, error);
    if (status) port->close(port);
    return status;
}


int smos__shard_replace_port(smos_shard_t *s, int place, smos__port_t *port, char *error)
{
    if (s->port && smos__port_is_multi(s->port)) {
        int status = smos__multi_replace(s->port, place, port, error);
        if (status) port->close(port);
        return status;
    }
    if (s->port) {
        port->stats = s->port->stats;
        s->port->close(s->port);
    }
    s->port = port;
    return 0;
}


static smos__port_t *open_packet_port(const smos_packet_port_t *o, char *error)
{
    return o->fd[1] < 0 ? smos__blocks_open(o, error) : smos__pair_open(o, error);
}


int smos_shard_add_packet_port(smos_shard_t *s, const smos_packet_port_t *o, char *error)
{
    smos__port_t *port = open_packet_port(o, error);
    return port ? smos__shard_add_port(s, port, error) : -EIO;
}


int smos_shard_replace_packet_port(smos_shard_t *s, int place, const smos_packet_port_t *o, char *error)
{
    smos__port_t *port = open_packet_port(o, error);
    return port ? smos__shard_replace_port(s, place, port, error) : -EIO;
}


int smos_shard_add_xsk_port(smos_shard_t *s, const smos_xsk_port_t *o, char *error)
{
    smos__port_t *port = smos__xdp_open(o, error);
    return port ? smos__shard_add_port(s, port, error) : -EIO;
}


int smos_shard_replace_xsk_port(smos_shard_t *s, int place, const smos_xsk_port_t *o, char *error)
{
    smos__port_t *port = smos__xdp_open(o, error);
    return port ? smos__shard_replace_port(s, place, port, error) : -EIO;
}


#ifdef SMOS_DPDK
int smos_shard_add_dpdk_port(smos_shard_t *s, const smos_dpdk_port_t *o, char *error)
{
    smos__port_t *port = smos__dpdk_open(o, error);
    return port ? smos__shard_add_port(s, port, error) : -EIO;
}


#endif
int smos_shard_set_away(smos_shard_t *s, int place, int ends, char *error)
{
    smos__port_t *port = smos__away_open(ends, error);
    if (!port) return -ENOMEM;
    return place < 0 ? smos__shard_add_port(s, port, error) : smos__shard_replace_port(s, place, port, error);
}


static int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}


uint32_t smos_shard_run_waiting(smos_shard_t *s, int64_t max_ns, int64_t idle_ns, const int *fds, int count)
{
    int64_t start = monotonic_ns(), busy_until = start + max_ns, idle_until = start + idle_ns;
    struct pollfd polled[MAX_FDS + 1];
    if (count > MAX_FDS) count = MAX_FDS;
    for (int i = 0; i < count; i++) polled[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    int64_t blocked_ns = 0;
    for (;;) {
        uint32_t bits = smos_shard_run(s, max_ns);
        if (bits != SMOS_RUN_IDLE) return bits;
        int64_t now = monotonic_ns(), left = idle_until - now;
        if (left <= 0) return bits;
        int64_t wait = smos_shard_wait_ns(s);
        if (wait >= 0 && wait < left) left = wait;
        /* Frames that wait for other workers' words lie in rings that are readable all the while: their descriptors would wake us for nothing. */
        bool blocked = s->port && s->port->blocked;
        if (!blocked) blocked_ns = 0;
        else if (!blocked_ns) blocked_ns = now;
        bool asleep = blocked && now - blocked_ns >= SPIN_NS;
        polled[count] = (struct pollfd){.fd = asleep ? -1 : smos_shard_fd(s), .events = POLLIN};
        struct timespec timeout = {left / 1000000000, left % 1000000000};
        int ready = ppoll(polled, (nfds_t)count + 1, &timeout, NULL);
        for (int i = 0; ready > 0 && i < count; i++)
            if (polled[i].revents) return bits | SMOS_RUN_INTERRUPTED;
        if (monotonic_ns() >= busy_until && ready > 0) return bits | SMOS_RUN_TIME;
    }
}
