// The kernels, written once, in terms of the sixteen lanes of a simd_*.h. Each instruction set compiles this file in a
// namespace of its own, with flags of its own. So nothing here may come from a header that other files share: a linker
// keeps only one copy of an inline function, and this CPU might not be able to run that copy.
#include "kernels.h"

namespace chatglm {
namespace {
using namespace CHATGLM_ISA;

#if defined(__clang__)
#define CHATGLM_PRAGMA(text) _Pragma(#text)
#define CHATGLM_UNROLL(times) CHATGLM_PRAGMA(unroll times)
#else
#define CHATGLM_PRAGMA(text) _Pragma(#text)
#define CHATGLM_UNROLL(times) CHATGLM_PRAGMA(GCC unroll times)
#endif

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

inline F exponential(F x) {  // e^x = 2^n e^r with |r| <= ln 2 / 2; Taylor series up to r^6, relative error below 2e-7
  x = min(max(x, set(-87.0f)), set(88.0f));
  const F n = round(x * set(1.44269504089f));
  const F r = fma(n, set(2.12194440e-4f), fma(n, set(-0.693359375f), x));  // ln 2 as a sum of two parts, the first one exact
  F p = set(1.0f / 720);
  p = fma(p, r, set(1.0f / 120));
  p = fma(p, r, set(1.0f / 24));
  p = fma(p, r, set(1.0f / 6));
  p = fma(p, r, set(0.5f));
  p = fma(p, r, set(1.0f));
  p = fma(p, r, set(1.0f));
  return p * power_of_two(n);
}

// Quantising inputs

// The factor that scales numbers up to `most` to integers up to `levels`; 0 if `most` is 0 or the factor not finite.
inline float steps(float levels, float most) {
  const float by = most > 0 ? levels / most : 0.0f;
  return most <= 3.4028234e38f && by <= 3.4028234e38f ? by : 0.0f;
}

void quantize(int8_t* bytes, float* scales, int32_t* sums, const float* x, int64_t columns, int64_t padded, int block) {
  float tail[128];
  for (int64_t start = 0; start < padded; start += block) {
    const float* from = x + start;
    if (start + block > columns) {
      for (int i = 0; i < block; ++i) tail[i] = start + i < columns ? from[i] : 0.0f;
      from = tail;
    }
    const float most = magnitude(from, block), inverse = steps(127, most);
    *scales++ = most / 127.0f;  // NaN and infinity are passed on in the scale
    if (inverse == 0.0f) {
      for (int i = 0; i < block; ++i) bytes[start + i] = 0;
      *sums++ = 0;
    } else {
      *sums++ = to_bytes(bytes + start, from, inverse, block);
    }
  }
}

// Linear layers over integers

// Prefetching of a weight. With several tiles, which are in the second-level cache, each cache line is prefetched
// `kAhead` bytes ahead. A single tile comes from memory. If there is little work for each line, the CPU's own
// prefetching is fastest, but it stops at the end of a page: so one line of each page is prefetched in advance, which
// also loads the page's address translation. If there is more work for each line, the CPU does not prefetch far enough:
// so each line is prefetched, into the second-level cache, because the inputs of several rows fill the first-level
// cache.
constexpr int kAhead = 1536, kFarAhead = 6656, kPage = 4096, kPagesAhead = 4 * kPage;

template <int M, int T, int BITS>
constexpr bool reads_pages = T == 1 && M * 8 / BITS <= kProductsPerLine;  // a line takes 8 / BITS products for each row

template <int M, int T, int BITS>
inline void prefetch(const uint8_t* w) {
  if constexpr (T > 1) __builtin_prefetch(w + kAhead);
  else if constexpr (!reads_pages<M, T, BITS>) __builtin_prefetch(w + kFarAhead, 0, 2);
}

template <int M, int T, int BITS>
inline void prefetch_page(const uint8_t* w, uintptr_t bytes) {  // w: where these bytes begin
  if constexpr (reads_pages<M, T, BITS>) {
    const auto inside = reinterpret_cast<uintptr_t>(w) % kPage;
    if (inside < bytes) __builtin_prefetch(w - inside + kPagesAhead, 0, 2);
  }
}

template <int T>
inline auto input_for(const int8_t* x) {
  if constexpr (T > 1) return for_tiles(x);
  else return x;
}

template <int M, int T, int BITS, int BLOCK>
inline void tile_product(const uint8_t* w, int64_t tile_bytes, const uint16_t* s, int64_t tile_scales, int64_t group_step,
                         const int8_t* x, const float* xs, const int32_t* offsets, int64_t blocks, float* result) {
  F f[M][T];
  constexpr int step = M > 1 ? -8 * M : 8;  // see `Inputs`
  if (M > 1) x += (blocks * BLOCK - 8) * M;
  constexpr bool two_chains = M * T < 8;  // a product takes several cycles, so several independent sums are needed
  for (int m = 0; m < M; ++m)
    for (int t = 0; t < T; ++t) f[m][t] = zero();
  for (int64_t b = 0; b < blocks; ++b) {
    prefetch_page<M, T, BITS>(w, BLOCK * 2 * BITS);
    I a[M][T], c[M][T];
    for (int m = 0; m < M; ++m)
      for (int t = 0; t < T; ++t) {
        a[m][t] = iset(offsets[m]);
        if (two_chains) c[m][t] = izero();
      }
    CHATGLM_UNROLL(4)
    for (int k = 0; k < BLOCK; k += 8) {
      if (BITS == 4) {
        U low[T], high[T];
        for (int t = 0; t < T; ++t) {
          load_nibbles(w + t * tile_bytes, low[t], high[t]);
          prefetch<M, T, BITS>(w + t * tile_bytes);
        }
        w += 64;
        for (int m = 0; m < M; ++m) {
          const auto input = input_for<T>(x + 4 * m);
          for (int t = 0; t < T; ++t) a[m][t] = dot4(a[m][t], low[t], input);
        }
        for (int m = 0; m < M; ++m) {
          const auto input = input_for<T>(x + 4 * (M + m));
          for (int t = 0; t < T; ++t) {
            I& sum = two_chains ? c[m][t] : a[m][t];
            sum = dot4(sum, high[t], input);
          }
        }
      } else {
        CHATGLM_UNROLL(2)
        for (int half = 0; half < 2; ++half, w += 64) {
          U bytes[T];
          for (int t = 0; t < T; ++t) {
            bytes[t] = load_bytes(w + t * tile_bytes);
            prefetch<M, T, BITS>(w + t * tile_bytes);
          }
          for (int m = 0; m < M; ++m) {
            const auto input = input_for<T>(x + 4 * (half * M + m));
            for (int t = 0; t < T; ++t) {
              I& sum = two_chains && half ? c[m][t] : a[m][t];
              sum = dot8(sum, bytes[t], input);
            }
          }
        }
      }
      x += step;
    }
    for (int t = 0; t < T; ++t) {
      const F scale = load_half(s + t * tile_scales);
      for (int m = 0; m < M; ++m) {
        const I total = two_chains ? a[m][t] + c[m][t] : a[m][t];
        f[m][t] = fma(to_float(total), times(scale, xs + m), f[m][t]);
      }
    }
    s += group_step;
    xs += M;
    offsets += M;
  }
  for (int m = 0; m < M; ++m)
    for (int t = 0; t < T; ++t) store(result + 16 * (T * m + t), f[m][t]);
}

// One row times one tile of 4 bits. It does as little work per byte as possible, so that reading memory is the only
// limit.
template <int BLOCK>
inline void row_product(const uint8_t* w, const uint16_t* s, int64_t group_step, const int8_t* x, const float* xs,
                        const int32_t* offsets, int64_t blocks, float* result) {
  F f = zero();
  for (int64_t b = 0; b < blocks; ++b) {
    prefetch_page<1, 1, 4>(w, BLOCK * 8);
    I low = iset(offsets[b]), more_low = izero(), high = izero(), more_high = izero();
    CHATGLM_UNROLL(4)
    for (int k = 0; k < BLOCK; k += 16, w += 128) {
      U even, odd;
      load_unshifted(w, even, odd);
      low = dot4(low, even, x + k);
      high = dot4(high, odd, x + k + 4);
      load_unshifted(w + 64, even, odd);
      more_low = dot4(more_low, even, x + k + 8);
      more_high = dot4(more_high, odd, x + k + 12);
    }
    const I total = low + more_low + unshifted(high + more_high);
    f = fma(to_float(total), times(load_half(s), xs + b), f);
    s += group_step;
    x += BLOCK;
  }
  store(result, f);
}

template <int M, int T, int BITS, int BLOCK>
void products(const Weight& weight, const Inputs& in, int64_t row, int64_t tile, float* out, int64_t stride, bool add) {
  const int64_t blocks = weight.padded / BLOCK;
  const int64_t tile_bytes = weight.padded * 16 * BITS / 8;
  const int64_t tile_scales = 16 * (weight.group ? blocks : 1);
  alignas(64) float result[M][T][16];
  const auto* data = static_cast<const uint8_t*>(weight.data) + tile * tile_bytes;
  const uint16_t* scales = weight.scales + tile * tile_scales;
  const int64_t group_step = weight.group ? 16 : 0;
  const int8_t* x = in.bytes + row * weight.padded;
  const float* xs = in.scales + row * blocks;
  const int32_t* offsets = in.offsets + row * blocks;
  if constexpr (M == 1 && T == 1 && BITS == 4)
    row_product<BLOCK>(data, scales, group_step, x, xs, offsets, blocks, result[0][0]);
  else
    tile_product<M, T, BITS, BLOCK>(data, tile_bytes, scales, tile_scales, group_step, x, xs, offsets, blocks, result[0][0]);
  for (int t = 0; t < T; ++t) {
    const int64_t lanes = smaller(16, weight.rows - 16 * (tile + t));
    for (int m = 0; m < M; ++m) {
      float* to = out + (row + m) * stride + 16 * t;
      if (lanes == 16) {
        const F made = load(result[m][t]);
        store(to, add ? load(to) + made : made);
      } else {
        for (int64_t i = 0; i < lanes; ++i) to[i] = add ? to[i] + result[m][t][i] : result[m][t][i];
      }
    }
  }
}

using Products = void (*)(const Weight&, const Inputs&, int64_t row, int64_t tile, float* out, int64_t stride, bool add);

template <int M, int T, int BITS>
Products products_of(int rows, int block) {  // for `rows` rows, at most M
  if constexpr (M > 1)
    if (rows < M) return products_of<M - 1, T, BITS>(rows, block);
  return block == 32 ? products<M, T, BITS, 32> : block == 64 ? products<M, T, BITS, 64> : products<M, T, BITS, 128>;
}

template <int BITS>
void integer_linear(const Weight& weight, const Inputs& in, int64_t first, int64_t last, float* out, int64_t stride, bool add) {
  // With one part, memory is the limit. It is read fastest as one stream: tile by tile, once.
  if (in.parts() == 1) {
    const Products run = products_of<(kFewRows > kRows ? kFewRows : kRows), 1, BITS>(static_cast<int>(in.rows), weight.block);
    for (int64_t tile = first; tile < last; ++tile) run(weight, in, 0, tile, out + 16 * (tile - first), stride, add);
    return;
  }
  const int64_t parts = in.parts();
  const int least = static_cast<int>(in.rows / parts);  // a part has this many rows, or one more
  Products side[2], single[2];
  for (int more = 0; more < 2; ++more) {
    side[more] = products_of<kRows, kTiles, BITS>(least + more, weight.block);
    single[more] = products_of<kRows, 1, BITS>(least + more, weight.block);
  }
  // This many tiles stay in the second-level cache while all rows are processed.
  int64_t resident = (384 << 10) / weight.tile_bytes() / kTiles * kTiles;
  if (resident < kTiles) resident = kTiles;
  for (int64_t start = first; start < last; start += resident) {
    const int64_t end = smaller(start + resident, last);
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t row = in.first(part);
      const int more = static_cast<int>(in.first(part + 1) - row - least);
      int64_t tile = start;
      for (; tile + kTiles <= end; tile += kTiles) side[more](weight, in, row, tile, out + 16 * (tile - first), stride, add);
      for (; tile < end; ++tile) single[more](weight, in, row, tile, out + 16 * (tile - first), stride, add);
    }
  }
}

// Linear layers over plain (floating-point) rows

struct Half { using type = uint16_t; static F get(const uint16_t* p) { return load_half(p); } };
struct Brain { using type = uint16_t; static F get(const uint16_t* p) { return load_brain(p); } };
struct Single { using type = float; static F get(const float* p) { return load(p); } };

inline float plain(const uint16_t* p, Half) { float x[16]; uint16_t h[16] = {*p}; store(x, load_half(h)); return x[0]; }
inline float plain(const uint16_t* p, Brain) { float x[16]; uint16_t h[16] = {*p}; store(x, load_brain(h)); return x[0]; }
inline float plain(const float* p, Single) { return *p; }

// R rows of the weight times M rows of inputs. Sums have the same order for any R and M, so the result for an input
// does not depend on the rest of the batch.
template <class Of, int R, int M>
void rows_product(const typename Of::type* w, int64_t columns, const float* x, int64_t x_stride, float* out, int64_t stride, bool add) {
  F sums[R][M];
  for (int r = 0; r < R; ++r)
    for (int m = 0; m < M; ++m) sums[r][m] = zero();
  int64_t k = 0;
  for (; k + 16 <= columns; k += 16) {
    F row[R];
    for (int r = 0; r < R; ++r) {
      __builtin_prefetch(w + (R + r) * columns + k, 0, 2);
      row[r] = Of::get(w + r * columns + k);
    }
    for (int m = 0; m < M; ++m) {
      const F input = load(x + m * x_stride + k);
      for (int r = 0; r < R; ++r) sums[r][m] = fma(row[r], input, sums[r][m]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int m = 0; m < M; ++m) {
      float total = sum(sums[r][m]);
      for (int64_t i = k; i < columns; ++i) total += plain(w + r * columns + i, Of()) * x[m * x_stride + i];
      float& to = out[m * stride + r];
      to = add ? to + total : total;
    }
}

template <class Of, int M>
void rows_products(const typename Of::type* w, int64_t columns, int64_t rows, const float* x, int64_t x_stride, float* out,
                   int64_t stride, bool add) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) rows_product<Of, 4, M>(w + row * columns, columns, x, x_stride, out + row, stride, add);
  for (; row < rows; ++row) rows_product<Of, 1, M>(w + row * columns, columns, x, x_stride, out + row, stride, add);
}

template <class Of>
using RowsProducts = void (*)(const typename Of::type*, int64_t, int64_t, const float*, int64_t, float*, int64_t, bool);

template <class Of, int M = kPlainRows>
RowsProducts<Of> rows_products_of(int64_t rows) {  // for `rows` inputs, at most M
  if constexpr (M > 1)
    if (rows < M) return rows_products_of<Of, M - 1>(rows);
  return rows_products<Of, M>;
}

template <class Of>
void plain_linear(const Weight& weight, const Inputs& in, int64_t first, int64_t last, float* out, int64_t stride, bool add) {
  const auto* data = static_cast<const typename Of::type*>(weight.data);
  const int64_t begin = 16 * first, end = smaller(16 * last, weight.rows);
  // This many rows stay in the second-level cache while all inputs are processed.
  int64_t resident = (384 << 10) / (weight.columns * static_cast<int64_t>(sizeof(typename Of::type))) / 4 * 4;
  if (resident < 4) resident = 4;
  for (int64_t row = begin; row < end; row += resident) {
    const int64_t rows = smaller(resident, end - row);
    const auto* w = data + row * weight.columns;
    for (int64_t m = 0; m < in.rows; m += kPlainRows) {
      const auto run = rows_products_of<Of>(in.rows - m);
      run(w, weight.columns, rows, in.floats + m * in.stride, in.stride, out + m * stride + row - begin, stride, add);
    }
  }
}

void linear(const Weight& weight, const Inputs& in, int64_t first, int64_t last, float* out, int64_t stride, bool add) {
  switch (weight.kind) {
    case Kind::int4: return integer_linear<4>(weight, in, first, last, out, stride, add);
    case Kind::int8: return integer_linear<8>(weight, in, first, last, out, stride, add);
    case Kind::half: return plain_linear<Half>(weight, in, first, last, out, stride, add);
    case Kind::brain: return plain_linear<Brain>(weight, in, first, last, out, stride, add);
    case Kind::single: return plain_linear<Single>(weight, in, first, last, out, stride, add);
  }
}

// Between linear layers. Counts need not be multiples of 16.

template <class Function>
inline void each(float* out, const float* x, int64_t count, Function f) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) store(out + i, f(load(x + i), i, false));
  if (i < count) {
    float part[16] = {};
    for (int64_t j = i; j < count; ++j) part[j - i] = x[j];
    store(part, f(load(part), i, true));
    for (int64_t j = i; j < count; ++j) out[j] = part[j - i];
  }
}

