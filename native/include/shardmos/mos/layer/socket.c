/* Sockets: listeners (templates), and those of flows, by number. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"

#define BLOCK 256

const smos_api_t *mos__api;
smos_engine_t *mos__engine;
struct mtcp_context mos__context;
now_t mos__now;
__thread int mos__here;
bool mos__over, mos__begun;
uint64_t mos__whole_buffer;
listener_t mos__listeners[MAX_LISTENERS];

static entry_t **blocks;
static int block_count;
static entry_t *free_first, **free_last = &free_first; /* taken from the front: a number comes back late */


listener_t *mos__listener(int sock)
{
    return sock >= 1 && sock <= MAX_LISTENERS && mos__listeners[sock - 1].used ? &mos__listeners[sock - 1] : NULL;
}


entry_t *mos__entry(int sock)
{
    if (sock < FIRST_FLOW) return NULL;
    int i = sock - FIRST_FLOW;
    if (i >= block_count * BLOCK) return NULL;
    entry_t *e = &blocks[i / BLOCK][i % BLOCK];
    return e->used ? e : NULL;
}


int mos__missing(int sock) { return mos__listener(sock) ? EACCES : EBADF; }


/* ---- flows ---- */

static bool more_entries(void)
{
    entry_t **more = realloc(blocks, (size_t)(block_count + 1) * sizeof *more);
    if (!more) return false;
    blocks = more;
    entry_t *block = calloc(BLOCK, sizeof *block);
    if (!block) return false;
    for (int i = 0; i < BLOCK; i++) {
        block[i].id = FIRST_FLOW + block_count * BLOCK + i;
        *free_last = &block[i];
        free_last = &block[i].next;
    }
    blocks[block_count++] = block;
    return true;
}


entry_t *mos__flow_new(listener_t *l, const smos_call_t *call)
{
    if (!free_first && !more_entries()) return NULL;
    entry_t *e = free_first;
    free_first = e->next;
    if (!free_first) free_last = &free_first;
    *e = (entry_t){.id = e->id, .used = true, .listener = l, .flow = call->flow, .tuple = *call->tuple, .regs = mos__regs_hold(l->regs), .wants = l->wants};
    memcpy(e->buffer, l->buffer, sizeof e->buffer);
    if (ENGINE(set_context, l->sock, call->flow, e)) {
        l->flows++;
        mos__flow_free(e);
        return NULL;
    }
    l->flows++;
    return e;
}


void mos__flow_free(entry_t *e)
{
    e->used = false;
    e->listener->flows--;
    mos__regs_release(e->regs);
    e->regs = NULL;
    e->next = NULL;
    *free_last = e;
    free_last = &e->next;
}


void mos__flows_free(void)
{
    for (int i = 0; i < block_count; i++) free(blocks[i]);
    free(blocks);
    blocks = NULL;
    block_count = 0;
}


/* ---- listeners ---- */

static int open_listener(listener_t *l)
{
    int status = ENGINE(socket, l->raw ? SMOS_RAW : SMOS_STREAM, &l->sock);
    if (status) return status;
    status = ENGINE(bind, l->sock, l->raw ? "ip" : "ip and tcp", l->raw ? NULL : "");
    if (status || l->raw) return status;
    uint32_t bytes = (uint32_t)(mos__conf.no_buffers ? 0 : mos__conf.rmem_size ? mos__conf.rmem_size : DEFAULT_BUFFER);
    for (int side = 0; side < 2 && !status; side++) {
        status = ENGINE(get_option, l->sock, 0, side, SMOS_OPT_BUFFER, &mos__whole_buffer);
        if (!status) status = mos__set_buffer(l->sock, 0, side, bytes, &l->buffer[side]);
    }
    return status ? status : mos__want(l->sock, 0, mos__needs(l->regs), &l->wants);
}


static intptr_t make(const intptr_t *a)
{
    int i = 0;
    while (i < MAX_LISTENERS && mos__listeners[i].used) i++;
    if (i == MAX_LISTENERS) return FAIL(ENFILE);
    listener_t *l = &mos__listeners[i];
    *l = (listener_t){.id = i + 1, .used = true, .raw = a[0] == MOS_SOCK_MONITOR_RAW, .regs = mos__regs_empty()};
    int status = l->regs ? open_listener(l) : -ENOMEM;
    if (!status) return l->id;
    if (l->sock) ENGINE(close, l->sock, 0);
    mos__regs_release(l->regs);
    l->used = false;
    return FAIL(status == -ENOSPC ? ENFILE : -status);
}


int mtcp_socket(mctx_t mctx, int domain, int type, int protocol)
{
    (void)protocol;
    if (!mctx) return FAIL(EACCES);
    if (domain != AF_INET) return FAIL(EAFNOSUPPORT);
    if (type == SOCK_STREAM || type == MOS_SOCK_STREAM || type == MOS_SOCK_STREAM_LISTEN) return FAIL(ENOSYS);
    if (type != MOS_SOCK_MONITOR_STREAM && type != MOS_SOCK_MONITOR_RAW) return FAIL(EINVAL);
    return (int)THERE(make, -1, type);
}


