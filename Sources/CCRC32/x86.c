#if defined(__x86_64__)
#include "internal.h"

#include <cpuid.h>
#include <immintrin.h>
#include <stdbool.h>

// Folding with carry-less multiplication. A 128-bit block can be added to the block n bits after it when it is
// multiplied by x^n modulo the polynomial. Its halves are n + 64 and n bits before that block, and the product of two
// reflected numbers of 64 and 33 bits is shifted by 32 bits, hence the powers below.
#define FEATURE __attribute__((target("pclmul,sse4.1")))

#define FEATURE512 __attribute__((target("vpclmulqdq,avx512f,pclmul,sse4.1")))

typedef long long half;
#define FOLD_2048_LOW ((half)0x11542778A)  // x^(2048+32)
#define FOLD_2048_HIGH ((half)0x1322D1430) // x^(2048-32)
#define FOLD_512_LOW ((half)0x154442BD4)  // x^(512+32)
#define FOLD_512_HIGH ((half)0x1C6E41596) // x^(512-32)
#define FOLD_128_LOW ((half)0x1751997D0)  // x^(128+32)
#define FOLD_128_HIGH ((half)0x0CCAA009E) // x^(128-32)
#define FOLD_64 ((half)0x163CD6124)       // x^64
#define POLYNOMIAL ((half)0x1DB710641)    // with its top bit, reflected
#define QUOTIENT ((half)0x1F7011641)      // x^64 divided by the polynomial, reflected

FEATURE static inline __m128i fold(__m128i block, __m128i next, __m128i factors) {
    const __m128i low = _mm_clmulepi64_si128(block, factors, 0x00);
    const __m128i high = _mm_clmulepi64_si128(block, factors, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

FEATURE static inline __m128i load(const unsigned char *bytes) { return _mm_loadu_si128((const __m128i *)bytes); }

// The register after a message of 16 bytes: the block times x^32 modulo the polynomial. Without the tables, which would
// displace data in the first cache. The low half is folded to the high one, then the low 32 bits of these 96 to the other
// 64, and Barrett's reduction computes the quotient of the rest from its low half.
FEATURE static inline uint32_t reduce(__m128i block) {
    const __m128i low32 = _mm_set_epi64x(0, 0xFFFFFFFF);
    const __m128i by64 = _mm_set_epi64x(FOLD_64, FOLD_128_HIGH);
    const __m128i barrett = _mm_set_epi64x(QUOTIENT, POLYNOMIAL);
    __m128i left = _mm_xor_si128(_mm_clmulepi64_si128(block, by64, 0x00), _mm_srli_si128(block, 8));
    left = _mm_xor_si128(
        _mm_clmulepi64_si128(_mm_and_si128(left, low32), by64, 0x10), _mm_srli_si128(left, 4));
    __m128i product = _mm_clmulepi64_si128(_mm_and_si128(left, low32), barrett, 0x10);
    product = _mm_clmulepi64_si128(_mm_and_si128(product, low32), barrett, 0x00);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(left, product), 1);
}

// The end of a message, of which `block` is the folded beginning.
FEATURE static inline uint32_t finish(__m128i block, const unsigned char *bytes, size_t count) {
    const __m128i by128 = _mm_set_epi64x(FOLD_128_HIGH, FOLD_128_LOW);
    for (; count >= 16; bytes += 16, count -= 16)
        block = fold(block, load(bytes), by128);
    // The folded block is a message of 16 bytes for a register of 0; the bytes that do not fill a block follow it.
    return ccrc32_update_portable(reduce(block), bytes, count);
}

FEATURE static uint32_t update(uint32_t reg, const unsigned char *bytes, size_t count) {
    const __m128i by128 = _mm_set_epi64x(FOLD_128_HIGH, FOLD_128_LOW);
    __m128i block = _mm_xor_si128(load(bytes), _mm_cvtsi32_si128((int)reg));
    bytes += 16, count -= 16;
    if (count >= 48) {
        const __m128i by512 = _mm_set_epi64x(FOLD_512_HIGH, FOLD_512_LOW);
        __m128i block1 = load(bytes), block2 = load(bytes + 16), block3 = load(bytes + 32);
        for (bytes += 48, count -= 48; count >= 64; bytes += 64, count -= 64) {
            block = fold(block, load(bytes), by512);
            block1 = fold(block1, load(bytes + 16), by512);
            block2 = fold(block2, load(bytes + 32), by512);
            block3 = fold(block3, load(bytes + 48), by512);
        }
        block = fold(fold(fold(block, block1, by128), block2, by128), block3, by128);
    }
    return finish(block, bytes, count);
}

// Four blocks of 128 bits at once.
FEATURE512 static inline __m512i fold4(__m512i blocks, __m512i next, __m512i factors) {
    const __m512i low = _mm512_clmulepi64_epi128(blocks, factors, 0x00);
    const __m512i high = _mm512_clmulepi64_epi128(blocks, factors, 0x11);
    return _mm512_ternarylogic_epi64(low, high, next, 0x96); // low ^ high ^ next
}

FEATURE512 static inline __m512i load4(const unsigned char *bytes) { return _mm512_loadu_si512(bytes); }

FEATURE512 static uint32_t update512(uint32_t reg, const unsigned char *bytes, size_t count) {
    // Shorter messages gain nothing.
    if (count < 512)
        return update(reg, bytes, count);
    const __m128i by128 = _mm_set_epi64x(FOLD_128_HIGH, FOLD_128_LOW);
    const __m512i by512 = _mm512_broadcast_i32x4(_mm_set_epi64x(FOLD_512_HIGH, FOLD_512_LOW));
    const __m512i by2048 = _mm512_broadcast_i32x4(_mm_set_epi64x(FOLD_2048_HIGH, FOLD_2048_LOW));
    __m512i blocks = _mm512_xor_si512(load4(bytes), _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)reg)));
    __m512i blocks1 = load4(bytes + 64), blocks2 = load4(bytes + 128), blocks3 = load4(bytes + 192);
    for (bytes += 256, count -= 256; count >= 256; bytes += 256, count -= 256) {
        blocks = fold4(blocks, load4(bytes), by2048);
        blocks1 = fold4(blocks1, load4(bytes + 64), by2048);
        blocks2 = fold4(blocks2, load4(bytes + 128), by2048);
        blocks3 = fold4(blocks3, load4(bytes + 192), by2048);
    }
    blocks = fold4(fold4(fold4(blocks, blocks1, by512), blocks2, by512), blocks3, by512);
    for (; count >= 64; bytes += 64, count -= 64)
        blocks = fold4(blocks, load4(bytes), by512);
    __m128i block = fold(_mm512_castsi512_si128(blocks), _mm512_extracti32x4_epi32(blocks, 1), by128);
    block = fold(block, _mm512_extracti32x4_epi32(blocks, 2), by128);
    block = fold(block, _mm512_extracti32x4_epi32(blocks, 3), by128);
    return finish(block, bytes, count);
}

