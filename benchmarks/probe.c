/* What a machine can do at best, to hold a decoder's speed against: how fast its memory is read, and how fast it
 * multiplies 8-bit integers.
 *
 *     cc -O3 -march=native -pthread probe.c -o probe && echo "read 200" | ./probe 2
 *
 * Threads are pinned, one to each of the first CPUs that the process may use, and sleep between commands. One command
 * a line on stdin, one line of numbers on stdout:
 *
 *     read MS     reads 512 MiB again and again for MS milliseconds: best and median pass, GB/s
 *     dot MS      multiplies and adds int8 for MS milliseconds: best and median pass, Gop/s (a multiplication and an
 *                 addition are two); 0 0 where the CPU has no such instruction
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#include <immintrin.h>
#endif

#define BYTES ((size_t)512 << 20)
#define HUGE_PAGE ((size_t)2 << 20)
#define MOST_THREADS 256
#define MOST_PASSES 4096
#define CHAINS 12       /* independent sums: more than an instruction's latency times its throughput */
#define ROUNDS 4000000L /* of a pass of dot, some 10 to 25 ms */

typedef uint64_t line __attribute__((vector_size(64)));

enum work { READ, DOT };

static int threads;
static cpu_set_t allowed;
static enum work work;
static char *memory;
static pthread_barrier_t barrier;
static volatile uint64_t sinks[MOST_THREADS * 8]; /* a cache line each; keeps the compiler from dropping the work */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void pin(int thread) {
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || seen++ < thread) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        pthread_setaffinity_np(pthread_self(), sizeof one, &one);
        return;
    }
}

static uint64_t read_share(int thread) {
    size_t lines = BYTES / sizeof(line) / (size_t)threads / 8 * 8;
    const line *at = (const line *)memory + (size_t)thread * lines, *end = at + lines;
    line a = {0}, b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    for (; at < end; at += 8) {
        a ^= at[0], b ^= at[1], c ^= at[2], d ^= at[3];
        e ^= at[4], f ^= at[5], g ^= at[6], h ^= at[7];
    }
    line all = a ^ b ^ c ^ d ^ e ^ f ^ g ^ h;
    uint64_t sum = 0;
    for (int i = 0; i < 8; i++) sum ^= all[i];
    return sum;
}

#if defined(__AVX512VNNI__)
#define LANES 64
typedef __m512i ints;
static inline ints fill(int x) { return _mm512_set1_epi8((char)x); }
static inline ints dot(ints sum, ints x, ints y) { return _mm512_dpbusd_epi32(sum, x, y); }
#elif defined(__AVXVNNI__)
#define LANES 32
typedef __m256i ints;
static inline ints fill(int x) { return _mm256_set1_epi8((char)x); }
static inline ints dot(ints sum, ints x, ints y) { return _mm256_dpbusd_avx_epi32(sum, x, y); }
#endif

#ifdef LANES
static uint64_t dot_share(int thread) {
    ints sums[CHAINS], x = fill(3), y = fill(5 + thread);
    for (int i = 0; i < CHAINS; i++) sums[i] = fill(i);
    for (long round = 0; round < ROUNDS; round++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) sums[i] = dot(sums[i], x, y);
        __asm__ volatile("" : "+v"(x), "+v"(y)); /* as if they were others every time */
    }
    uint64_t parts[sizeof(ints) / 8], sum = 0;
    for (int i = 0; i < CHAINS; i++) {
        memcpy(parts, &sums[i], sizeof parts);
        for (size_t k = 0; k < sizeof parts / 8; k++) sum += parts[k];
    }
    return sum;
}
#else
#define LANES 0
static uint64_t dot_share(int thread) { return (uint64_t)thread; }
#endif

static void pass(int thread) {
    pthread_barrier_wait(&barrier);
    sinks[thread * 8] += work == READ ? read_share(thread) : dot_share(thread);
    pthread_barrier_wait(&barrier);
}

static void *helper(void *number) {
    pin((int)(intptr_t)number);
    for (;;) pass((int)(intptr_t)number);
    return NULL;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int count, char **words) {
    threads = count > 1 ? atoi(words[1]) : 2;
    if (threads < 1 || threads > MOST_THREADS) return 2;
    char *raw = mmap(NULL, BYTES + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) return 1;
    memory = (char *)(((uintptr_t)raw + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    madvise(memory, BYTES, MADV_HUGEPAGE);
    for (size_t i = 0; i < BYTES; i += sizeof(line)) *(uint64_t *)(memory + i) = i; /* else all of it is one page */
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    sched_getaffinity(0, sizeof allowed, &allowed);
    pin(0);
    for (int i = 1; i < threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, helper, (void *)(intptr_t)i)) return 1;
    }
    char text[64], name[16];
    int milliseconds;
    while (fgets(text, sizeof text, stdin)) {
        if (sscanf(text, "%15s %d", name, &milliseconds) != 2) return 2;
        work = strcmp(name, "dot") ? READ : DOT;
        static double rates[MOST_PASSES];
        int passes = 0;
        double amount = work == READ ? (double)BYTES / 1e9 : 2.0 * LANES * CHAINS * ROUNDS * threads / 1e9;
        if (amount == 0) {
            puts("0 0");
            fflush(stdout);
            continue;
        }
        for (double start = now(), from = start; passes < MOST_PASSES && (passes < 3 || from - start < milliseconds / 1e3);) {
            pass(0);
            double to = now();
            rates[passes++] = amount / (to - from);
            from = to;
        }
        qsort(rates, (size_t)passes, sizeof *rates, ascending);
        printf("%.2f %.2f\n", rates[passes - 1], rates[passes / 2]);
        fflush(stdout);
    }
    return 0;
}