struct Tail {  // reads 16 of `count` floats at a time; missing ones at the end are 0
  const float* p;
  int64_t count;
  F operator()(int64_t i, bool last) const {
    if (!last) return load(p + i);
    float part[16] = {};
    for (int64_t j = i; j < count; ++j) part[j - i] = p[j];
    return load(part);
  }
};

inline float square_root(float x) { return __builtin_sqrtf(x); }

void rms_norm(float* out, const float* x, const float* weight, float eps, int64_t count) {
  F squares = zero();
  float rest = 0;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) squares = fma(load(x + i), load(x + i), squares);
  for (; i < count; ++i) rest += x[i] * x[i];
  const F by = set(1.0f / square_root((sum(squares) + rest) / static_cast<float>(count) + eps));
  const Tail scale{weight, count};
  each(out, x, count, [&](F v, int64_t at, bool last) { return v * by * scale(at, last); });
}

void layer_norm(float* out, const float* x, const float* weight, const float* bias, float eps, int64_t count) {
  F sums = zero();
  float rest = 0;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) sums = sums + load(x + i);
  for (; i < count; ++i) rest += x[i];
  const float mean = (sum(sums) + rest) / static_cast<float>(count);
  F squares = zero();
  rest = 0;
  for (i = 0; i + 16 <= count; i += 16) {
    const F d = load(x + i) - set(mean);
    squares = fma(d, d, squares);
  }
  for (; i < count; ++i) rest += (x[i] - mean) * (x[i] - mean);
  const F by = set(1.0f / square_root((sum(squares) + rest) / static_cast<float>(count) + eps));
  const Tail scale{weight, count}, shift{bias, count};
  each(out, x, count, [&](F v, int64_t at, bool last) { return fma((v - set(mean)) * by, scale(at, last), shift(at, last)); });
}

