/* mtcp_util.h: helpers that mOS offers its programs. */
#ifndef __MTCP_UTIL_H__
#define __MTCP_UTIL_H__

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Core that receives packets of these addresses (network order), out of num_queues. A worker is one core: with num_queues 1 the answer is 0 where
 * such packets come to this worker, and 1 where they come to another. With more queues: a Toeplitz hash with mOS's symmetric key. mOS had it
 * with five arguments, then with six (endian_check): what follows num_queues is not read. */
int GetRSSCPUCore(in_addr_t sip, in_addr_t dip, in_port_t sp, in_port_t dp, int num_queues, ...);

/* Cuts str at blanks, in place, into at most max_argc words. 0; -1 (EINVAL) for more than that. */
int StrToArgs(char *str, int *argc, char **argv, int max_argc);

/* xxHash, the 32-bit and the 64-bit function of the specification. */
unsigned int XXH32(const void *input, size_t length, unsigned seed);
unsigned long long XXH64(const void *input, size_t length, unsigned long long seed);

#ifdef __cplusplus
}
#endif
#endif
