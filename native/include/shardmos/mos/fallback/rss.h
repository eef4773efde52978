/* rss.h: for programs that include mOS's header of this name and bring none of their own. */
#ifndef SHARDMOS_MOS_RSS_H
#define SHARDMOS_MOS_RSS_H
#include "mtcp_util.h"
#endif