void swiglu(float* out, const float* gate, const float* up, int64_t count) {
  const Tail other{up, count};
  each(out, gate, count, [&](F g, int64_t at, bool last) {
    return g / (set(1.0f) + exponential(zero() - g)) * other(at, last);
  });
}

void gelu(float* x, int64_t count) {  // 0.5 x (1 + tanh(u)) = x / (1 + e^(-2u))
  each(x, x, count, [](F v, int64_t, bool) {
    const F u = v * set(0.7978845608f) * fma(v * v, set(0.044715f), set(1.0f));
    return v / (set(1.0f) + exponential(set(-2.0f) * u));
  });
}

void rotate(float* head, const int32_t* pairs, const float* cosines, const float* sines, int count) {
  for (int i = 0; i < count; ++i) {
    float &a = head[pairs[2 * i]], &b = head[pairs[2 * i + 1]];
    const float x = a * cosines[i] - b * sines[i], y = b * cosines[i] + a * sines[i];
    a = x;
    b = y;
  }
}

// Attention

template <class T>
struct PageOf {
  const Pages& pages;
  int64_t size() const { return static_cast<int64_t>(pages.tokens) * pages.channels; }  // keys or values of one group
  T* keys(int64_t position, int group) const {  // keys of the block of 16 tokens that holds `position`: [channels][16]
    const int64_t inside = position % pages.tokens / 16 * 16 * pages.channels;
    return base(position) + group * size() + inside;
  }
  T* values(int64_t position, int group) const {  // [channels]
    return base(position) + (pages.groups + group) * size() + position % pages.tokens * pages.channels;
  }
  float* key_scales(int64_t position, int group) const {  // scales of this token and those after it
    auto* scales = reinterpret_cast<float*>(base(position) + 2 * pages.groups * size());
    return scales + static_cast<int64_t>(group) * pages.tokens + position % pages.tokens;
  }
  float* value_scales(int64_t position, int group) const { return key_scales(position, pages.groups + group); }
  T* base(int64_t position) const {
    return reinterpret_cast<T*>(static_cast<uintptr_t>(pages.addresses[position / pages.tokens] + pages.offset));
  }
};

