// CRC-32 as Ethernet, zlib and the ICRC use it: polynomial 0x04C11DB7, reflected 0xEDB88320.
//
// All functions work on the register: the caller starts with 0xFFFFFFFF, or with the register after earlier bytes, and
// complements it at the end. Bit 31 of the register is x^0.
#ifndef SWIFT_RDMA_CCRC32_H
#define SWIFT_RDMA_CCRC32_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// The register after `count` more bytes, computed with the fastest instructions of this processor. `bytes` may be null
/// if `count` is 0.
uint32_t ccrc32_update(uint32_t reg, const void *bytes, size_t count);

/// ccrc32_update in portable C, eight bytes at a time.
uint32_t ccrc32_update_portable(uint32_t reg, const void *bytes, size_t count);

/// a * b modulo the polynomial.
uint32_t ccrc32_multiply(uint32_t a, uint32_t b);

/// ccrc32_multiply in portable C.
uint32_t ccrc32_multiply_portable(uint32_t a, uint32_t b);

/// The instructions that ccrc32_update uses: "vpclmulqdq" or "pclmulqdq" (x86), "crc32" (Arm), or "none".
const char *ccrc32_acceleration(void);

#ifdef __cplusplus
}
#endif
#endif
