// The functions that every instruction set implements, and the structures that they work on.
#pragma once
#include <cstdint>

// Always inlined: every instruction set compiles this header with flags of its own. A linker keeps only one copy of a
// function that is not inlined, and this CPU might not be able to run that copy.
#define CHATGLM_INLINE [[gnu::always_inline]] inline

namespace chatglm {

// A weight: packed integers of 4 or 8 bits (layout: chatglm/kernels/packing.py), or plain rows of 16-bit or 32-bit
// floats.
enum class Kind : int32_t { int4 = 4, int8 = 8, half = 16, brain = 17, single = 32 };

struct Weight {
  const void* data;
  const uint16_t* scales;  // [tile][group][16]; only for integers
  int64_t rows, columns;
  int64_t padded;  // columns with padding, a multiple of `block`; plain weights have none
  int32_t group;   // columns that share a scale; 0: the whole row
  int32_t block;   // inputs that share a scale
  Kind kind;

  CHATGLM_INLINE bool integer() const { return kind == Kind::int4 || kind == Kind::int8; }
  CHATGLM_INLINE int64_t tiles() const { return (rows + 15) / 16; }
  CHATGLM_INLINE int64_t tile_bytes() const {  // bytes of a tile of 16 rows
    return integer() ? padded * 16 * static_cast<int>(kind) / 8 : columns * 16 * (kind == Kind::single ? 4 : 2);
  }
};

// Inputs of a linear layer: bytes, with a scale and an offset for each row and block; or floats, for plain weights.
//
// Weights are stored as q + 8 or q + 128, so the sum of the products of a block is too large by 8 or 128 times the sum
// of the block's inputs. `offsets` holds this difference, with a minus sign.
//
// The kernels process a few rows at a time, so the bytes of these rows are interleaved. Rows are divided into `parts`.
// A part of M rows that begins at row r consists of: bytes [padded / 8][2][M][4], from bytes + r * padded; scales and
// offsets [blocks][M], from scales + r * blocks and offsets + r * blocks. With more than one row in a part, the bytes
// are stored from the last eight columns to the first: they do not stay in the first-level cache beside the weights,
// and with a second ascending stream CPUs prefetch less of the weights (a Zen 4 then reads the weights at 87 to 90 % of
// the memory bandwidth, instead of 99 %).
struct Inputs {
  const int8_t* bytes;
  const float* scales;
  const int32_t* offsets;
  const float* floats;  // [rows][stride]
  int64_t rows, stride;
  int most, few;  // the most rows of a part; up to `few` rows are one part

  CHATGLM_INLINE int64_t parts() const { return rows <= few ? 1 : (rows + most - 1) / most; }
  CHATGLM_INLINE int64_t first(int64_t part) const { return rows * part / parts(); }
  CHATGLM_INLINE int64_t part_of(int64_t row) const { return ((row + 1) * parts() - 1) / rows; }
};

enum class Store : int32_t { single, half, byte, word };  // types of stored keys and values

// Keys and values of one sequence in one layer, in pages of `tokens` tokens each. A page holds, for each group, the
// keys as [tokens / 16][channels][16], then, for each group, the values as [tokens][channels]. Bytes and words are
// stored in pairs, because one instruction multiplies two and adds: keys as [tokens / 16][channels / 2][16][2], values
// as [tokens / 2][channels][2]. They are followed by the float scales of the keys, [groups][tokens], and those of the
// values, likewise.
struct Pages {
  const int64_t* addresses;  // addresses of the sequence's pages
  int64_t offset;            // where this layer begins in a page, in bytes
  int32_t tokens, groups, channels;
  Store store;
};

constexpr int kMostQueries = 16;  // the most queries that are processed together, on any CPU
constexpr int kWidest = 256;  // the most channels of a head
constexpr int kWord = 8191;  // the largest word; its factors are limited so that sums of products fit into 32 bits

struct Kernels {
  const char* name;
  int queries;  // queries that are processed together
  int rows, few;  // `most` and `few` of `Inputs`
  Store store;  // the two-byte type that it handles faster: half or word
  // Quantises a row of `columns` floats to bytes, and fills up with zeros to `padded`.
  void (*quantize)(int8_t* bytes, float* scales, int32_t* sums, const float* x, int64_t columns, int64_t padded, int block);
  // Multiplies inputs by tiles `first` to `last`: sets out[row * stride + 16 * (tile - first) + lane], or adds to it.
  void (*linear)(const Weight&, const Inputs&, int64_t first, int64_t last, float* out, int64_t stride, bool add);
  // x / sqrt(mean(x^2) + eps) * weight
  void (*rms_norm)(float* out, const float* x, const float* weight, float eps, int64_t count);
  // (x - mean) / sqrt(variance + eps) * weight + bias
  void (*layer_norm)(float* out, const float* x, const float* weight, const float* bias, float eps, int64_t count);
  void (*swiglu)(float* out, const float* gate, const float* up, int64_t count);
  void (*gelu)(float* x, int64_t count);
  // Rotates channels (pairs[2i], pairs[2i+1]) of a head by angle i, given as cosine and sine.
  void (*rotate)(float* head, const int32_t* pairs, const float* cosines, const float* sines, int count);
  void (*remember)(const Pages&, int64_t position, int group, const float* key, const float* value);
  // Attention of `count` queries, [count][channels], already scaled, over the first visible[i] tokens. The
  // contexts are written to out[i].
  void (*attend)(const Pages&, int group, const float* const* queries, const int32_t* visible, int count, float* const* out);
  void (*to_half)(uint16_t* out, const float* x, int64_t count);
  void (*from_half)(float* out, const uint16_t* x, int64_t count);
  void (*from_brain)(float* out, const uint16_t* x, int64_t count);
};

// The variants that may be compiled in (CMakeLists.txt). `supported` in api.cpp tells which of them this CPU can run.
extern const Kernels portable, avx2, avx_vnni, avx512, neon;

}  // namespace chatglm