template <class Of>
void remember_as(const Pages& pages, int64_t position, int group, const float* key, const float* value) {
  const PageOf<typename Of::type> page{pages};
  auto* keys = page.keys(position, group) + position % 16;
  auto* values = page.values(position, group);
  for (int i = 0; i < pages.channels; i += 16) {
    if constexpr (sizeof(typename Of::type) == 2) {
      uint16_t halves[16];
      store_half(halves, load(key + i));
      for (int j = 0; j < 16; ++j) keys[(i + j) * 16] = halves[j];
      store_half(values + i, load(value + i));
    } else {
      for (int j = 0; j < 16; ++j) keys[(i + j) * 16] = key[i + j];
      store(values + i, load(value + i));
    }
  }
}

template <class T>
constexpr int kLevels = sizeof(T) == 1 ? 127 : kWord;

template <class T>
void remember_pairs(const Pages& pages, int64_t position, int group, const float* key, const float* value) {
  const PageOf<T> page{pages};
  const int width = pages.channels;
  int16_t words[kWidest];
  const auto round = [&](const float* x) {
    const float most = magnitude(x, width), by = steps(kLevels<T>, most);
    for (int i = 0; i < width; i += 16) store_words(words + i, by > 0 ? load(x + i) * set(by) : zero());
    return most / kLevels<T>;  // NaN and infinity are passed on in the scale
  };
  *page.key_scales(position, group) = round(key);
  T* keys = page.keys(position, group) + position % 16 * 2;
  for (int i = 0; i < width; ++i) keys[i / 2 * 32 + i % 2] = static_cast<T>(words[i]);
  *page.value_scales(position, group) = round(value);
  T* values = page.values(position / 2 * 2, group) + position % 2;
  for (int i = 0; i < width; ++i) values[2 * i] = static_cast<T>(words[i]);
}

