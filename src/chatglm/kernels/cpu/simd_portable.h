// Sixteen lanes in plain C++, which every compiler accepts (and may vectorise).
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels.h"

namespace CHATGLM_ISA {

constexpr int kRows = 2;
constexpr int kTiles = 1;
constexpr int kPlainRows = 1;
constexpr int kFewRows = 4;
constexpr int kProductsPerLine = 2;
constexpr int kQueries = 4;
constexpr auto kStore = chatglm::Store::word;

struct F { float v[16]; };
struct I { int32_t v[16]; };
struct U { uint8_t v[64]; };

#define CHATGLM_EACH(type, expression)              \
  type r;                                           \
  for (int i = 0; i < 16; ++i) r.v[i] = expression; \
  return r

inline F set(float x) { CHATGLM_EACH(F, x); }
inline F zero() { return set(0.0f); }
inline F load(const float* p) { F r; std::memcpy(r.v, p, 64); return r; }
inline void store(float* p, F a) { std::memcpy(p, a.v, 64); }
inline F operator+(F a, F b) { CHATGLM_EACH(F, a.v[i] + b.v[i]); }
inline F operator-(F a, F b) { CHATGLM_EACH(F, a.v[i] - b.v[i]); }
inline F operator*(F a, F b) { CHATGLM_EACH(F, a.v[i] * b.v[i]); }
inline F operator/(F a, F b) { CHATGLM_EACH(F, a.v[i] / b.v[i]); }
inline F fma(F a, F b, F c) { CHATGLM_EACH(F, a.v[i] * b.v[i] + c.v[i]); }
inline F times(F x, const float* p) { return x * set(*p); }
inline F max(F a, F b) { CHATGLM_EACH(F, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
inline F min(F a, F b) { CHATGLM_EACH(F, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
inline F round(F a) { CHATGLM_EACH(F, std::nearbyint(a.v[i])); }
inline float sum(F a) { float s = 0; for (float x : a.v) s += x; return s; }
inline float largest(F a) { float s = a.v[0]; for (float x : a.v) s = x > s ? x : s; return s; }
inline F power_of_two(F n) { CHATGLM_EACH(F, std::ldexp(1.0f, static_cast<int>(n.v[i]))); }

inline float from_bits(uint32_t bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 0x3ff;
  if (exponent == 0) {
    const float x = std::ldexp(static_cast<float>(fraction), -24);
    return sign ? -x : x;
  }
  if (exponent == 31) return from_bits(sign | 0x7f800000u | (fraction << 13));
  return from_bits(sign | ((exponent + 112) << 23) | (fraction << 13));
}
inline uint16_t float_to_half(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000u) return sign | 0x7e00;
  if (bits >= 0x477ff000u) return sign | 0x7c00;  // 65520 and above round to infinity
  if (bits < 0x38800000u)                         // subnormal: in units of 2^-24
    return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(from_bits(bits), 24)));
  const uint32_t rounded = bits + 0xfff + ((bits >> 13) & 1);  // to nearest, ties to even
  return sign | static_cast<uint16_t>((rounded - 0x38000000u) >> 13);
}
inline F load_half(const uint16_t* p) { CHATGLM_EACH(F, half_to_float(p[i])); }
inline void store_half(uint16_t* p, F a) { for (int i = 0; i < 16; ++i) p[i] = float_to_half(a.v[i]); }
inline F load_brain(const uint16_t* p) { CHATGLM_EACH(F, from_bits(static_cast<uint32_t>(p[i]) << 16)); }

inline I iset(int32_t x) { CHATGLM_EACH(I, x); }
inline I izero() { return iset(0); }
inline I operator+(I a, I b) { CHATGLM_EACH(I, a.v[i] + b.v[i]); }
inline F to_float(I a) { CHATGLM_EACH(F, static_cast<float>(a.v[i])); }
inline U load_bytes(const uint8_t* p) { U r; std::memcpy(r.v, p, 64); return r; }
inline const int8_t* for_tiles(const int8_t* p) { return p; }
inline void load_nibbles(const uint8_t* p, U& low, U& high) {
  for (int i = 0; i < 64; ++i) { low.v[i] = p[i] & 15; high.v[i] = p[i] >> 4; }
}
inline void load_unshifted(const uint8_t* p, U& low, U& high) { load_nibbles(p, low, high); }
inline I unshifted(I a) { return a; }
inline I dot4(I a, U w, const int8_t* x) {
  CHATGLM_EACH(I, a.v[i] + w.v[4 * i] * x[0] + w.v[4 * i + 1] * x[1] + w.v[4 * i + 2] * x[2] + w.v[4 * i + 3] * x[3]);
}
inline I dot8(I a, U w, const int8_t* x) { return dot4(a, w, x); }
struct Pairs { int16_t v[32]; };
inline Pairs load_pairs(const int16_t* p) { Pairs r; std::memcpy(r.v, p, 64); return r; }
inline Pairs load_pairs(const int8_t* p) { Pairs r; for (int i = 0; i < 32; ++i) r.v[i] = p[i]; return r; }
inline void store_words(int16_t* p, F a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int16_t>(std::nearbyint(a.v[i]));
}
inline I dot2(const I& a, const Pairs& w, const int16_t* x) {
  int32_t products[32];
  for (int i = 0; i < 32; i += 2) {
    products[i] = w.v[i] * x[0];
    products[i + 1] = w.v[i + 1] * x[1];
  }
  CHATGLM_EACH(I, a.v[i] + products[2 * i] + products[2 * i + 1]);
}
#undef CHATGLM_EACH

inline float magnitude(const float* p, int count) {
  uint32_t most = 0;
  for (int i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, p + i, 4);
    bits &= 0x7fffffff;
    most = bits > most ? bits : most;
  }
  return from_bits(most);
}
inline int32_t to_bytes(int8_t* out, const float* p, float scale, int count) {
  int32_t total = 0;
  for (int i = 0; i < count; ++i) {
    const int32_t q = static_cast<int32_t>(std::nearbyint(p[i] * scale));
    out[i] = static_cast<int8_t>(q);
    total += q;
  }
  return total;
}

}  // namespace CHATGLM_ISA
