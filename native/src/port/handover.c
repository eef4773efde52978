#include "port/handover.h"

#include <stdlib.h>
#include <unistd.h>

typedef struct handover {
    smos__port_t port;
    smos__port_t *ring;
    smos__ring_t *handle;
} handover_t;


static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    handover_t *h = (handover_t *)port;
    int64_t clock_ns = smos__ring_clock(h->handle); /* before looking: what was pushed up to then is seen */
    int n = h->ring->receive(h->ring, burst, max);
    for (int i = 0; i < n; i++) burst[i].flags |= SMOS__FRAME_HANDED;
    if (n == 0) port->clear_ns = clock_ns;
    if (n == SMOS__PORT_FAILED) __builtin_memcpy(port->error, h->ring->error, sizeof port->error);
    return n; /* not in the port's statistics: they are counted where they came from the wire */
}


static int arm(smos__port_t *port)
{
    handover_t *h = (handover_t *)port;
    uint64_t rings;
    if (port->fd >= 0 && read(port->fd, &rings, sizeof rings) < 0) rings = 0; /* nonblocking: there may be none */
    return smos__ring_sleeps(h->handle);
}


static void want_clock(smos__port_t *port, int64_t until_ns) { smos__ring_want_clock(((handover_t *)port)->handle, until_ns); }


static void close_port(smos__port_t *port)
{
    handover_t *h = (handover_t *)port;
    h->ring->close(h->ring);
    free(h);
}


smos__port_t *smos__handover_open(smos__ring_t *ring, int bell, char *error)
{
    handover_t *h = calloc(1, sizeof *h);
    smos__port_t *port = h ? smos__port_open_ring(ring, error) : NULL;
    if (!port) return free(h), NULL;
    *h = (handover_t){.ring = port, .handle = ring, .port = {.receive = receive, .close = close_port, .arm = arm, .want_clock = want_clock, .fd = bell, .ends = 1}};
    return &h->port;
}
