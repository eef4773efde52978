#include "port/handover.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct handover {
    smos__port_t port;
    smos__port_t **rings;
    smos__ring_t **handles;
    int count, first;
} handover_t;


static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    handover_t *h = (handover_t *)port;
    int n = 0;
    for (int i = 0; i < h->count && n < max; i++) {
        smos__port_t *ring = h->rings[(h->first + i) % h->count];
        int share = (max - n) / (h->count - i);
        int got = share ? ring->receive(ring, burst + n, share) : 0;
        if (got == SMOS__PORT_FAILED) {
            memcpy(port->error, ring->error, sizeof port->error);
            return got;
        }
        for (int k = 0; k < got; k++) burst[n + k].flags |= SMOS__FRAME_HANDED;
        if (got > 0) n += got;
    }
    h->first = (h->first + 1) % h->count;
    return n; /* the port's packets are counted where they came from the wire */
}


static int arm(smos__port_t *port)
{
    handover_t *h = (handover_t *)port;
    uint64_t rings;
    if (read(port->fd, &rings, sizeof rings) < 0) rings = 0; /* nonblocking: there may be none */
    int waiting = 0;
    for (int i = 0; i < h->count; i++) waiting |= smos__ring_sleeps(h->handles[i]);
    return waiting;
}


static void close_port(smos__port_t *port)
{
    handover_t *h = (handover_t *)port;
    for (int i = 0; i < h->count; i++) h->rings[i]->close(h->rings[i]);
    free(h->rings);
    free(h->handles);
    free(h);
}


smos__port_t *smos__handover_open(smos__ring_t **rings, int count, int bell, char *error)
{
    handover_t *h = calloc(1, sizeof *h);
    if (h) h->rings = calloc((size_t)count, sizeof *h->rings), h->handles = calloc((size_t)count, sizeof *h->handles);
    if (!h || !h->rings || !h->handles) {
        snprintf(error, SMOS__PORT_ERROR, "out of memory");
        if (h) free(h->rings), free(h->handles);
        free(h);
        return NULL;
    }
    h->port = (smos__port_t){.receive = receive, .close = close_port, .arm = arm, .fd = bell, .ends = 1};
    for (; h->count < count; h->count++) {
        h->handles[h->count] = rings[h->count];
        h->rings[h->count] = smos__port_open_ring(rings[h->count], error);
        if (!h->rings[h->count]) return close_port(&h->port), NULL;
    }
    return &h->port;
}