void remember(const Pages& pages, int64_t position, int group, const float* key, const float* value) {
  switch (pages.store) {
    case Store::single: return remember_as<Single>(pages, position, group, key, value);
    case Store::half: return remember_as<Half>(pages, position, group, key, value);
    case Store::byte: return remember_pairs<int8_t>(pages, position, group, key, value);
    case Store::word: return remember_pairs<int16_t>(pages, position, group, key, value);
  }
}

// Tokens whose scores are held at once. While their keys are read, their values are prefetched; while the values are
// read, the keys of the next tokens are prefetched. Blocks of tokens are on different pages of memory, so the CPU does
// not prefetch them itself.
constexpr int kChunk = 128;

// Quantises x (count, a multiple of 16, up to kWidest) to words, which are then multiplied with numbers of type T;
// returns the scale. Sums of products must fit into 32 bits. So words use up to 15 bits if x has one peak, and fewer
// bits if its values are of similar size.
template <class T>
inline float to_words(int16_t* words, const float* x, int count) {
  constexpr float highest_sum = 2147483647.0f / kLevels<T> - kWidest;  // of the words; rounding may add half to each
  F sums = zero(), most = zero();
  for (int i = 0; i < count; i += 16) {
    const F v = load(x + i), size = max(v, zero() - v);
    most = max(most, size);
    sums = sums + size;
  }
  const float peak = largest(most), whole = sum(sums);
  const float by_peak = steps(32767, peak), by_whole = steps(highest_sum, whole), by = by_peak < by_whole ? by_peak : by_whole;
  for (int i = 0; i < count; i += 16) store_words(words + i, by > 0 ? load(x + i) * set(by) : zero());
  return by > 0 ? 1 / by : whole;  // NaN and infinity are passed on in the scale
}