FEATURE static uint32_t multiply(uint32_t a, uint32_t b) {
    const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)a), _mm_cvtsi32_si128((int)b), 0);
    return ccrc32_reduce64((uint64_t)_mm_cvtsi128_si64(product) << 1);
}

static const struct ccrc32_ways none = {"none", NULL, NULL};
static const struct ccrc32_ways pclmulqdq = {"pclmulqdq", update, multiply};
static const struct ccrc32_ways vpclmulqdq = {"vpclmulqdq", update512, multiply};

// Whether the processor has VPCLMULQDQ and AVX-512F, and the system saves the registers of AVX-512: bits 1, 2 and 5 to 7
// of XCR0.
static bool has512(unsigned c) {
    unsigned a, b, other, d, low, high;
    if (!(c & bit_OSXSAVE))
        return false;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 0xE6) == 0xE6 && __get_cpuid_count(7, 0, &a, &b, &other, &d) && (b & bit_AVX512F) &&
           (other & bit_VPCLMULQDQ);
}

const struct ccrc32_ways *ccrc32_accelerated(void) {
    static const struct ccrc32_ways *found;
    const struct ccrc32_ways *ways = __atomic_load_n(&found, __ATOMIC_RELAXED);
    if (__builtin_expect(ways != NULL, 1))
        return ways;
    unsigned a, b, c = 0, d;
    const unsigned wanted = bit_PCLMUL | bit_SSE4_1;
    ways = __get_cpuid(1, &a, &b, &c, &d) && (c & wanted) == wanted ? &pclmulqdq : &none;
    if (ways == &pclmulqdq && has512(c))
        ways = &vpclmulqdq;
    // Two threads may execute this at once: both find the same value.
    __atomic_store_n(&found, ways, __ATOMIC_RELAXED);
    return ways;
}
#endif
