// What every instruction set implements, and the memory that passes between the parts.
#pragma once
#include <cstdint>

// Always inlined: every instruction set compiles this header with flags of its own, and a linker keeps one copy of a
// function, which might be one that this CPU cannot run.
#define CHATGLM_INLINE [[gnu::always_inline]] inline

namespace chatglm {

// A weight: packed integers of 4 or 8 bits (chatglm/kernels/packing.py has the layout), or plain rows of 16 or 32.
enum class Kind : int32_t { int4 = 4, int8 = 8, half = 16, brain = 17, single = 32 };

struct Weight {
  const void* data;
  const uint16_t* scales;  // [tile][group][16]; integers only
  int64_t rows, columns;
  int64_t padded;  // columns with padding, a multiple of `block`; plain weights have none
  int32_t group;   // columns that share a scale; 0: the whole row
  int32_t block;   // inputs that share a scale
  Kind kind;

  CHATGLM_INLINE bool integer() const { return kind == Kind::int4 || kind == Kind::int8; }
  CHATGLM_INLINE int64_t tiles() const { return (rows + 15) / 16; }
  CHATGLM_INLINE int64_t tile_bytes() const {  // of 16 rows
    return integer() ? padded * 16 * static_cast<int>(kind) / 8 : columns * 16 * (kind == Kind::single ? 4 : 2);
  }
};

// Inputs of a linear layer: bytes with a scale and a sum for each row and block; or floats, for plain weights.
//
// Weights are stored as q + 8 or q + 128, so a product is off by 8 or 128 times the sum of the inputs of a block: `offsets`
// has what makes up for it.
//
// The kernels go through the bytes of a few rows at once, so these lie side by side: rows are cut into `parts`, and the M
// rows of a part that begins at row r are [padded / 8][2][M][4] bytes from bytes + r * padded on, with scales and
// offsets [blocks][M] from scales + r * blocks and offsets + r * blocks on. The bytes of several rows, which do not stay in
// the first-level cache beside the weights, lie from the last eight columns to the first: a second stream that ascends makes
// CPUs prefetch less of the weights (on a Zen 4 they are read at 87 to 90 % of the memory's bandwidth instead of 99 %).
struct Inputs {
  const int8_t* bytes;
  const float* scales;
  const int32_t* offsets;
  const float* floats;  // [rows][stride]
  int64_t rows, stride;
  int most, few;  // rows of a part; up to `few` they are one part

  CHATGLM_INLINE int64_t parts() const { return rows <= few ? 1 : (rows + most - 1) / most; }
  CHATGLM_INLINE int64_t first(int64_t part) const { return rows * part / parts(); }
  CHATGLM_INLINE int64_t part_of(int64_t row) const { return ((row + 1) * parts() - 1) / rows; }
};

enum class Store : int32_t { single, half, byte, word };  // of keys and values

// Keys and values of one sequence in one layer: pages of `tokens` tokens each. A page holds, for each group, keys as
// [tokens / 16][channels][16], then, for each group, values as [tokens][channels]. Bytes and words stand in pairs, as an
// instruction multiplies and adds them, keys as [tokens / 16][channels / 2][16][2] and values as [tokens / 2][channels][2];
// float scales of the keys, [groups][tokens], and of the values, the same, follow.
struct Pages {
  const int64_t* addresses;  // of the sequence's pages
  int64_t offset;            // of this layer in a page, in bytes
  int32_t tokens, groups, channels;
  Store store;
};

constexpr int kMostQueries = 16;  // that attend together, on any CPU
constexpr int kWidest = 256;  // channels of a head, at most
constexpr int kWord = 8191;  // the largest of the words: what they are multiplied with has the rest of 32 bits

struct Kernels {
  const char* name;
  int queries;  // that attend together
  int rows, few;  // of a part of `Inputs`
  Store store;  // of two bytes, what it attends to faster: halves or words
  // One row of floats to bytes. `columns` floats are there, up to `padded` is filled.
  void (*quantize)(int8_t* bytes, float* scales, int32_t* sums, const float* x, int64_t columns, int64_t padded, int block);
  // Tiles `first` to `last` of inputs times weight: out[row * stride + 16 * (tile - first) + lane], which gets set or added to.
  void (*linear)(const Weight&, const Inputs&, int64_t first, int64_t last, float* out, int64_t stride, bool add);
  // x / sqrt(mean(x^2) + eps) * weight
  void (*rms_norm)(float* out, const float* x, const float* weight, float eps, int64_t count);
  // (x - mean) / sqrt(variance + eps) * weight + bias
  void (*layer_norm)(float* out, const float* x, const float* weight, const float* bias, float eps, int64_t count);
  void (*swiglu)(float* out, const float* gate, const float* up, int64_t count);
  void (*gelu)(float* x, int64_t count);
  // Channels (a, b) = (pairs[2i], pairs[2i+1]) of a head turn by the angle whose cosine and sine are i-th.
  void (*rotate)(float* head, const int32_t* pairs, const float* cosines, const float* sines, int count);
  void (*remember)(const Pages&, int64_t position, int group, const float* key, const float* value);
  // `count` queries, [count][channels] and scaled, over the first visible[i] tokens; contexts to out[i].
  void (*attend)(const Pages&, int group, const float* const* queries, const int32_t* visible, int count, float* const* out);
  void (*to_half)(uint16_t* out, const float* x, int64_t count);
  void (*from_half)(float* out, const uint16_t* x, int64_t count);
  void (*from_brain)(float* out, const uint16_t* x, int64_t count);
};

// Those that are compiled in (CMakeLists.txt); `supported` in api.cpp says which of them this CPU can run.
extern const Kernels portable, avx2, avx_vnni, avx512, neon;

}  // namespace chatglm
