/* Capabilities given up, and no_new_privs (capabilities(7), PR_SET_NO_NEW_PRIVS(2const)). */
#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shardmos/engine.h"

/* The bounding set is what a program file could still give: irrelevant under no_new_privs, emptied all the same so that nobody has to reason about it. It needs
 * CAP_SETPCAP; who has not got it has none to lose but by a program file. */
static int empty_bounding_set(void)
{
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EPERM) return -errno;
    return 0;
}

int smos_confine_capabilities(uint64_t keep)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -errno;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL) return -errno; /* EINVAL: Linux before 4.3 */
    int status = empty_bounding_set();
    if (status < 0) return status;
    if (syscall(SYS_capget, &header, data) < 0) return -errno;
    for (int word = 0; word < 2; word++) {
        data[word].permitted &= (uint32_t)(keep >> 32 * word);
        data[word].effective = data[word].permitted;
        data[word].inheritable = 0;
    }
    return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}
