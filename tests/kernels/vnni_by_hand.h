// AVX-VNNI's two instructions as their definition says (Intel's intrinsics guide), for CPUs that have AVX2 only.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

template <class A, class B, int N>
inline __m256i products_added(__m256i sums, __m256i x, __m256i y) {
  int32_t s[8];
  A a[8 * N];
  B b[8 * N];
  std::memcpy(s, &sums, 32);
  std::memcpy(a, &x, 32);
  std::memcpy(b, &y, 32);
  for (int i = 0; i < 8 * N; ++i) s[i / N] += static_cast<int32_t>(a[i]) * b[i];
  std::memcpy(&sums, s, 32);
  return sums;
}

inline __m256i dpbusd_by_hand(__m256i s, __m256i w, __m256i x) { return products_added<uint8_t, int8_t, 4>(s, w, x); }
inline __m256i dpwssd_by_hand(__m256i s, __m256i w, __m256i x) { return products_added<int16_t, int16_t, 2>(s, w, x); }

}  // namespace

#define _mm256_dpbusd_avx_epi32 dpbusd_by_hand
#define _mm256_dpwssd_avx_epi32 dpwssd_by_hand
#define __AVXVNNI__ 1