static void close_listener(listener_t *l)
{
    ENGINE(close, l->sock, 0);
    if (l->orphans) ENGINE(close, l->orphans, 0);
    for (int i = 0; i < block_count * BLOCK; i++) {
        entry_t *e = &blocks[i / BLOCK][i % BLOCK];
        if (e->used && e->listener == l) e->ending = e->used = false; /* its number is not given again: a callback of it may be under way */
    }
    l->used = false;
    free(l->filter);
    free(l->orphan_filter);
}


void mos__close_all(void)
{
    for (int i = 0; i < MAX_LISTENERS; i++)
        if (mos__listeners[i].used) close_listener(&mos__listeners[i]);
}


static intptr_t close_socket(const intptr_t *a)
{
    listener_t *l = mos__listener((int)a[0]);
    entry_t *e = mos__entry((int)a[0]);
    if (l) close_listener(l);
    else if (e) mtcp_cb_stop(&mos__context, e->id, MOS_SIDE_BOTH);
    else return FAIL(EBADF);
    return 0;
}


int mtcp_close(mctx_t mctx, int sock)
{
    if (!mctx) return FAIL(EACCES);
    intptr_t status = THERE(close_socket, -2, sock);
    return status == -2 ? 0 : (int)status; /* after the end everything is closed */
}


static char *copy(const char *text) { return text && *text ? strdup(text) : NULL; }


static intptr_t bind_filter(const intptr_t *a)
{
    char text[1024];
    listener_t *l = mos__listener((int)a[0]);
    if (!l) return FAIL(mos__entry((int)a[0]) ? EACCES : EBADF);
    const union monitor_filter *ft = (const union monitor_filter *)a[1];
    const char *filter = !ft ? NULL : l->raw ? ft->raw_pkt_filter : ft->stream_syn_filter;
    const char *base = l->raw ? "ip" : "ip and tcp";
    int n = snprintf(text, sizeof text, filter && *filter ? "%s and (%s)" : "%s", base, filter);
    if (n >= (int)sizeof text) return FAIL(EINVAL);
    int status = ENGINE(bind, l->sock, text, l->raw ? NULL : "");
    if (status) return FAIL(-status);
    free(l->filter);
    l->filter = copy(filter);
    if (l->raw || !ft || !ft->stream_orphan_filter) return 0;
    /* Checked now; used when somebody registers for orphans. */
    smos_sock_t at = l->orphans;
    if (!at && (status = ENGINE(socket, SMOS_STREAM, &at))) return FAIL(-status);
    n = snprintf(text, sizeof text, *ft->stream_orphan_filter ? "ip and tcp and (%s)" : "ip and tcp", ft->stream_orphan_filter);
    status = n >= (int)sizeof text ? -EINVAL : ENGINE(bind, at, text, NULL);
    if (!l->orphans) ENGINE(close, at, 0);
    if (status) return FAIL(-status);
    free(l->orphan_filter);
    l->orphan_filter = copy(ft->stream_orphan_filter);
    return 0;
}


int mtcp_bind_monitor_filter(mctx_t mctx, int sock, monitor_filter_t ft)
{
    if (!mctx) return FAIL(EACCES);
    return (int)THERE(bind_filter, -1, sock, (intptr_t)ft);
}


/* ---- contexts of the program ---- */

static intptr_t set_uctx(const intptr_t *a)
{
    listener_t *l = mos__listener((int)a[0]);
    entry_t *e = mos__entry((int)a[0]);
    if (l) l->uctx = (void *)a[1];
    else if (e) e->uctx = (void *)a[1];
    else errno = EBADF;
    return 0;
}


static intptr_t get_uctx(const intptr_t *a)
{
    const listener_t *l = mos__listener((int)a[0]);
    const entry_t *e = mos__entry((int)a[0]);
    if (!l && !e) errno = EBADF;
    return (intptr_t)(l ? l->uctx : e ? e->uctx : NULL);
}


void mtcp_set_uctx(mctx_t mctx, int sock, void *uctx)
{
    if (!mctx) errno = EACCES;
    else THERE(set_uctx, 0, sock, (intptr_t)uctx);
}


void *mtcp_get_uctx(mctx_t mctx, int sock)
{
    if (!mctx) return errno = EACCES, NULL;
    return (void *)THERE(get_uctx, 0, sock);
}


static uint32_t connections(void)
{
    uint32_t most = 0; /* each listener that watches a connection counts it */
    for (int i = 0; i < MAX_LISTENERS; i++)
        if (mos__listeners[i].used && mos__listeners[i].flows > most) most = mos__listeners[i].flows;
    return most;
}

static intptr_t count_them(const intptr_t *a) { (void)a; return (intptr_t)connections(); }

uint32_t mtcp_get_connection_cnt(mctx_t mctx)
{
    if (!mctx) return errno = EACCES, 0;
    return mos__here ? connections() : (uint32_t)THERE(count_them, 0);
}
