/* The C side of the binding; see bridge.h. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "bridge.h"

static void enter(void *arg) {
    smos_py_gil_t *gil = arg;
    gil->state = (int)PyGILState_Ensure();
}

static void leave(void *arg) {
    const smos_py_gil_t *gil = arg;
    PyGILState_Release((PyGILState_STATE)gil->state);
}

void smos_py_use_gil(smos_shard_t *shard, smos_py_gil_t *gil) {
    smos_shard_set_bracket(shard, enter, leave, gil);
}

int smos_py_flow_info(smos_shard_t *shard, smos_flow_t flow, smos_flow_info_t *out) {
    return smos_shard_api()->flow_info(smos_shard_engine(shard), flow, out);
}

int smos_py_drop(smos_shard_t *shard) {
    return smos_shard_api()->drop(smos_shard_engine(shard));
}

int smos_py_reset(smos_shard_t *shard, smos_flow_t flow) {
    return smos_shard_api()->reset(smos_shard_engine(shard), flow);
}

int smos_py_stop(smos_shard_t *shard, smos_flow_t flow, int side) {
    return smos_shard_api()->stop(smos_shard_engine(shard), flow, side);
}

int smos_py_emit(smos_shard_t *shard, const char *topic, const void *data, size_t length) {
    return smos_shard_api()->emit(smos_shard_engine(shard), topic, data, length);
}

void smos_py_log(smos_shard_t *shard, int level, const char *text) {
    smos_shard_api()->log(smos_shard_engine(shard), level, text);
}

int64_t smos_py_now_ns(smos_shard_t *shard) {
    return smos_shard_api()->now_ns(smos_shard_engine(shard));
}

/* ---- an interrupt that a handler in C does not notice ---- */

static struct sigaction before_us;

static void expire(int number) {
    (void)number;
    _exit(130);
}

static void interrupted(int number) {
    alarm(1);
    if (before_us.sa_handler != SIG_DFL && before_us.sa_handler != SIG_IGN) before_us.sa_handler(number);
}

int smos_py_end_on_interrupt(void) {
    struct sigaction now;
    if (sigaction(SIGINT, NULL, &now) < 0) return -errno;
    if (now.sa_handler == interrupted || now.sa_handler == SIG_IGN || (now.sa_flags & SA_SIGINFO)) return 0;
    before_us = now;
    struct sigaction at_alarm = {.sa_handler = expire}, at_interrupt = {.sa_handler = interrupted, .sa_flags = now.sa_flags};
    if (sigaction(SIGALRM, &at_alarm, NULL) < 0 || sigaction(SIGINT, &at_interrupt, NULL) < 0) return -errno;
    return 0;
}
