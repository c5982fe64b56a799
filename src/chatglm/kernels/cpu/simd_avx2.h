// Sixteen lanes as two AVX2 registers (with FMA and F16C); uses AVX-VNNI if the compiler's flags allow it.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels.h"

namespace CHATGLM_ISA {

constexpr int kRows = 3;
constexpr int kTiles = 1;
constexpr int kPlainRows = 1;
constexpr int kFewRows = 4;
constexpr int kProductsPerLine = 2;
constexpr int kQueries = 4;
constexpr auto kStore = chatglm::Store::word;

struct F { __m256 a, b; };
struct I { __m256i a, b; };
struct U { __m256i a, b; };

inline F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
inline F operator+(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F operator-(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F operator*(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F operator/(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline F times(F x, const float* p) { return x * set(*p); }
inline F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F round(F x) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}
inline float sum(F x) {
  const __m256 both = _mm256_add_ps(x.a, x.b);
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float largest(F x) {
  const __m256 both = _mm256_max_ps(x.a, x.b);
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
inline __m256 power_of_two(__m256 n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
inline F power_of_two(F n) { return {power_of_two(n.a), power_of_two(n.b)}; }

inline __m128i eight(const void* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
inline F load_half(const uint16_t* p) { return {_mm256_cvtph_ps(eight(p)), _mm256_cvtph_ps(eight(p + 8))}; }
inline void store_half(uint16_t* p, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
inline __m256 brain(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight(p)), 16));
}
inline F load_brain(const uint16_t* p) { return {brain(p), brain(p + 8)}; }

inline I izero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline I iset(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I operator+(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }

inline __m256i register_at(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline U load_bytes(const uint8_t* p) { return {register_at(p), register_at(p + 32)}; }
inline const int8_t* for_tiles(const int8_t* p) { return p; }
inline void load_nibbles(const uint8_t* p, U& low, U& high) {
  const __m256i mask = _mm256_set1_epi8(15);
  const U both = load_bytes(p);
  low = {_mm256_and_si256(both.a, mask), _mm256_and_si256(both.b, mask)};
  high = {_mm256_and_si256(_mm256_srli_epi16(both.a, 4), mask), _mm256_and_si256(_mm256_srli_epi16(both.b, 4), mask)};
}
inline void load_unshifted(const uint8_t* p, U& low, U& high) { load_nibbles(p, low, high); }
inline I unshifted(I a) { return a; }
inline int32_t four(const int8_t* p) { int32_t x; std::memcpy(&x, p, 4); return x; }

#ifdef __AVXVNNI__
inline I dot4(I s, U w, const int8_t* x) {
  const __m256i y = _mm256_set1_epi32(four(x));
  return {_mm256_dpbusd_avx_epi32(s.a, w.a, y), _mm256_dpbusd_avx_epi32(s.b, w.b, y)};
}
inline I dot8(I s, U w, const int8_t* x) { return dot4(s, w, x); }
#else
inline I dot4(I s, U w, const int8_t* x) {  // 2 * 15 * 127 fits in 16 bits
  const __m256i y = _mm256_set1_epi32(four(x)), ones = _mm256_set1_epi16(1);
  return {_mm256_add_epi32(s.a, _mm256_madd_epi16(_mm256_maddubs_epi16(w.a, y), ones)),
          _mm256_add_epi32(s.b, _mm256_madd_epi16(_mm256_maddubs_epi16(w.b, y), ones))};
}
inline __m256i wide(__m256i s, __m256i w, __m256i even, __m256i odd) {  // 2 * 255 * 127 does not fit into 16 bits: widen first
  const __m256i low = _mm256_and_si256(w, _mm256_set1_epi16(255)), high = _mm256_srli_epi16(w, 8);
  return _mm256_add_epi32(s, _mm256_add_epi32(_mm256_madd_epi16(low, even), _mm256_madd_epi16(high, odd)));
}
inline I dot8(I s, U w, const int8_t* x) {
  const __m256i y = _mm256_set1_epi32(four(x));
  const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(y, 8), 8), odd = _mm256_srai_epi16(y, 8);
  return {wide(s.a, w.a, even, odd), wide(s.b, w.b, even, odd)};
}
#endif

inline I load_pairs(const int16_t* p) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(p);
  return {register_at(bytes), register_at(bytes + 32)};
}
inline I load_pairs(const int8_t* p) { return {_mm256_cvtepi8_epi16(eight(p)), _mm256_cvtepi8_epi16(eight(p + 16))}; }
inline void store_words(int16_t* p, F x) {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(words, 0xD8));
}
inline I dot2(I s, I w, const int16_t* x) {
  int32_t two;
  std::memcpy(&two, x, 4);
  const __m256i y = _mm256_set1_epi32(two);
#ifdef __AVXVNNI__
  return {_mm256_dpwssd_avx_epi32(s.a, w.a, y), _mm256_dpwssd_avx_epi32(s.b, w.b, y)};
#else
  return {_mm256_add_epi32(s.a, _mm256_madd_epi16(w.a, y)), _mm256_add_epi32(s.b, _mm256_madd_epi16(w.b, y))};
#endif
}

inline float magnitude(const float* p, int count) {
  __m256i most = _mm256_setzero_si256();
  const __m256i sign = _mm256_set1_epi32(0x7fffffff);
  for (int i = 0; i < count; i += 8)
    most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i)), sign));
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), most);
  int32_t bits = 0;
  for (int32_t lane : lanes) bits = lane > bits ? lane : bits;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline int32_t to_bytes(int8_t* out, const float* p, float scale, int count) {
  const __m256 by = _mm256_set1_ps(scale);
  __m256i total = _mm256_setzero_si256();
  for (int i = 0; i < count; i += 16) {
    const __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(p + i), by));
    const __m256i r = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(p + i + 8), by));
    total = _mm256_add_epi32(total, _mm256_add_epi32(q, r));
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(q, r), 0xD8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  }
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), total);
  int32_t s = 0;
  for (int32_t lane : lanes) s += lane;
  return s;
}

}  // namespace CHATGLM_ISA
