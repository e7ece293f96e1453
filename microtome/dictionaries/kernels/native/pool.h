// A pool of candidates out of which the largest are kept: how every search here selects.
//
// Scores are looked at in the order of their indices, and only those that reach a threshold are put into the pool. When
// it is full, all but the `keep` largest are dropped and the threshold rises to the smallest of them. What is kept stays
// in the order of its indices, and of equal scores the lower index is the larger: so neither the first threshold, nor
// how rows were shared out among threads, can be seen in what comes out.
#ifndef MICROTOME_POOL_H
#define MICROTOME_POOL_H

#include "lanes.h"
#include <float.h>
#include <math.h>
#include <string.h>

typedef struct {
    float *scores;
    int32_t *indices;
    int64_t count;
    float threshold;  // what a score must reach
} Pool;

INLINE int64_t pool_capacity(int64_t keep) {
    return 4 * keep + 256;
}

// Scores are put in by vectors, and up to four of them before the pool is looked at again.
INLINE int64_t pool_room(int64_t keep) {
    return pool_capacity(keep) + 4 * LANES;
}

// A number that orders as the score does, and by the lower index among equals; not-a-number comes first, so that it is
// kept and seen.
INLINE uint64_t rank(float score, int32_t index) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    if (score != score) bits = UINT32_MAX;
    else bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)(INT32_MAX - index);
}

// Hoare's selection: the value of the `nth` largest, from 1. Reorders the ranks, which are all different.
static inline uint64_t nth_largest(uint64_t *ranks, int64_t count, int64_t nth) {
    int64_t low = 0, high = count - 1, wanted = nth - 1;
    while (low < high) {
        uint64_t pivot = ranks[(low + high) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (ranks[i] > pivot) i++;
            while (ranks[j] < pivot) j--;
            if (i > j) break;
            uint64_t swapped = ranks[i];
            ranks[i++] = ranks[j];
            ranks[j--] = swapped;
        }
        if (wanted <= j) high = j;
        else if (wanted >= i) low = i;
        else break;
    }
    return ranks[wanted];
}

// Drop all but the `keep` largest. `ranks` is scratch for as many as are in the pool.
static inline void pool_shrink(Pool *pool, int64_t keep, uint64_t *ranks) {
    if (pool->count <= keep) return;
    for (int64_t i = 0; i < pool->count; i++) ranks[i] = rank(pool->scores[i], pool->indices[i]);
    uint64_t last = nth_largest(ranks, pool->count, keep);
    int64_t kept = 0;
    for (int64_t i = 0; i < pool->count; i++) {
        float score = pool->scores[i];
        int32_t index = pool->indices[i];
        uint64_t ranked = rank(score, index);
        pool->scores[kept] = score;
        pool->indices[kept] = index;
        kept += ranked >= last;
        if (ranked == last && score == score) pool->threshold = score;
    }
    pool->count = kept;
}

INLINE void pool_put(Pool *pool, __mmask16 which, __m512 scores, __m512i indices) {
    _mm512_storeu_ps(pool->scores + pool->count, _mm512_maskz_compress_ps(which, scores));
    _mm512_storeu_si512(pool->indices + pool->count, _mm512_maskz_compress_epi32(which, indices));
    pool->count += __builtin_popcount(which);
}

INLINE __mmask16 pool_admits(const Pool *pool, __mmask16 mask, __m512 scores) {
    // "not less than" lets not-a-number in
    return _mm512_mask_cmp_ps_mask(mask, scores, _mm512_set1_ps(pool->threshold), _CMP_NLT_UQ);
}

INLINE __m512i counted_from(int64_t first) {
    const __m512i zero_to_15 = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_add_epi32(zero_to_15, _mm512_set1_epi32((int)first));
}

// Where a row's last kept score will lie, guessed from the rows before it: their running mean less four deviations.
// A guess that is too high is noticed (fewer than `keep` reach it), and the row is searched again without one.
typedef struct {
    float mean, deviation;
    int64_t seen;
} Guess;

INLINE float guess_threshold(const Guess *guess, float scale) {
    return guess->seen < 4 ? -INFINITY : (guess->mean - 4 * guess->deviation) * scale;
}

static inline void guess_learn(Guess *guess, float last) {
    if (!(fabsf(last) < FLT_MAX)) return;
    float weight = fmaxf(1.0f / (float)++guess->seen, 1.0f / 64);
    float off = last - guess->mean;
    guess->mean += weight * off;
    guess->deviation += weight * (fabsf(off) - guess->deviation);
}

// The smallest of `count` scores.
static inline float least(const float *scores, int64_t count) {
    float found = INFINITY;
    for (int64_t i = 0; i < count; i++) found = scores[i] < found ? scores[i] : found;
    return found;
}

#endif