// How keys and values are multiplied: `together` neighbouring channels of keys, or tokens of values, are multiplied
// with the same number of factors (of a query, or attention weights).

template <class Of>
struct Floats {
  using Stored = typename Of::type;
  using Factor = float;
  using Sum = F;
  static constexpr int together = 1, chains = 4;  // independent sums that are needed, as each addition waits for the one before
  static constexpr bool scaled = false;
  static float factors(float* out, const float* x, int count) {  // returns the scale of the factors
    for (int i = 0; i < count; i += 16) store(out + i, load(x + i));
    return 1;
  }
  static Sum none() { return zero(); }
  static Sum begin(const float* context) { return load(context); }
  static void end(float* context, Sum sum, float) { store(context, sum); }
  static F read(const Stored* p) { return Of::get(p); }
  static Sum dot(Sum sum, F stored, const float* factor) { return fma(stored, set(*factor), sum); }
};

template <class T>
struct Integers {
  using Stored = T;
  using Factor = int16_t;
  using Sum = I;
  static constexpr int together = 2, chains = 8;
  static constexpr bool scaled = true;
  static float factors(int16_t* out, const float* x, int count) { return to_words<T>(out, x, count); }
  static Sum none() { return izero(); }
  static Sum begin(const float*) { return izero(); }
  static void end(float* context, Sum sum, float worth) { store(context, fma(to_float(sum), set(worth), load(context))); }
  static auto read(const T* p) { return load_pairs(p); }
  template <class Pairs>
  static Sum dot(Sum sum, const Pairs& stored, const int16_t* factor) { return dot2(sum, stored, factor); }
};

