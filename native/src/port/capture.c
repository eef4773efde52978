#include "port/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <pcap/pcap.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "port/unpack.h"
#include "wire/decode.h"

void smos__capture_name(const char *path, char *name, size_t size)
{
    if (strcmp(path, "-") == 0) path = "standard input";
    size_t length = strlen(path);
    int cut = length >= size;
    if (cut) path += length - (size - 4);
    snprintf(name, size, "%s%s", cut ? "..." : "", path);
    for (char *c = name; *c != '\0'; c++) /* one line stays one line, whatever a file is called */
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
}

int smos__capture_fail(smos__capture_t *c, const char *problem, ...)
{
    char text[SMOS__PORT_ERROR - sizeof c->name];
    va_list args;
    va_start(args, problem);
    vsnprintf(text, sizeof text, problem, args);
    va_end(args);
    if (c->source && c->source->shrunk) snprintf(text, sizeof text, SMOS__SHORTER); /* the damage is ours: zeros for what is gone */
    snprintf(c->port.error, sizeof c->port.error, "%s %s", c->name, text);
    c->failed = 1;
    return SMOS__PORT_FAILED;
}

int smos__capture_settle(smos__capture_t *c, int n, int got)
{
    if (c->source->shrunk) return smos__capture_fail(c, SMOS__SHORTER); /* which frames of this burst are whole is not known */
    c->port.stats.packets += (uint64_t)n;
    if (n > 0 || got == SMOS__SOURCE_OK || got == SMOS__SOURCE_LATER) return n;
    if (got == SMOS__SOURCE_FAILED) return smos__capture_fail(c, "%s", c->source->problem);
    if (c->source->at == c->source->end) return SMOS__PORT_END;
    return smos__capture_fail(c, "is cut short in packet %llu", (unsigned long long)c->packets + 1);
}

uint16_t smos__capture_linktype(uint32_t field)
{
    uint16_t linktype = (uint16_t)field;
    return linktype == 12 || linktype == 14 ? 101 : linktype; /* DLT_RAW of most systems, of OpenBSD */
}

int smos__capture_check_linktype(smos__capture_t *c, uint32_t linktype)
{
    if (smos__linktype_supported(linktype)) return 0;
    const char *known = pcap_datalink_val_to_name((int)linktype);
    smos__capture_fail(c, "has link type %u%s%s%s, which is not supported", linktype, known ? " (" : "", known ? known : "", known ? ")" : "");
    return -1;
}

static void close_capture(smos__port_t *port)
{
    smos__capture_t *c = (smos__capture_t *)port;
    smos__pcapng_close(c);
    if (c->source != NULL) c->source->close(c->source);
    free(c);
}

/* Gives c a source for fd and closes or hands on fd. 0, or -1 with the error set. */
static int open_source(smos__capture_t *c, int fd, int reader)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        smos__capture_fail(c, "cannot be read: %s", strerror(errno));
        close(fd);
        return -1;
    }
    if (S_ISDIR(st.st_mode)) {
        smos__capture_fail(c, "is a directory, not a capture");
        close(fd);
        return -1;
    }
    uint8_t head[4];
    off_t start = S_ISREG(st.st_mode) ? lseek(fd, 0, SEEK_CUR) : -1; /* standard input may be a file that was read into */
    ssize_t got = start == 0 ? pread(fd, head, sizeof head, 0) : -1;
    if (got > 0 && !smos__unpack_recognizes(head, (size_t)got) && (c->source = smos__source_map(fd, (size_t)st.st_size)) != NULL) {
        close(fd);
        return 0;
    }
    if (reader == SMOS__READER_MAPPED) {
        smos__capture_fail(c, "cannot be mapped: it is not a plain, uncompressed file");
        close(fd);
        return -1;
    }
    c->source = smos__source_stream(fd);
    if (c->source == NULL) smos__capture_fail(c, "cannot be read: out of memory");
    return c->source == NULL ? -1 : 0;
}

/* Reads the head of the file and takes the format it names. 0, or -1 with the error set. */
static int open_format(smos__capture_t *c)
{
    int got = smos__source_need(c->source, 4);
    if (got == SMOS__SOURCE_FAILED) return smos__capture_fail(c, "%s", c->source->problem), -1;
    if (got != SMOS__SOURCE_OK && c->source->at == c->source->end) return smos__capture_fail(c, "is empty"), -1;
    int opened = 0;
    if (got == SMOS__SOURCE_OK) opened = smos__pcap_open(c);
    if (got == SMOS__SOURCE_OK && opened == 0) opened = smos__pcapng_open(c);
    if (opened == 0) smos__capture_fail(c, "is neither pcap nor pcapng (gzip or zstd around them is fine)");
    return opened == 1 ? 0 : -1;
}

smos__port_t *smos__capture_open(const char *path, int reader, char *error)
{
    smos__capture_t *c = calloc(1, sizeof *c);
    if (c == NULL) {
        snprintf(error, SMOS__PORT_ERROR, "out of memory");
        return NULL;
    }
    smos__capture_name(path, c->name, sizeof c->name);
    c->port.close = close_capture;
    c->port.fd = -1;
    c->last_ns = INT64_MIN;

    int input = strcmp(path, "-") == 0;
    int fd = input ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) smos__capture_fail(c, "cannot be %s: %s", input ? "read" : "opened", strerror(errno));
    if (fd < 0 || open_source(c, fd, reader) != 0 || open_format(c) != 0) {
        memcpy(error, c->port.error, SMOS__PORT_ERROR);
        close_capture(&c->port);
        return NULL;
    }
    smos__source_stream_poll(c->source);
    c->port.fd = c->source->fd;
    return &c->port;
}

smos__port_t *smos__captures_once(const char *const *paths, int count, int reader, char *error)
{
    smos__port_t **ports = calloc((size_t)count, sizeof *ports);
    if (ports == NULL) {
        snprintf(error, SMOS__PORT_ERROR, "out of memory");
        return NULL;
    }
    int opened = 0;
    for (; opened < count; opened++) {
        ports[opened] = reader == SMOS__READER_PCAP ? smos__libpcap_open(paths[opened], error) : smos__capture_open(paths[opened], reader, error);
        if (ports[opened] == NULL) break;
    }
    smos__port_t *port = NULL;
    if (opened < count)
        for (int i = 0; i < opened; i++) ports[i]->close(ports[i]);
    else
        port = count == 1 ? ports[0] : smos__merge_open(ports, count, error);
    free(ports);
    return port;
}

smos__port_t *smos__port_open_captures(const char *const *paths, int count, const smos__replay_t *replay, char *error)
{
    if (count < 1) {
        snprintf(error, SMOS__PORT_ERROR, "no capture was given");
        return NULL;
    }
    int inputs = 0;
    for (int i = 0; i < count; i++) inputs += strcmp(paths[i], "-") == 0;
    if (inputs > 1) {
        snprintf(error, SMOS__PORT_ERROR, "standard input was given more than once");
        return NULL;
    }
    if (replay != NULL && (replay->loop || replay->rate > 0 || replay->as_recorded)) return smos__replay_open(paths, count, replay, error);
    return smos__captures_once(paths, count, replay != NULL ? replay->reader : SMOS__READER_AUTO, error);
}
