/* applib.h: for programs that include the header of this name from mOS's samples and bring none of their own. */
#ifndef SHARDMOS_MOS_APPLIB_H
#define SHARDMOS_MOS_APPLIB_H
#include <stdint.h>
#define MAX_LINE_LEN 1000
#define MAX_FLOW_NUM 1000000
#define MAX_EVENTS (MAX_FLOW_NUM * 3)
#ifndef MAX_CPUS
#define MAX_CPUS 16
#endif
#ifndef MAX
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#endif
#ifndef MIN
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#endif
#ifndef TRUE
#define TRUE 1
#endif
#ifndef FALSE
#define FALSE 0
#endif
#ifndef ERROR
#define ERROR (-1)
#endif
#define TIMEVAL_TO_MSEC(t) ((t).tv_sec * 1000 + (t).tv_usec / 1000)
#define TIMEVAL_TO_USEC(t) ((t).tv_sec * 1000000 + (t).tv_usec)
#define TS_GT(a, b) ((int64_t)((a) - (b)) > 0)
#define CONF_VALUE_LEN 100
struct conf_var {
    char *name;
    char value[CONF_VALUE_LEN + 1]; /* left as it is where the file does not name it */
};
char *strevent(uint64_t event);   /* name of a MOS_EPOLL event, or "Unknown" */
char *strcbevent(uint64_t event); /* name of a MOS_ON event, or "Unknown" */
/* Lines "name = value", # to the line's end a comment. 0; -1 where the file cannot be read. */
int LoadConfig(char *file_name, struct conf_var *list, int size);
#endif
