/* In the place of a port whose interface is gone: nothing comes, and nothing that is handed over can go out. */
#include "port/away.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>


static int receive(smos__port_t *port, smos__frame_t *burst, int max) { (void)port, (void)burst, (void)max; return 0; }
static void forward(smos__port_t *port, smos__frame_t *frame) { (void)frame; port->stats.lost_refused++; }
static void drop(smos__port_t *port, smos__frame_t *frame) { (void)port, (void)frame; }
static void flush(smos__port_t *port) { (void)port; }
static void close_port(smos__port_t *port) { free(port); }


static int send_ours(smos__port_t *port, int end, const uint8_t *data, uint32_t length, const smos__frame_t *like)
{
    (void)end, (void)data, (void)length, (void)like;
    return port->stats.unsent++, -ENOBUFS;
}


smos__port_t *smos__away_open(int ends, char *error)
{
    smos__port_t *port = calloc(1, sizeof *port);
    if (!port) return snprintf(error, SMOS__PORT_ERROR, "out of memory"), NULL;
    *port = (smos__port_t){.receive = receive, .close = close_port, .fd = -1, .ends = ends};
    if (ends == 2) port->forward = forward, port->drop = drop, port->send = send_ours, port->flush = flush;
    return port;
}