// Adds to 16 * C channels of the contexts, beginning at `channel`. Meanwhile the same amount of `next` is prefetched.
template <class How, int Q, int C>
inline void add_values(float (&context)[Q][kWidest], const typename How::Factor (*weights)[kChunk], const float (&worth)[Q],
                       const typename How::Stored* const* values, int32_t steps, int channel,
                       const typename How::Stored* const* next) {
  constexpr int together = How::together;
  typename How::Sum sums[Q][C];
  for (int q = 0; q < Q; ++q)
    for (int n = 0; n < C; ++n) sums[q][n] = How::begin(context[q] + channel + 16 * n);
  for (int32_t step = 0; step < steps; ++step)
    for (int n = 0; n < C; ++n) {
      const auto value = How::read(values[step] + together * (channel + 16 * n));
      __builtin_prefetch(next[n] + 16 * together * step, 0, 2);
      for (int q = 0; q < Q; ++q) sums[q][n] = How::dot(sums[q][n], value, weights[q] + together * step);
    }
  for (int q = 0; q < Q; ++q)
    for (int n = 0; n < C; ++n) How::end(context[q] + channel + 16 * n, sums[q][n], worth[q]);
}

// Softmax, one chunk after another: if a larger score comes, the previous sums are scaled down (Milakov and Gimelshein
// 2018, "Online normalizer calculation for softmax"). The `scores` of a chunk are replaced by its weights.
template <int Q>
inline void weigh(float (&scores)[Q][kChunk], float (&context)[Q][kWidest], float (&highest)[Q], float (&total)[Q],
                  const int32_t* visible, int32_t start, int32_t held, int width) {
  for (int q = 0; q < Q; ++q) {
    for (int32_t i = visible[q] > start ? visible[q] - start : 0; i < held; ++i) scores[q][i] = -3.0e38f;
    F most = load(scores[q]);
    for (int32_t i = 16; i < held; i += 16) most = max(most, load(scores[q] + i));
    float peak = largest(most);
    if (peak < highest[q]) peak = highest[q];
    for (int32_t i = 0; i < held; i += 16) store(scores[q] + i, exponential(load(scores[q] + i) - set(peak)));
    for (int32_t i = visible[q] > start ? visible[q] - start : 0; i < held; ++i) scores[q][i] = 0;
    F sums = zero();  // includes the zeros, so that a query's sum does not depend on the queries processed with it
    for (int32_t i = 0; i < held; i += 16) sums = sums + load(scores[q] + i);
    const float part = sum(sums);
    if (peak != highest[q]) {
      float shrink[16];
      store(shrink, exponential(set(highest[q] - peak)));
      total[q] *= shrink[0];
      for (int i = 0; i < width; i += 16) store(context[q] + i, load(context[q] + i) * set(shrink[0]));
      highest[q] = peak;
    }
    total[q] += part;
  }
}

template <int Q>
inline void divide(float* const* out, const float (&context)[Q][kWidest], const float (&total)[Q], int width) {
  for (int q = 0; q < Q; ++q) {
    const F by = set(total[q] > 0 ? 1.0f / total[q] : total[q] == total[q] ? 0.0f : total[q]);
    for (int i = 0; i < width; i += 16) store(out[q] + i, load(context[q] + i) * by);
  }
}

