/* Any bytes as a capture file: the mapped reader and the stream reader give the same frames and the same end, and read nothing
 * outside them. Seeds: run the test_capture program with SMOS_SEEDS naming a folder. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "port/port.h"

#define MOST 100000 /* frames; a small compressed file may hold very many */

typedef struct outcome {
    uint64_t frames, sum;
    int end;
} outcome_t;

static void require(int condition)
{
    if (!condition) abort();
}

static uint64_t mix(uint64_t sum, uint64_t value)
{
    return (sum ^ value) * 0x9e3779b97f4a7c15u;
}

static outcome_t read_all(const char *path, int reader, int burst_size)
{
    outcome_t out = { .end = SMOS__PORT_FAILED };
    char error[SMOS__PORT_ERROR] = "";
    smos__replay_t how = { .reader = reader };
    smos__port_t *port = smos__port_open_captures(&path, 1, &how, error);
    if (port == NULL) {
        require(error[0] != '\0' && strchr(error, '\n') == NULL);
        return out;
    }
    smos__frame_t burst[SMOS__BURST];
    int got = 0;
    while (out.frames < MOST && (got = port->receive(port, burst, burst_size)) > 0)
        for (int i = 0; i < got; i++) {
            const smos__frame_t *f = &burst[i];
            require(f->len >= f->caplen && f->number == ++out.frames);
            out.sum = mix(mix(mix(mix(out.sum, f->caplen), f->len), (uint64_t)f->time_ns), f->linktype);
            for (uint32_t k = 0; k < f->caplen; k++) out.sum = mix(out.sum, f->data[k]);
        }
    if (out.frames >= MOST) out.sum = out.frames = MOST; /* where the burst ended depends on its size */
    require(got != 0); /* files never block */
    if (got == SMOS__PORT_FAILED) require(port->error[0] != '\0' && strchr(port->error, '\n') == NULL);
    out.end = got < 0 ? got : 0;
    port->close(port);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int file = -1;
    if (file < 0) {
        file = memfd_create("capture", 0);
        require(file > 2 || (file = dup2(file, 3)) == 3);
    }
    /* One byte before, which standard input has passed already: so it is streamed, not mapped. */
    require(ftruncate(file, 0) == 0 && pwrite(file, "x", 1, 0) == 1 && (size == 0 || pwrite(file, data, size, 1) == (ssize_t)size));
    lseek(file, 1, SEEK_SET);
    require(dup2(file, 0) == 0);
    outcome_t streamed = read_all("-", SMOS__READER_AUTO, 7);

    require(ftruncate(file, 0) == 0 && (size == 0 || pwrite(file, data, size, 0) == (ssize_t)size));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    outcome_t mapped = read_all(path, SMOS__READER_AUTO, SMOS__BURST);
    require(mapped.frames == streamed.frames && mapped.sum == streamed.sum && mapped.end == streamed.end);
    return 0;
}
