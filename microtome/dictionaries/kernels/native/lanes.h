// Sixteen floats at a time, with masks where a row does not end on a multiple of sixteen.
//
// Everything below the pragma is compiled for AVX-512; the library itself loads on any x86-64, and cpu.c says whether
// these functions may be called.
#ifndef MICROTOME_LANES_H
#define MICROTOME_LANES_H

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define ALL ((__mmask16)0xffff)
#define LINE 64  // bytes of a cache line

enum { DONE = 0, OUT_OF_MEMORY = 1 };

INLINE __mmask16 lanes(int64_t left) {
    return left >= LANES ? ALL : (__mmask16)((1u << left) - 1);
}

INLINE __m512 load(__mmask16 mask, const float *from) {
    return _mm512_maskz_loadu_ps(mask, from);
}

INLINE void store(__mmask16 mask, float *to, __m512 what) {
    _mm512_mask_storeu_ps(to, mask, what);
}

INLINE int64_t rounded_up(int64_t count, int64_t to) {
    return (count + to - 1) / to * to;
}

// Memory for `count` elements of `size` bytes, on a cache line of its own; NULL where there is none. free() returns it.
static inline void *lines(int64_t count, size_t size) {
    return aligned_alloc(LINE, (size_t)rounded_up((count > 0 ? count : 1) * (int64_t)size, LINE));
}

INLINE void prefetch_row(const float *row, int64_t d) {
    for (int64_t j = 0; j < d; j += LANES) _mm_prefetch((const char *)(row + j), _MM_HINT_T0);
}

// Four sums side by side, since one would wait for itself: an addition takes four cycles.
static inline float dot(const float *a, const float *b, int64_t d) {
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    int64_t j = 0;
    for (; j + 4 * LANES <= d; j += 4 * LANES) {
        s0 = _mm512_fmadd_ps(_mm512_loadu_ps(a + j), _mm512_loadu_ps(b + j), s0);
        s1 = _mm512_fmadd_ps(_mm512_loadu_ps(a + j + 16), _mm512_loadu_ps(b + j + 16), s1);
        s2 = _mm512_fmadd_ps(_mm512_loadu_ps(a + j + 32), _mm512_loadu_ps(b + j + 32), s2);
        s3 = _mm512_fmadd_ps(_mm512_loadu_ps(a + j + 48), _mm512_loadu_ps(b + j + 48), s3);
    }
    for (; j < d; j += LANES) {
        __mmask16 mask = lanes(d - j);
        s0 = _mm512_fmadd_ps(load(mask, a + j), load(mask, b + j), s0);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)));
}

static inline float largest_size(const float *row, int64_t d) {
    __m512 most = _mm512_setzero_ps();
    for (int64_t j = 0; j < d; j += LANES) most = _mm512_max_ps(most, _mm512_abs_ps(load(lanes(d - j), row + j)));
    return _mm512_reduce_max_ps(most);
}

#endif
