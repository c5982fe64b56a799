// Sixteen lanes as four NEON registers, with the dot product of ARMv8.2.
#pragma once
#include <arm_neon.h>

#include <cmath>
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
constexpr auto kStore = chatglm::Store::half;  // NEON has no instruction that multiplies pairs of words and adds

struct F { float32x4_t v[4]; };
struct I { int32x4_t v[4]; };
struct U { uint8x16_t v[4]; };

#define CHATGLM_EACH(type, expression)           \
  type r;                                        \
  for (int i = 0; i < 4; ++i) r.v[i] = expression; \
  return r

inline F set(float x) { CHATGLM_EACH(F, vdupq_n_f32(x)); }
inline F zero() { return set(0.0f); }
inline F load(const float* p) { CHATGLM_EACH(F, vld1q_f32(p + 4 * i)); }
inline void store(float* p, F a) { for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]); }
inline F operator+(F a, F b) { CHATGLM_EACH(F, vaddq_f32(a.v[i], b.v[i])); }
inline F operator-(F a, F b) { CHATGLM_EACH(F, vsubq_f32(a.v[i], b.v[i])); }
inline F operator*(F a, F b) { CHATGLM_EACH(F, vmulq_f32(a.v[i], b.v[i])); }
inline F operator/(F a, F b) { CHATGLM_EACH(F, vdivq_f32(a.v[i], b.v[i])); }
inline F fma(F a, F b, F c) { CHATGLM_EACH(F, vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
inline F times(F x, const float* p) { return x * set(*p); }
inline F max(F a, F b) { CHATGLM_EACH(F, vmaxq_f32(a.v[i], b.v[i])); }
inline F min(F a, F b) { CHATGLM_EACH(F, vminq_f32(a.v[i], b.v[i])); }
inline F round(F a) { CHATGLM_EACH(F, vrndnq_f32(a.v[i])); }
inline float sum(F a) { return vaddvq_f32(vaddq_f32(vaddq_f32(a.v[0], a.v[1]), vaddq_f32(a.v[2], a.v[3]))); }
inline float largest(F a) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3]))); }
inline F power_of_two(F n) {
  CHATGLM_EACH(F, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v[i]), vdupq_n_s32(127)), 23)));
}
inline F load_half(const uint16_t* p) { CHATGLM_EACH(F, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)))); }
inline void store_half(uint16_t* p, F a) {
  for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
}
inline F load_brain(const uint16_t* p) { CHATGLM_EACH(F, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16))); }

inline I iset(int32_t x) { CHATGLM_EACH(I, vdupq_n_s32(x)); }
inline I izero() { return iset(0); }
inline I operator+(I a, I b) { CHATGLM_EACH(I, vaddq_s32(a.v[i], b.v[i])); }
inline F to_float(I a) { CHATGLM_EACH(F, vcvtq_f32_s32(a.v[i])); }
inline U load_bytes(const uint8_t* p) { CHATGLM_EACH(U, vld1q_u8(p + 16 * i)); }
inline const int8_t* for_tiles(const int8_t* p) { return p; }
inline void load_nibbles(const uint8_t* p, U& low, U& high) {
  for (int i = 0; i < 4; ++i) {
    const uint8x16_t both = vld1q_u8(p + 16 * i);
    low.v[i] = vandq_u8(both, vdupq_n_u8(15));
    high.v[i] = vshrq_n_u8(both, 4);
  }
}
inline void load_unshifted(const uint8_t* p, U& low, U& high) { load_nibbles(p, low, high); }
inline I unshifted(I a) { return a; }
inline int32_t four(const int8_t* p) { int32_t x; std::memcpy(&x, p, 4); return x; }
// sdot takes signed bytes. 4-bit values are the same as signed and as unsigned bytes. From 8-bit values, 128 is
// subtracted, and 128 times the sum of x is added again. So the result is that of unsigned bytes.
inline I dot4(I a, U w, const int8_t* x) {
  const int8x16_t y = vreinterpretq_s8_s32(vdupq_n_s32(four(x)));
  CHATGLM_EACH(I, vdotq_s32(a.v[i], vreinterpretq_s8_u8(w.v[i]), y));
}
inline I dot8(I a, U w, const int8_t* x) {
  const int8x16_t y = vreinterpretq_s8_s32(vdupq_n_s32(four(x)));
  const int32x4_t back = vshlq_n_s32(vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(1), y), 7);
  CHATGLM_EACH(I, vaddq_s32(back, vdotq_s32(a.v[i], vreinterpretq_s8_u8(veorq_u8(w.v[i], vdupq_n_u8(128))), y)));
}
struct Pairs { int16x8_t v[4]; };
inline Pairs load_pairs(const int16_t* p) { CHATGLM_EACH(Pairs, vld1q_s16(p + 8 * i)); }
inline Pairs load_pairs(const int8_t* p) { CHATGLM_EACH(Pairs, vmovl_s8(vld1_s8(p + 8 * i))); }
inline void store_words(int16_t* p, F a) {
  for (int i = 0; i < 4; ++i) vst1_s16(p + 4 * i, vqmovn_s32(vcvtnq_s32_f32(a.v[i])));
}
inline I dot2(I a, Pairs w, const int16_t* x) {
  int32_t two;
  std::memcpy(&two, x, 4);
  const int16x4_t y = vreinterpret_s16_s32(vdup_n_s32(two));
  CHATGLM_EACH(I, vaddq_s32(a.v[i], vpaddq_s32(vmull_s16(vget_low_s16(w.v[i]), y), vmull_s16(vget_high_s16(w.v[i]), y))));
}
#undef CHATGLM_EACH

inline float magnitude(const float* p, int count) {
  uint32x4_t most = vdupq_n_u32(0);
  for (int i = 0; i < count; i += 4)
    most = vmaxq_u32(most, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(p + i)), vdupq_n_u32(0x7fffffff)));
  const uint32_t bits = vmaxvq_u32(most);
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline int32_t to_bytes(int8_t* out, const float* p, float scale, int count) {
  int32x4_t total = vdupq_n_s32(0);
  for (int i = 0; i < count; i += 8) {
    const int32x4_t q = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(p + i), scale));
    const int32x4_t r = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(p + i + 4), scale));
    total = vaddq_s32(total, vaddq_s32(q, r));
    vst1_s8(out + i, vqmovn_s16(vcombine_s16(vqmovn_s32(q), vqmovn_s32(r))));
  }
  return vaddvq_s32(total);
}

}  // namespace CHATGLM_ISA
