/* api.h: what the files of the modules' function table share. Each function checks its arguments, finds the calling module, its socket and
 * the flow's slot, and leaves a line for last_error() where it fails. */
#ifndef SMOS__API_H
#define SMOS__API_H

#include "module/module.h"
#include "shard/shard.h"

/* A call on its way in. */
typedef struct smos__caller {
    smos_shard_t *shard;
    smos_box_t *box;
    bool preparing;        /* init() beside the packet thread: only the box itself may be touched */
    smos__socket_t *socket;
    uint32_t flow;         /* slot; SMOS__NO_FLOW: the template */
} smos__caller_t;

/* 0, -EINVAL without an engine, -EPERM outside init() and callbacks. */
int smos__caller(smos__caller_t *, smos_engine_t *);
/* And the socket. -EBADF. */
int smos__caller_socket(smos__caller_t *, smos_engine_t *, smos_sock_t);
/* And the flow, 0 the template. -EPERM in init(), -ESTALE. */
int smos__caller_flow(smos__caller_t *, smos_engine_t *, smos_sock_t, smos_flow_t);
/* And the flow, which the socket watches. -ENOTCONN. */
int smos__caller_watching(smos__caller_t *, smos_engine_t *, smos_sock_t, smos_flow_t);
/* Keeps "WHAT: status in words" for last_error() and returns status. */
int smos__failed(const smos__caller_t *, const char *what, int status);

/* api_sockets.c */
int smos__api_socket(smos_engine_t *, int type, smos_sock_t *out);
int smos__api_bind(smos_engine_t *, smos_sock_t, const char *filter, const char *orphan_filter);
int smos__api_close(smos_engine_t *, smos_sock_t, smos_flow_t);
int smos__api_register(smos_engine_t *, smos_sock_t, smos_flow_t, uint32_t event, int hook, int side, smos_handler_t, void *arg);
int smos__api_unregister(smos_engine_t *, smos_sock_t, smos_flow_t, uint32_t event, smos_handler_t, void *arg);
int smos__api_define(smos_engine_t *, uint32_t parent, smos_predicate_t, const void *arg, size_t arg_size, uint32_t *out);
int smos__api_alloc(smos_engine_t *, uint32_t parent, uint32_t *out);
int smos__api_raise(smos_engine_t *, uint32_t event);
int smos__api_remove_event(smos_engine_t *, uint32_t event);
int smos__api_stop_socket(smos_engine_t *, smos_sock_t, smos_flow_t, int side);
int smos__api_set_context(smos_engine_t *, smos_sock_t, smos_flow_t, void *);
void *smos__api_get_context(smos_engine_t *, smos_sock_t, smos_flow_t);
void *smos__api_state(smos_engine_t *, smos_flow_t);
const char *smos__api_last_error(smos_engine_t *);

/* api_streams.c */
int smos__api_set_option(smos_engine_t *, smos_sock_t, smos_flow_t, int side, int option, uint64_t value);
int smos__api_get_option(smos_engine_t *, smos_sock_t, smos_flow_t, int side, int option, uint64_t *value);
int64_t smos__api_peek(smos_engine_t *, smos_sock_t, smos_flow_t, int side, void *buffer, size_t length, uint64_t *lost);
int64_t smos__api_peek_at(smos_engine_t *, smos_sock_t, smos_flow_t, int side, void *buffer, size_t length, uint64_t offset);
int smos__api_buffered(smos_engine_t *, smos_sock_t, smos_flow_t, int side, smos_range_t *, int max);
int smos__api_buffer_info(smos_engine_t *, smos_sock_t, smos_flow_t, int side, smos_buffer_info_t *);

/* api_edits.c */
int smos__api_overwrite(smos_engine_t *, int from, uint32_t offset, const void *data, uint32_t length);
int smos__api_insert(smos_engine_t *, uint32_t offset, const void *data, uint32_t length);
int smos__api_remove(smos_engine_t *, uint32_t offset, uint32_t length);
int smos__api_inject(smos_engine_t *, smos_flow_t, const smos_injection_t *);
int smos__api_owner(smos_engine_t *, const smos_tuple_t *);
int smos__api_worker(smos_engine_t *, uint32_t *workers);
int smos__api_redirect(smos_engine_t *, const smos_tuple_t *);

/* api_timers.c */
int smos__api_set_timer(smos_engine_t *, smos_flow_t, int64_t delay_ns, int64_t period_ns, smos_handler_t, void *arg, uint64_t *timer);
int smos__api_cancel_timer(smos_engine_t *, uint64_t timer);
int smos__api_at_burst_end(smos_engine_t *, smos_handler_t, void *arg);

#endif
