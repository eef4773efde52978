/* bridge.h: what the Python binding needs beyond engine.h. Python calls an embedder's functions through plain C calls
 * here, which cffi makes much cheaper than calls through the function table. */
#ifndef SHARDMOS_BRIDGE_H
#define SHARDMOS_BRIDGE_H

#include "shardmos/engine.h"

/* Where a shard's thread keeps the GIL's state between the two ends of the bracket; zeroed when made. */
typedef struct smos_py_gil {
    int state;
} smos_py_gil_t;

/* From now on the shard takes the GIL before the first Python handler of a burst and gives it back at the burst's end.
 * `gil` lives as long as the shard. */
void smos_py_use_gil(smos_shard_t *shard, smos_py_gil_t *gil);

/* Of the process: a second after SIGINT it ends with exit code 130, whatever a handler in C is at. What was to be done on SIGINT is done
 * before. 0 or a negative errno. */
int smos_py_end_on_interrupt(void);

/* The functions that modules get, for handlers in Python, during their call. Results as in smos_api_t. */
int smos_py_flow_info(smos_shard_t *shard, smos_flow_t flow, smos_flow_info_t *out);
int smos_py_drop(smos_shard_t *shard);
int smos_py_reset(smos_shard_t *shard, smos_flow_t flow);
int smos_py_stop(smos_shard_t *shard, smos_flow_t flow, int side);
int smos_py_emit(smos_shard_t *shard, const char *topic, const void *data, size_t length);
void smos_py_log(smos_shard_t *shard, int level, const char *text);
int64_t smos_py_now_ns(smos_shard_t *shard);

#endif
