/* layer.h: the inside of the mOS layer: sources that are compiled together with a mOS program into one module.
 *
 * Threads: the program's main() and the threads that it makes are threads of their own. Whatever acts on the engine runs in the engine's
 * thread: init()'s during PREPARE, the packet thread from then on; calls of other threads are handed over to it (requests.c) and wait.
 * All state below is the engine's thread's, but where a lock is named. A module is loaded once per worker, so statics are one program's.
 */
#ifndef SHARDMOS_MOS_LAYER_H
#define SHARDMOS_MOS_LAYER_H

#include "mos_api.h"
#include "mtcp_util.h"
#include "shardmos/shardmos.h"

enum { HOOK_SND, HOOK_RCV, HOOK_NULL, HOOKS };
#define BUILT_IN 12            /* bits of enum mos_event_type */
#define FIRST_EVENT 4096       /* number of the first user-defined event */
#define MAX_EVENTS 30240
#define MAX_LISTENERS 64
#define FIRST_FLOW (MAX_LISTENERS + 1) /* number of the first flow's socket; low, for programs that index arrays with it. Below are listeners, from 1 */
#define DEFAULT_BUFFER 65536   /* where no rmem_size was configured */

/* ---- user-defined events: define.c ---- */

typedef struct ude {
    event_t id, parent;
    int root;        /* bit number of the built-in event above */
    filter_t filter; /* NULL: raised by its parent's filter */
    filter_arg_t arg;
} ude_t;

const ude_t *mos__ude(event_t);      /* NULL: none */
int mos__root(event_t);              /* bit number of the built-in event; -1: no event */
bool mos__raised(event_t);
/* Asks the filter, once. */
bool mos__happened(const ude_t *, int sock, int side);

/* ---- registrations: regs.c ---- */

typedef struct reg {
    event_t event;
    callback_t call;
    int hook;
} reg_t;

/* One step of a walk over a root event's tree: a call, or a question with `skip` steps under it. */
typedef struct step {
    const ude_t *ude; /* a question; NULL: a call of `call` */
    callback_t call;
    event_t event;
    uint32_t skip;
} step_t;

/* Interned and immutable: flows with equal registrations share one. */
typedef struct regs {
    struct regs *next; /* in its bucket */
    uint32_t hash, refs, count, step_count;
    uint32_t roots[HOOKS]; /* built-in events that somebody wants there, as bits */
    uint32_t first[HOOKS][BUILT_IN + 1];
    reg_t *reg;
    step_t *step;
} regs_t;

regs_t *mos__regs_empty(void); /* with a reference for the caller; NULL: no memory */
/* The set with `call` at (event, hook), in the old one's place if there is one; NULL takes it away. A new reference; NULL with errno. */
regs_t *mos__regs_change(const regs_t *, event_t, int hook, callback_t call);
regs_t *mos__regs_hold(regs_t *);
void mos__regs_release(regs_t *);
/* Calls what is registered for the built-in event (its bit number) at the hook. */
void mos__regs_run(regs_t *, int hook, int root, int sock, int side);

/* ---- sockets ---- */

typedef struct listener {
    int id;
    bool used, raw;
    smos_sock_t sock;
    smos_sock_t orphans; /* 0: none yet */
    char *filter, *orphan_filter;
    regs_t *regs;
    uint32_t wants;  /* what the engine was asked to tell: bits of WANTS */
    uint32_t buffer[2];
    uint32_t flows;
    void *uctx;
} listener_t;

typedef struct entry {
    int id;
    bool used, ending, starting; /* starting: CONN_START at RCV is due */
    uint8_t stopped, dirty;      /* bits per side; dirty: not 0 while in the list, 4 where there is nothing to tell */
    listener_t *listener;
    smos_flow_t flow;
    smos_tuple_t tuple;
    regs_t *regs;
    uint32_t wants;
    uint32_t buffer[2];
    uint64_t flushed[2];     /* NEW_DATA told up to here */
    void *uctx;
    struct entry *next;      /* free, or dirty */
} entry_t;

