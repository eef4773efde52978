/* complete.h: checksums that a sending host left for its device to finish. */
#ifndef SMOS__COMPLETE_H
#define SMOS__COMPLETE_H

#include <stdbool.h>
#include <stdint.h>

/* Linux leaves the sum of the pseudo-header in the field (CHECKSUM_PARTIAL) of a TCP or UDP packet whose checksum a device is to
 * complete. Where a frame shows that bare sum it is completed in place, as the device would have (RFC 9293 3.1, RFC 768, RFC 8200 8.1); what is
 * damaged stays damaged but for one chance in 65,535. Ethernet with at most two tags; neither fragments nor extension headers, which
 * Linux sends complete. True if the frame was changed. */
bool smos__complete_checksum(uint8_t *frame, uint32_t length);

#endif