template <class How, int Q>
void attend_together(const Pages& pages, int group, const float* const* given, const int32_t* visible, float* const* out) {
  using Stored = typename How::Stored;
  constexpr int together = How::together;
  const PageOf<Stored> page{pages};
  const int width = pages.channels;
  alignas(64) typename How::Factor queries[Q][kWidest], rounded[Q][kChunk];
  alignas(64) float scores[Q][kChunk], context[Q][kWidest];
  float step[Q], worth[Q] = {}, highest[Q], total[Q];
  int32_t end = 0;
  for (int q = 0; q < Q; ++q) {
    step[q] = How::factors(queries[q], given[q], width);
    highest[q] = -3.0e38f;
    total[q] = 0;
    for (int i = 0; i < width; i += 16) store(context[q] + i, zero());
    end = visible[q] > end ? visible[q] : end;
  }
  const Stored *values[kChunk / together], *next[kWidest / 16];
  for (int32_t start = 0; start < end; start += kChunk) {
    const int32_t stop = static_cast<int32_t>(smaller(start + kChunk, end));
    const int32_t held = (stop - start + 15) / 16 * 16;
    constexpr int B = Q >= How::chains ? 1 : How::chains / Q;  // with few queries, several blocks of tokens at once
    for (int32_t token = 0; token < held; token += 16 * B) {
      const Stored *keys[B], *behind[B];
      typename How::Sum sums[B][Q];
      for (int n = 0; n < B; ++n) {
        const int32_t first = start + (token + 16 * n < held ? token + 16 * n : token);
        keys[n] = page.keys(first, group);
        behind[n] = page.values(first, group);
        if constexpr (How::scaled) {
          __builtin_prefetch(page.key_scales(first, group));
          __builtin_prefetch(page.value_scales(first, group), 0, 2);
        }
        for (int q = 0; q < Q; ++q) sums[n][q] = How::none();
      }
      constexpr int line = 4 / together / static_cast<int>(sizeof(Stored));  // steps in a cache line
      CHATGLM_UNROLL(4)
      for (int i = 0; i < width / together; ++i)
        for (int n = 0; n < B; ++n) {
          if (i % line == 0) __builtin_prefetch(behind[n] + 16 * together * i, 0, 2);
          const auto key = How::read(keys[n] + 16 * together * i);
          for (int q = 0; q < Q; ++q) sums[n][q] = How::dot(sums[n][q], key, queries[q] + together * i);
        }
      for (int n = 0; n < B && token + 16 * n < held; ++n) {
        if constexpr (How::scaled) {
          const F scale = load(page.key_scales(start + token + 16 * n, group));
          for (int q = 0; q < Q; ++q) store(scores[q] + token + 16 * n, to_float(sums[n][q]) * (scale * set(step[q])));
        } else {
          for (int q = 0; q < Q; ++q) store(scores[q] + token + 16 * n, sums[n][q]);
        }
      }
    }
    weigh<Q>(scores, context, highest, total, visible, start, held, width);
    const typename How::Factor (*weights)[kChunk];
    if constexpr (How::scaled) {
      for (int q = 0; q < Q; ++q) {
        for (int32_t i = 0; i < held; i += 16)
          store(scores[q] + i, load(scores[q] + i) * load(page.value_scales(start + i, group)));
        for (int32_t i = visible[q] > start ? visible[q] - start : 0; i < held; ++i) scores[q][i] = 0;
        worth[q] = How::factors(rounded[q], scores[q], held);
      }
      weights = rounded;
    } else {
      weights = scores;
    }
    const int32_t steps = (stop - start + together - 1) / together;
    for (int32_t i = 0; i < steps; ++i) values[i] = page.values(start + together * i, group);
    for (int32_t n = 0; n < width / 16; ++n) next[n] = stop + 16 * n < end ? page.keys(stop + 16 * n, group) : values[0];
    constexpr int C = Q >= 8 ? 1 : Q >= 4 ? 2 : Q >= 2 ? 4 : 8;
    int c = 0;
    for (; c + C <= width / 16; c += C) add_values<How, Q, C>(context, weights, worth, values, steps, 16 * c, next + c);
    for (; c < width / 16; ++c) add_values<How, Q, 1>(context, weights, worth, values, steps, 16 * c, next + c);
  }
  divide<Q>(out, context, total, width);
}

template <class How, int Q = kQueries>
void attend_count(const Pages& pages, int group, const float* const* queries, const int32_t* visible, int count, float* const* out) {
  if constexpr (Q > 1)
    if (count < Q) return attend_count<How, Q - 1>(pages, group, queries, visible, count, out);
  attend_together<How, Q>(pages, group, queries, visible, out);
}

void attend(const Pages& pages, int group, const float* const* queries, const int32_t* visible, int count, float* const* out) {
  switch (pages.store) {
    case Store::single: return attend_count<Floats<Single>>(pages, group, queries, visible, count, out);
    case Store::half: return attend_count<Floats<Half>>(pages, group, queries, visible, count, out);
    case Store::byte: return attend_count<Integers<int8_t>>(pages, group, queries, visible, count, out);
    case Store::word: return attend_count<Integers<int16_t>>(pages, group, queries, visible, count, out);
  }
}

void to_half(uint16_t* out, const float* x, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) store_half(out + i, load(x + i));
  if (i < count) {
    float part[16] = {};
    uint16_t halves[16];
    for (int64_t j = i; j < count; ++j) part[j - i] = x[j];
    store_half(halves, load(part));
    for (int64_t j = i; j < count; ++j) out[j] = halves[j - i];
  }
}
template <class Of>
void from(float* out, const uint16_t* x, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) store(out + i, Of::get(x + i));
  for (; i < count; ++i) out[i] = plain(x + i, Of());
}
void from_half(float* out, const uint16_t* x, int64_t count) { from<Half>(out, x, count); }
void from_brain(float* out, const uint16_t* x, int64_t count) { from<Brain>(out, x, count); }

}  // namespace

const Kernels CHATGLM_TABLE = {CHATGLM_NAME, kQueries, kRows, kFewRows, kStore, quantize,  linear,   rms_norm, layer_norm, swiglu,    gelu,
                             rotate,       remember, attend, to_half,  from_half,  from_brain};

}  // namespace chatglm
