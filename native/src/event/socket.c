/* A module's sockets as templates: memory, filters, and what they keep by flow. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "event/box.h"


smos__socket_t *smos__socket_make(smos_box_t *box, int type)
{
    uint32_t at = 0;
    while (at < SMOS_MAX_MODULES && box->sockets[at]) at++;
    if (at == SMOS_MAX_MODULES) return NULL;
    smos__socket_t *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->box = box;
    s->number = at | box->socket_turn << 8; /* a number is not used again soon: stale ones are told */
    box->socket_turn = (box->socket_turn + (at != 0)) & 0x7fffff;
    s->type = (uint8_t)type;
    s->slot = -1;
    s->capacity = box->capacity;
    smos__wants_init(&s->wants);
    box->sockets[at] = s;
    return s;
}


void smos__socket_free(smos__socket_t *s)
{
    if (!s) return;
    smos__filter_free(s->filter);
    smos__filter_free(s->orphan_filter);
    if (s->watches) munmap(s->watches, s->capacity * sizeof *s->watches);
    free(s->filter_text);
    free(s);
}


smos__socket_t *smos__socket_find(const smos_box_t *box, smos_sock_t number)
{
    uint32_t at = number & 0xff;
    if (at >= SMOS_MAX_MODULES || !box->sockets[at] || box->sockets[at]->number != number || box->sockets[at]->closed) return NULL;
    return box->sockets[at];
}


int smos__socket_filter(smos__socket_t *s, const char *filter, const char *orphan_filter, char *why, size_t size)
{
    smos__filter_t *flows = NULL, *orphans = NULL;
    char *text = strdup(filter ? filter : "");
    if (!text) return -ENOMEM;
    if (filter && filter[0] && !(flows = smos__filter_compile(filter, why, size))) goto Refused;
    if (!orphan_filter) orphan_filter = filter;
    if (orphan_filter && orphan_filter[0] && !(orphans = smos__filter_compile(orphan_filter, why, size))) goto Refused;
    smos__filter_free(s->filter);
    smos__filter_free(s->orphan_filter);
    free(s->filter_text);
    s->filter = flows;
    s->orphan_filter = orphans;
    s->filter_text = text;
    return 0;
Refused:
    smos__filter_free(flows);
    free(text);
    return -EINVAL;
}


smos__watch_t *smos__socket_watch(smos__socket_t *s, uint32_t flow)
{
    if (!s->watches) {
        void *memory = mmap(NULL, s->capacity * sizeof *s->watches, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return NULL;
        s->watches = memory;
    }
    return &s->watches[flow];
}
