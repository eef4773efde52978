/* cpu.h: for programs that include mOS's header of this name and bring none of their own. */
#ifndef SHARDMOS_MOS_CPU_H
#define SHARDMOS_MOS_CPU_H
#include <sys/types.h>
#ifndef MAX_CPUS
#define MAX_CPUS 16
#endif
int GetNumCPUs(void); /* 1: what a worker's program sees */
pid_t Gettid(void);
int mtcp_core_affinitize(int cpu);
#endif
