// The largest scores of each row of a block of pre-activations; and candidates scored again, exactly.
#include "pool.h"

typedef struct {
    const void *scores;
    int bfloat16;  // else float32
    int64_t n, keep;
} Block;

INLINE __m512 score_lanes(const Block *block, const void *row, int64_t j, __mmask16 mask) {
    if (!block->bfloat16) return load(mask, (const float *)row + j);
    __m256i halves = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)row + j);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

INLINE void put_lanes(const Block *block, Pool *pool, const void *row, int64_t j, __mmask16 mask) {
    __m512 scores = score_lanes(block, row, j, mask);
    __mmask16 which = pool_admits(pool, mask, scores);
    if (which) pool_put(pool, which, scores, counted_from(j));
}

// Whether any of 64 scores is admitted: of most vectors none is, so they are asked four at a time.
INLINE int any_of_four(const Block *block, const Pool *pool, const void *row, int64_t j) {
    __mmask16 a = pool_admits(pool, ALL, score_lanes(block, row, j, ALL));
    __mmask16 b = pool_admits(pool, ALL, score_lanes(block, row, j + 16, ALL));
    __mmask16 c = pool_admits(pool, ALL, score_lanes(block, row, j + 32, ALL));
    __mmask16 e = pool_admits(pool, ALL, score_lanes(block, row, j + 48, ALL));
    return (a | b | c | e) != 0;
}

INLINE void search_row(const Block *block, const void *row, Pool *pool, uint64_t *ranks) {
    int64_t j = 0;
    pool->count = 0;
    for (; j + 4 * LANES <= block->n; j += 4 * LANES) {
        if (__builtin_expect(!any_of_four(block, pool, row, j), 1)) continue;
        for (int64_t i = 0; i < 4 * LANES; i += LANES) put_lanes(block, pool, row, j + i, ALL);
        if (pool->count > pool_capacity(block->keep)) pool_shrink(pool, block->keep, ranks);
    }
    for (; j < block->n; j += LANES) put_lanes(block, pool, row, j, lanes(block->n - j));
    pool_shrink(pool, block->keep, ranks);
}

static void search_bfloat16_row(const Block *given, const void *row, Pool *pool, uint64_t *ranks) {
    const Block block = {given->scores, 1, given->n, given->keep};  // a constant, so that the loop asks nothing
    search_row(&block, row, pool, ranks);
}

static void search_float32_row(const Block *given, const void *row, Pool *pool, uint64_t *ranks) {
    const Block block = {given->scores, 0, given->n, given->keep};
    search_row(&block, row, pool, ranks);
}

static void keep_largest(const Block *block, int64_t r, Guess *guess, Pool *pool, uint64_t *ranks) {
    void (*search)(const Block *, const void *, Pool *, uint64_t *) =
        block->bfloat16 ? search_bfloat16_row : search_float32_row;
    const void *row = (const char *)block->scores + r * block->n * (block->bfloat16 ? 2 : 4);
    pool->threshold = guess_threshold(guess, 1);
    search(block, row, pool, ranks);
    if (pool->count < block->keep) {
        pool->threshold = -INFINITY;
        search(block, row, pool, ranks);
    }
    guess_learn(guess, least(pool->scores, pool->count));
}

// indices[r] = the `keep` largest of row r, ascending by index. 1 <= keep <= n < 2^31.
EXPORT int largest_of_rows(const void *scores, int bfloat16, int64_t rows, int64_t n, int64_t keep, int32_t *indices) {
    const Block block = {scores, bfloat16, n, keep};
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        int64_t room = pool_room(keep);
        Pool pool = {lines(room, sizeof(float)), lines(room, sizeof(int32_t)), 0, 0};
        uint64_t *ranks = lines(room, sizeof(uint64_t));
        Guess guess = {0, 0, 0};
        failed = !pool.scores || !pool.indices || !ranks;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            if (failed) continue;
            keep_largest(&block, r, &guess, &pool, ranks);
            memcpy(indices + r * keep, pool.indices, (size_t)keep * sizeof(int32_t));
        }
        free(pool.scores);
        free(pool.indices);
        free(ranks);
    }
    return failed ? OUT_OF_MEMORY : DONE;
}

typedef struct {
    const float *weights, *bias;
    int64_t d, count, k;
} Rescoring;

INLINE float relu(float score) {
    return score <= 0 ? 0 : score;  // not-a-number stays what it is
}

static void score_candidates(const Rescoring *how, const float *x, const int32_t *candidates, Pool *pool) {
    for (int64_t i = 0; i < how->count; i++) {
        if (i + 2 < how->count) prefetch_row(how->weights + candidates[i + 2] * how->d, how->d);
        pool->scores[i] = dot(x, how->weights + candidates[i] * how->d, how->d) + how->bias[candidates[i]];
        pool->indices[i] = candidates[i];
    }
    pool->count = how->count;
}

// values[r], indices[r] = the k largest of relu(weights x + bias) among row r's candidates, ascending by index.
EXPORT int rescore(const float *x, const float *weights, const float *bias, const int32_t *candidates, int64_t rows,
                   int64_t d, int64_t count, int64_t k, float *values, int64_t *indices) {
    const Rescoring how = {weights, bias, d, count, k};
    int failed = 0;
#pragma omp parallel reduction(| : failed)
    {
        Pool pool = {lines(count, sizeof(float)), lines(count, sizeof(int32_t)), 0, 0};
        uint64_t *ranks = lines(count, sizeof(uint64_t));
        failed = !pool.scores || !pool.indices || !ranks;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            if (failed) continue;
            score_candidates(&how, x + r * d, candidates + r * count, &pool);
            pool_shrink(&pool, k, ranks);
            for (int64_t i = 0; i < k; i++) values[r * k + i] = relu(pool.scores[i]);
            for (int64_t i = 0; i < k; i++) indices[r * k + i] = pool.indices[i];
        }
        free(pool.scores);
        free(pool.indices);
        free(ranks);
    }
    return failed ? OUT_OF_MEMORY : DONE;
}
