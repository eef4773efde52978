/* Several ports as one in time order. Each one's own order is kept, also where its times go back; equal times go by the order
 * of the arguments. A port that fails is left out from there, and the failure is told after the rest was delivered. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "port/capture.h"

typedef struct input {
    smos__port_t *port;
    int at, count;
    smos__frame_t frames[SMOS__BURST];
} input_t;

typedef struct merge {
    smos__port_t port;
    input_t *inputs;
    int count;
    int *heap; /* inputs that hold a frame, the next one first */
    int held;
    int *empty; /* inputs to receive from before anything else */
    int waiting;
    uint64_t packets;
    int64_t last_ns;
    int failed;
} merge_t;

static int before(const merge_t *m, int a, int b)
{
    const input_t *x = &m->inputs[a], *y = &m->inputs[b];
    int64_t left = x->frames[x->at].time_ns, right = y->frames[y->at].time_ns;
    return left != right ? left < right : a < b;
}

static void sift_down(merge_t *m)
{
    int at = 0, moving = m->heap[0];
    for (int child; (child = 2 * at + 1) < m->held; at = child) {
        if (child + 1 < m->held && before(m, m->heap[child + 1], m->heap[child])) child++;
        if (!before(m, m->heap[child], moving)) break;
        m->heap[at] = m->heap[child];
    }
    m->heap[at] = moving;
}

static void push(merge_t *m, int input)
{
    int at = m->held++;
    for (int parent; at > 0 && before(m, input, m->heap[parent = (at - 1) / 2]); at = parent) m->heap[at] = m->heap[parent];
    m->heap[at] = input;
}

/* Receives from every input that ran empty: 1, or 0 where one has nothing now (its descriptor is then ours to poll). */
static int refill(merge_t *m)
{
    while (m->waiting > 0) {
        int index = m->empty[m->waiting - 1];
        input_t *in = &m->inputs[index];
        int got = in->port->receive(in->port, in->frames, SMOS__BURST);
        if (got == 0) {
            m->port.fd = in->port->fd;
            m->port.wait_ns = in->port->wait_ns;
            return 0;
        }
        m->waiting--;
        if (got == SMOS__PORT_FAILED && !m->failed) {
            m->failed = 1;
            memcpy(m->port.error, in->port->error, sizeof m->port.error);
        }
        if (got < 0) continue;
        in->at = 0;
        in->count = got;
        push(m, index);
    }
    return 1;
}

static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    merge_t *m = (merge_t *)port;
    if (!refill(m)) return 0;
    int n = 0;
    while (n < max && m->held > 0 && m->waiting == 0) {
        int index = m->heap[0];
        input_t *in = &m->inputs[index];
        smos__frame_t *frame = &burst[n++];
        *frame = in->frames[in->at++];
        frame->number = ++m->packets;
        m->port.stats.bytes += frame->len;
        m->port.stats.time_backward += frame->time_ns < m->last_ns;
        m->last_ns = frame->time_ns;
        if (in->at == in->count) { /* to receive from it would take its frames away: the burst ends here */
            m->empty[m->waiting++] = index;
            m->heap[0] = m->heap[--m->held];
        }
        if (m->held > 0) sift_down(m);
    }
    m->port.stats.packets += (uint64_t)n;
    if (n > 0) return n;
    return m->failed ? SMOS__PORT_FAILED : SMOS__PORT_END;
}

static void close_merge(smos__port_t *port)
{
    merge_t *m = (merge_t *)port;
    for (int i = 0; m->inputs != NULL && i < m->count; i++) m->inputs[i].port->close(m->inputs[i].port);
    free(m->inputs);
    free(m->heap);
    free(m->empty);
    free(m);
}

smos__port_t *smos__merge_open(smos__port_t **ports, int count, char *error)
{
    merge_t *m = calloc(1, sizeof *m);
    if (m != NULL) {
        m->inputs = calloc((size_t)count, sizeof *m->inputs);
        m->heap = calloc((size_t)count, sizeof *m->heap);
        m->empty = calloc((size_t)count, sizeof *m->empty);
    }
    if (m == NULL || m->inputs == NULL || m->heap == NULL || m->empty == NULL) {
        snprintf(error, SMOS__PORT_ERROR, "out of memory");
        for (int i = 0; i < count; i++) ports[i]->close(ports[i]);
        if (m != NULL) m->count = 0;
        if (m != NULL) close_merge(&m->port);
        return NULL;
    }
    m->count = count;
    m->last_ns = INT64_MIN;
    m->port.receive = receive;
    m->port.close = close_merge;
    m->port.fd = -1;
    for (int i = 0; i < count; i++) {
        m->inputs[i].port = ports[i];
        m->empty[m->waiting++] = i;
    }
    return &m->port;
}