typedef struct now {
    const smos_call_t *call; /* under way, NULL outside */
    const smos_packet_t *packet;
    const entry_t *entry;
    const ude_t *question;
} now_t;

typedef struct conf {
    struct mtcp_conf public;
    int rmem_size; /* 0: not configured */
    bool forward, no_buffers;
} conf_t;

extern const char mos__name[]; /* of the program; defined by whoever compiles it */
extern const smos_api_t *mos__api;
extern smos_engine_t *mos__engine;
extern struct mtcp_context mos__context;
extern now_t mos__now;
extern conf_t mos__conf;
extern listener_t mos__listeners[MAX_LISTENERS];
extern __thread int mos__here; /* above 0: in the engine's thread */
extern bool mos__over;         /* exit(), or the end: no callback any more */
extern bool mos__begun;        /* packets came: the set-up is over */
extern uint64_t mos__whole_buffer; /* the engine's limit of out-of-order bytes */

#define ENGINE(f, ...) mos__api->f(mos__engine, ##__VA_ARGS__)
#define HAVE(f) (offsetof(smos_api_t, f) < mos__api->size && mos__api->f)
#define FAIL(e) (errno = (e), -1)

listener_t *mos__listener(int sock); /* NULL: none */
entry_t *mos__entry(int sock);
int mos__missing(int sock);          /* errno of a call that wants a flow's socket and got this number */

/* flows.c */
void mos__on_event(void *self, const smos_call_t *);
void mos__on_orphan(void *self, const smos_call_t *);
void mos__on_burst_end(void *self, const smos_call_t *);
uint32_t mos__needs(const regs_t *);
int mos__want(smos_sock_t, smos_flow_t, uint32_t needs, uint32_t *have);
void mos__flush(entry_t *, int side);
void mos__flows_free(void);
entry_t *mos__flow_new(listener_t *, const smos_call_t *);
void mos__flow_free(entry_t *);

/* stream.c: bytes of a side that stay readable, 0: no reassembly. *have is what was set before, 0 at first for a new socket. 0, or as the engine. */
int mos__set_buffer(smos_sock_t, smos_flow_t, int side, uint32_t bytes, uint32_t *have);

/* requests.c */
typedef intptr_t (*mos__task_t)(const intptr_t *);
/* Runs it in the engine's thread and waits. `failed` (with EPERM) once that is over. */
intptr_t mos__run_there(mos__task_t, const intptr_t *, intptr_t failed);
#define THERE(f, failed, ...) mos__run_there(f, (const intptr_t[]){0, ##__VA_ARGS__} + 1, failed)
void mos__serve_waiting(void); /* between two bursts */
void mos__serve_within(void);  /* in a callback that waits for another thread */

/* program.c */
int mos__start(int argc, char **argv, char *error, size_t size); /* main(), until it yields. 0, -ETIMEDOUT, -ECANCELED */
void mos__finish(void);
void mos__exit(int status) __attribute__((noreturn));
void mos__leave_callback(void); /* the program is over: back to mos__guard(), if that is where it began */
void mos__say_status(void);     /* warns where the program ended with another than 0 */
/* Calls f(call) so that exit() within comes back here. */
void mos__guard(void (*f)(const smos_call_t *), const smos_call_t *);
void mos__guard_last(void (*f)(const smos_call_t *)); /* also when the program is over */

/* threads.c, socket.c */
bool mos__begin_context(void); /* false: there is one */
void mos__end_context(void);   /* mtcp_app_join returns */
void mos__close_all(void);

/* signals.c */
bool mos__signal(int signum); /* a thread that waits for it, or its handler, gets it; false: it has none */

/* ending.c: what the program gave to atexit(), the last first */
void mos__run_at_exit(int status);

/* files.c: where relative paths begin; "" as it is. The text is kept. */
void mos__set_folder(const char *path);

/* conf.c */
int mos__conf_read(const char *path);
void mos__warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
