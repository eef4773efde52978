/* A capture through libpcap alone: slower, and the reference that our own readers are compared with. */
#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "port/capture.h"

/* libpcap has one packet at a time in memory: a burst is copied here. */
#define ROOM (SMOS__MAX_CAPLEN * 4u)

typedef struct reference {
    smos__capture_t capture; /* without a source */
    pcap_t *pcap;
    struct pcap_pkthdr *held; /* read, but there was no room for it in the last burst */
    const uint8_t *held_data;
    int over; /* what pcap_next_ex gave at the end: asked again it would forget an error */
    uint8_t room[ROOM];
} reference_t;

static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    reference_t *r = (reference_t *)port;
    smos__capture_t *c = &r->capture;
    if (c->failed) return SMOS__PORT_FAILED;
    int n = 0, got;
    size_t used = 0;
    while (n < max && r->over == 0) {
        if (r->held == NULL && (got = pcap_next_ex(r->pcap, &r->held, &r->held_data)) != 1) {
            r->held = NULL;
            r->over = got;
            break;
        }
        uint32_t caplen = r->held->caplen < ROOM ? r->held->caplen : ROOM;
        if (caplen > ROOM - used) break;
        memcpy(r->room + used, r->held_data, caplen);
        int64_t time_ns = (int64_t)r->held->ts.tv_sec * 1000000000 + r->held->ts.tv_usec;
        smos__capture_deliver(c, &burst[n++], r->room + used, caplen, r->held->len, time_ns, c->linktype);
        used += caplen;
        r->held = NULL;
    }
    port->stats.packets += (uint64_t)n;
    if (n > 0) return n;
    if (r->over == PCAP_ERROR_BREAK) return SMOS__PORT_END;
    return smos__capture_fail(c, "cannot be read further: %s", pcap_geterr(r->pcap));
}

static void close_reference(smos__port_t *port)
{
    reference_t *r = (reference_t *)port;
    if (r->pcap != NULL) pcap_close(r->pcap);
    free(r);
}

smos__port_t *smos__libpcap_open(const char *path, char *error)
{
    reference_t *r = calloc(1, sizeof *r);
    if (r == NULL) {
        snprintf(error, SMOS__PORT_ERROR, "out of memory");
        return NULL;
    }
    smos__capture_t *c = &r->capture;
    smos__capture_name(path, c->name, sizeof c->name);
    c->last_ns = INT64_MIN;
    c->port.fd = -1;
    c->port.receive = receive;
    c->port.close = close_reference;

    char problem[PCAP_ERRBUF_SIZE] = "";
    r->pcap = pcap_open_offline_with_tstamp_precision(path, PCAP_TSTAMP_PRECISION_NANO, problem);
    if (r->pcap == NULL) smos__capture_fail(c, "cannot be opened: %s", problem);
    else c->linktype = smos__capture_linktype((uint32_t)pcap_datalink(r->pcap));
    if (r->pcap != NULL && smos__capture_check_linktype(c, c->linktype) == 0) return &c->port;
    memcpy(error, c->port.error, SMOS__PORT_ERROR);
    close_reference(&c->port);
    return NULL;
}
