/* Packets out to a capture file: a port over another one that writes down what an inline port would have forwarded, edited and sent. One pcap file with
 * nanoseconds, of the link type of its first packet. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "port/port.h"

#define BUFFER (1u << 20)
#define SNAPLEN 262144

typedef struct writer {
    smos__port_t port;
    smos__port_t *inner;
    FILE *file;
    char *path;
    uint16_t linktype;
    bool begun, failed;
    int64_t time_ns; /* of the packet last received: ours are of the same moment */
} writer_t;

static void put32(uint8_t *at, uint32_t v) { memcpy(at, &v, 4); } /* in the host's order, as the magic number tells */

static void fail(writer_t *w)
{
    w->failed = true;
    snprintf(w->port.error, sizeof w->port.error, "%s: cannot be written: %s", w->path, strerror(errno));
}

static void write_all(writer_t *w, const void *data, size_t length)
{
    if (!w->failed && fwrite(data, 1, length, w->file) != length) fail(w);
}

static void begin(writer_t *w, uint16_t linktype)
{
    uint8_t header[24] = {0};
    put32(header, 0xa1b23c4d);
    uint16_t version[2] = {2, 4};
    memcpy(header + 4, version, sizeof version);
    put32(header + 16, SNAPLEN);
    put32(header + 20, linktype);
    w->linktype = linktype;
    w->begun = true;
    write_all(w, header, sizeof header);
}

/* False: of another link type than the file. */
static bool write_packet(writer_t *w, const uint8_t *data, uint32_t caplen, uint32_t len, uint16_t linktype, int64_t time_ns)
{
    uint8_t header[16];
    if (!w->begun) begin(w, linktype);
    if (linktype != w->linktype) return false;
    put32(header, (uint32_t)(time_ns / 1000000000));
    put32(header + 4, (uint32_t)(time_ns % 1000000000));
    put32(header + 8, caplen);
    put32(header + 12, len);
    write_all(w, header, sizeof header);
    write_all(w, data, caplen);
    return true;
}

static int writer_receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    writer_t *w = (writer_t *)port;
    if (w->failed) return SMOS__PORT_FAILED;
    int n = w->inner->receive(w->inner, burst, max);
    port->wait_ns = w->inner->wait_ns;
    port->fd = w->inner->fd;
    port->epoch = w->inner->epoch;
    port->now_ns = w->inner->now_ns;
    port->stats.packets = w->inner->stats.packets;
    port->stats.bytes = w->inner->stats.bytes;
    port->stats.dropped = w->inner->stats.dropped;
    port->stats.time_backward = w->inner->stats.time_backward;
    if (n == SMOS__PORT_FAILED) memcpy(port->error, w->inner->error, sizeof port->error);
    return n;
}

static void writer_forward(smos__port_t *port, smos__frame_t *f)
{
    writer_t *w = (writer_t *)port;
    w->time_ns = f->time_ns;
    if (!write_packet(w, f->data, f->caplen, f->len, f->linktype, f->time_ns)) {
        port->stats.lost_refused++;
        return;
    }
    port->stats.forwarded++;
    port->stats.forwarded_bytes += f->len;
}

static void writer_drop(smos__port_t *port, smos__frame_t *f) { ((writer_t *)port)->time_ns = f->time_ns; }

static int writer_send(smos__port_t *port, int end, const uint8_t *data, uint32_t length, const smos__frame_t *like)
{
    writer_t *w = (writer_t *)port;
    (void)end;
    if (!write_packet(w, data, length, length, like ? like->linktype : 1, like ? like->time_ns : w->time_ns)) {
        port->stats.unsent++;
        return -EMSGSIZE;
    }
    port->stats.sent++;
    port->stats.sent_bytes += length;
    return 0;
}

static int write_out(writer_t *w)
{
    if (!w->begun) begin(w, 1); /* an empty capture is one, too */
    if (!w->failed && fflush(w->file)) fail(w);
    return w->failed ? -EIO : 0;
}

static void writer_flush(smos__port_t *port) { (void)port; }

static void writer_close(smos__port_t *port)
{
    writer_t *w = (writer_t *)port;
    w->inner->close(w->inner);
    write_out(w);
    fclose(w->file);
    free(w->path);
    free(w);
}

smos__port_t *smos__port_open_write(smos__port_t *inner, const char *path, char *error)
{
    writer_t *w = calloc(1, sizeof *w);
    if (w) w->path = strdup(path);
    if (!w || !w->path) {
        free(w);
        return snprintf(error, SMOS__PORT_ERROR, "out of memory"), NULL;
    }
    w->file = fopen(path, "wbe");
    if (!w->file) {
        snprintf(error, SMOS__PORT_ERROR, "%s: cannot be written: %s", path, strerror(errno));
        free(w->path);
        free(w);
        return NULL;
    }
    setvbuf(w->file, NULL, _IOFBF, BUFFER);
    w->inner = inner;
    w->port = (smos__port_t){.receive = writer_receive, .close = writer_close, .forward = writer_forward, .drop = writer_drop, .send = writer_send, .flush = writer_flush, .ends = 1, .fd = inner->fd};
    return &w->port;
}

int smos__port_write_end(smos__port_t *port, char *error)
{
    if (port->receive != writer_receive || write_out((writer_t *)port) == 0) return 0;
    snprintf(error, SMOS__PORT_ERROR, "%s", port->error);
    return -EIO;
}
