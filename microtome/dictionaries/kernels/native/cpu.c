// What this library may do here. Compiled for any x86-64: it is asked before anything else is called.
#include <omp.h>

#define EXPORT __attribute__((visibility("default")))

// Whether the processor has what lanes.h is compiled for.
EXPORT int has_avx512(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

// Whether it multiplies bytes four at a time, as int8.c does.
EXPORT int has_vnni(void) {
    __builtin_cpu_init();
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

// How many threads a loop is shared among.
EXPORT int threads(void) {
    int found = 1;
#pragma omp parallel
#pragma omp single
    found = omp_get_num_threads();
    return found;
}
