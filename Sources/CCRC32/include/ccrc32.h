// CRC-32 of Ethernet, zlib and the ICRC: polynomial 0x04C11DB7, reflected 0xEDB88320.
//
// All functions work on the register: the caller starts with 0xFFFFFFFF (or what it holds after bytes fed before) and
// complements at the end. Bit 31 of the register is x^0.
#ifndef SWIFT_RDMA_CCRC32_H
#define SWIFT_RDMA_CCRC32_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// The register after `count` more bytes, by the fastest way this processor has. `bytes` may be null if `count` is 0.
uint32_t ccrc32_update(uint32_t reg, const void *bytes, size_t count);

/// The same in plain C, eight bytes at a time.
uint32_t ccrc32_update_portable(uint32_t reg, const void *bytes, size_t count);

/// a * b modulo the polynomial.
uint32_t ccrc32_multiply(uint32_t a, uint32_t b);

/// The same in plain C.
uint32_t ccrc32_multiply_portable(uint32_t a, uint32_t b);

/// What the processor helps with: "pclmulqdq", "crc32" (Arm), or "none".
const char *ccrc32_acceleration(void);

#ifdef __cplusplus
}
#endif
#endif
