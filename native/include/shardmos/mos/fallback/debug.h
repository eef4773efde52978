/* debug.h: for programs that include mOS's header of this name and bring none of their own. Messages go to standard error. */
#ifndef SHARDMOS_MOS_DEBUG_H
#define SHARDMOS_MOS_DEBUG_H
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/time.h>
#define SHARDMOS_TRACE(what, f, m...) fprintf(stderr, "[" what " %s:%d] " f, __FUNCTION__, __LINE__, ##m)
#define TRACE_ERROR(f, m...) SHARDMOS_TRACE("ERROR", f, ##m)
#define TRACE_INFO(f, m...) SHARDMOS_TRACE("INFO", f, ##m)
#define TRACE_CONFIG(f, m...) SHARDMOS_TRACE("CONFIG", f, ##m)
#define TRACE_LOG(f, m...) SHARDMOS_TRACE("LOG", f, ##m)
#define CTRACE_ERROR(f, m...) SHARDMOS_TRACE("ERROR", f, ##m)
#define TRACE_TEMP(f, m...) (void)0
#define TRACE_MONITOR(f, m...) (void)0
#define TRACE_STREAM(f, m...) (void)0
#define TRACE_STATE(f, m...) (void)0
#define TRACE_APP(f, m...) (void)0
#define TRACE_DBG(f, m...) (void)0
#define TRACE_FUNC(n, f, m...) (void)0
#define TRACE_EPOLL(f, m...) (void)0
#define TRACE_API(f, m...) (void)0
#endif
