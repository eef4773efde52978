/* The rules, each for one byte that an older segment O and a new one N both carry, with the bounds that the two had when they came
 * (what an earlier overlap took from O does not move O's bounds). Nothing was delivered yet: delivered bytes never change.
 *
 *   policy                          N wins when
 *   first, vista, old-solaris       never
 *   last                            always
 *   bsd, macos, irix, hpux10,
 *   windows, windows2k3             N begins before O
 *   linux                           N begins before O, or with O and ends after it
 *   old-linux                       N begins before O, or with O and does not end before it
 *   solaris, hpux11                 N ends after O, or ends with O and does not begin after it
 *   bsd-right                       N begins with O or after it
 *
 * Sources: J. Novak and S. Sturges, "Target-Based TCP Stream Reassembly" (2007); the behaviour of Suricata 7 and Snort 3, which agree on
 * all but these: irix and hpux10 (Snort: as linux; Suricata, and here: as bsd). For solaris Snort keeps an O of N's very bounds
 * when a hole is left of it. bsd-right and old-solaris have no TCP rule in either (Suricata keeps the old bytes): bsd-right is
 * here what U. Shankar and V. Paxson, "Active Mapping" (2003), found for IP fragments, the mirror image of bsd.
 */
#include "tcp/overlap.h"

bool smos__overlap_new_wins(int policy, uint64_t old_start, uint64_t old_end, uint64_t start, uint64_t end)
{
    switch (policy) {
    case SMOS__OVERLAP_LAST:
        return true;
    case SMOS__OVERLAP_BSD:
    case SMOS__OVERLAP_MACOS:
    case SMOS__OVERLAP_IRIX:
    case SMOS__OVERLAP_HPUX10:
    case SMOS__OVERLAP_WINDOWS:
    case SMOS__OVERLAP_WINDOWS2K3:
        return start < old_start;
    case SMOS__OVERLAP_LINUX:
        return start < old_start || (start == old_start && end > old_end);
    case SMOS__OVERLAP_OLD_LINUX:
        return start < old_start || (start == old_start && end >= old_end);
    case SMOS__OVERLAP_SOLARIS:
    case SMOS__OVERLAP_HPUX11:
        return end > old_end || (end == old_end && start <= old_start);
    case SMOS__OVERLAP_BSD_RIGHT:
        return start >= old_start;
    default: /* first, vista, old-solaris */
        return false;
    }
}

bool smos__overlap_needs_bounds(int policy)
{
    return policy != SMOS__OVERLAP_FIRST && policy != SMOS__OVERLAP_LAST && policy != SMOS__OVERLAP_VISTA && policy != SMOS__OVERLAP_OLD_SOLARIS;
}
