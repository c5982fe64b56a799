// Sixteen lanes on AVX-512 (F, BW, DQ, VL, VNNI).
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels.h"

namespace CHATGLM_ISA {

constexpr int kRows = 6;   // rows of inputs that the matrix kernel holds in registers
constexpr int kTiles = 2;  // tiles of weights that are processed with them
constexpr int kPlainRows = 4;  // rows of inputs that are processed with four rows of plain weights
constexpr int kFewRows = 8;   // up to this many rows, each tile is read once
constexpr int kProductsPerLine = 4;  // products for each cache line of weights; with more, the CPU's own prefetching is too slow
constexpr int kQueries = 16;  // queries that are processed together
constexpr auto kStore = chatglm::Store::word;

struct F { __m512 v; };
struct I { __m512i v; };
struct U { __m512i v; };  // 16 x 4 unsigned bytes

inline F zero() { return {_mm512_setzero_ps()}; }
inline F set(float x) { return {_mm512_set1_ps(x)}; }
inline F load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
inline F operator+(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F operator-(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F operator*(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F operator/(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// a * *p; in assembly, because compilers load *p once for several uses and run out of registers
inline F times(F a, const float* p) {
  F product;
  asm("vmulps %2%{1to16%}, %1, %0" : "=v"(product.v) : "v"(a.v), "m"(*p));
  return product;
}
inline F max(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F min(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F round(F a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline float sum(F a) { return _mm512_reduce_add_ps(a.v); }
inline float largest(F a) { return _mm512_reduce_max_ps(a.v); }
// 2^n for whole n from -126 to 127
inline F power_of_two(F n) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23))};
}

inline F load_half(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
inline void store_half(uint16_t* p, F a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F load_brain(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16))};
}

inline I izero() { return {_mm512_setzero_si512()}; }
inline I iset(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline I operator+(I a, I b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline F to_float(I a) { return {_mm512_cvtepi32_ps(a.v)}; }

inline U load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline void load_nibbles(const uint8_t* p, U& low, U& high) {
  __m512i both = _mm512_loadu_si512(p);
  asm("" : "+v"(both));  // prevents the compiler from loading twice
  const __m512i mask = _mm512_set1_epi8(15);
  low.v = _mm512_and_si512(both, mask);
  high.v = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
}
// Like load_nibbles, but high halves are sixteen times too large. `unshifted` corrects a sum of products with them.
inline void load_unshifted(const uint8_t* p, U& low, U& high) {
  __m512i both = _mm512_loadu_si512(p);
  asm("" : "+v"(both));
  low.v = _mm512_and_si512(both, _mm512_set1_epi8(15));
  high.v = _mm512_andnot_si512(_mm512_set1_epi8(15), both);
}
inline I unshifted(I a) { return {_mm512_srai_epi32(a.v, 4)}; }
struct X { __m512i v; };  // four bytes of an input, in every lane
inline X for_tiles(const int8_t* p) {
  int32_t x;
  std::memcpy(&x, p, 4);
  return {_mm512_set1_epi32(x)};
}
// a + sum over 4 bytes of w * x; w has 4 or 8 bits. In assembly, because compilers insert copies of the sums. An input
// that is used for one tile only is read straight from memory.
inline I dot4(I a, U w, X x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(a.v) : "v"(w.v), "v"(x.v));
  return a;
}
struct Four { int8_t x[4]; };
inline I dot4(I a, U w, const int8_t* x) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(a.v) : "v"(w.v), "m"(*reinterpret_cast<const Four*>(x)));
  return a;
}
template <class Input>
inline I dot8(I a, U w, Input x) { return dot4(a, w, x); }

inline I load_pairs(const int16_t* p) { return {_mm512_loadu_si512(p)}; }
inline I load_pairs(const int8_t* p) {
  return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store_words(int16_t* p, F a) {  // rounded
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(a.v)));
}
struct Two { int16_t x[2]; };
inline I dot2(I a, I w, const int16_t* x) {  // a + sum over 2 words of w * x
  asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(a.v) : "v"(w.v), "m"(*reinterpret_cast<const Two*>(x)));
  return a;
}

// The largest of |p[0]|, |p[1]|, ...; NaN counts as larger than all numbers; `count` is a multiple of 16.
inline float magnitude(const float* p, int count) {
  __m512i most = _mm512_setzero_si512();
  const __m512i sign = _mm512_set1_epi32(0x7fffffff);
  for (int i = 0; i < count; i += 16) most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_loadu_si512(p + i), sign));
  const int32_t bits = _mm512_reduce_max_epi32(most);
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
// Rounds p * scale to bytes; returns their sum.
inline int32_t to_bytes(int8_t* out, const float* p, float scale, int count) {
  __m512i total = _mm512_setzero_si512();
  const __m512 by = _mm512_set1_ps(scale);
  for (int i = 0; i < count; i += 16) {
    const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(p + i), by));
    total = _mm512_add_epi32(total, q);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm512_cvtsepi32_epi8(q));
  }
  return _mm512_reduce_add_epi32(total);
}

}  // namespace CHATGLM_ISA
