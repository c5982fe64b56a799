#include "api.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "kernels.h"
#include "pool.h"

namespace chatglm {
namespace {

std::vector<const Kernels*> supported() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool second = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#ifdef CHATGLM_HAS_AVX512
  if (second && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
    found.push_back(&avx512);
#endif
#ifdef CHATGLM_HAS_AVX_VNNI
  if (second && __builtin_cpu_supports("avxvnni")) found.push_back(&avx_vnni);
#endif
#ifdef CHATGLM_HAS_AVX2
  if (second) found.push_back(&avx2);
#endif
#endif
#ifdef CHATGLM_HAS_NEON
#if defined(__linux__)
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP)
#endif
    found.push_back(&neon);
#endif
  found.push_back(&portable);
  return found;
}

const std::vector<const Kernels*>& variants() {
  static const auto* list = new std::vector<const Kernels*>(supported());
  return *list;
}

const Kernels*& current() {
  static const Kernels* kernels = variants().front();
  return kernels;
}

// Memory that can grow and is not initialised.
class Buffer {
 public:
  template <class T>
  T* get(int64_t count) {
    const size_t bytes = static_cast<size_t>(count > 0 ? count : 1) * sizeof(T) + 256;
    if (bytes > size_) {
      data_.reset();
      size_ = 0;
      data_.reset(static_cast<char*>(::operator new(bytes, std::align_val_t(64))));
      size_ = bytes;
    }
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  struct Delete { void operator()(char* p) const { ::operator delete(p, std::align_val_t(64)); } };
  std::unique_ptr<char, Delete> data_;
  size_t size_ = 0;
};

Weight weight_of(const cg_weight& w) {
  Weight weight;
  weight.data = w.data;
  weight.scales = w.scales;
  weight.rows = w.rows;
  weight.columns = w.columns;
  weight.kind = static_cast<Kind>(w.kind);
  weight.group = w.group;
  weight.block = w.group ? w.group : 128;
  weight.padded = weight.integer() ? (w.columns + weight.block - 1) / weight.block * weight.block : w.columns;
  return weight;
}

// Inputs in the form that a weight needs.
struct Prepared {
  Buffer bytes, scales, sums;

  Inputs reserve(const Kernels& k, const Weight& weight, int64_t rows) {
    Inputs in{nullptr, nullptr, nullptr, nullptr, rows, 0, k.rows, k.few};
    if (weight.integer()) {
      in.bytes = bytes.get<int8_t>(rows * weight.padded);
      in.scales = scales.get<float>(rows * (weight.padded / weight.block));
      in.offsets = sums.get<int32_t>(rows * (weight.padded / weight.block));
    }
    return in;
  }
};

void prepare_row(const Kernels& k, const Weight& weight, const Inputs& in, int64_t row, const float* x) {
  const int64_t blocks = weight.padded / weight.block;
  const int64_t part = in.part_of(row), first = in.first(part), together = in.first(part + 1) - first;
  auto* bytes = const_cast<int8_t*>(in.bytes) + first * weight.padded;
  auto* scales = const_cast<float*>(in.scales) + first * blocks;
  auto* offsets = const_cast<int32_t*>(in.offsets) + first * blocks;
  const int32_t by = weight.kind == Kind::int4 ? -8 : -128;
  if (together == 1) {
    k.quantize(bytes, scales, offsets, x, weight.columns, weight.padded, weight.block);
    for (int64_t i = 0; i < blocks; ++i) offsets[i] *= by;
    return;
  }
  thread_local Prepared alone;
  int8_t* own = alone.bytes.get<int8_t>(weight.padded);
  float* own_scales = alone.scales.get<float>(blocks);
  int32_t* own_sums = alone.sums.get<int32_t>(blocks);
  k.quantize(own, own_scales, own_sums, x, weight.columns, weight.padded, weight.block);
  const int64_t place = row - first;
  int8_t* to = bytes + (weight.padded - 8) * together + 4 * place;
  for (int64_t i = 0; i < weight.padded; i += 8, to -= 8 * together) {
    std::memcpy(to, own + i, 4);
    std::memcpy(to + 4 * together, own + i + 4, 4);
  }
  for (int64_t i = 0; i < blocks; ++i) {
    scales[i * together + place] = own_scales[i];
    offsets[i * together + place] = by * own_sums[i];
  }
}

// Adds bias[first], bias[first + 1], ... to `count` outputs of every row; does nothing if `bias` is null.
void add_bias(float* out, int64_t stride, int64_t rows, const float* bias, int64_t first, int64_t count) {
  if (!bias) return;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < count; ++i) out[row * stride + i] += bias[first + i];
}

// Number of outputs in tiles `first` to `last`.
int64_t outputs_of(const Weight& weight, int64_t first, int64_t last) {
  return (16 * last < weight.rows ? 16 * last : weight.rows) - 16 * first;
}

// Number of tiles that a thread takes at a time.
int64_t piece(const Weight& weight, int64_t rows, int threads) {
  // With few rows, pieces are small, so that no thread waits long for the last one. With many, a piece is as large as
  // the cache allows.
  int64_t tiles = (rows <= 8 ? (64 << 10) : (384 << 10)) / weight.tile_bytes();
  const int64_t most = weight.tiles() / (threads * 4);
  if (tiles > most) tiles = most;
  tiles -= tiles % 2;
  return tiles < 2 ? 2 : tiles;
}

// Number of tiles that a thread takes at a time, for one or a few rows, if two ranges are read alternately.
int64_t longer(const Weight& weight, int64_t tiles, int threads) {
  int64_t size = (512 << 10) / weight.tile_bytes();
  const int64_t most = tiles / (threads * 16);
  if (size > most) size = most;
  return size < 1 ? 1 : size;
}

// Divides a range into pieces for the threads. Each thread processes a range of its own in order, as memory is read
// fastest this way. A thread that is done takes pieces from the ranges of others. If `reading` memory is the limit,
// only the last quarter of each range can be taken by others: a thread need not ask for pieces of the first three
// quarters, and asking would delay its reads.
class Share {
 public:
  void reset(int threads) {
    if (static_cast<int>(next_.size()) < threads) next_ = std::vector<Next>(threads);
    for (auto& next : next_) next.value.store(0, std::memory_order_relaxed);
  }
  template <class Function>
  void run(int thread, int threads, int64_t count, int64_t size, Function f, bool reading = false) {
    const int64_t pieces = (count + size - 1) / size;
    const auto run_piece = [&](int64_t n) { f(n * size, n * size + size < count ? n * size + size : count); };
    for (int i = 0; i < threads; ++i) {
      const int whose = (thread + i) % threads;
      const int64_t begin = pieces * whose / threads, end = pieces * (whose + 1) / threads;
      const int64_t shared = begin + (reading ? (end - begin) * 3 / 4 : 0);
      for (int64_t n = begin; i == 0 && n < shared; ++n) run_piece(n);
      for (int64_t n; (n = shared + next_[whose].value.fetch_add(1, std::memory_order_relaxed)) < end;) run_piece(n);
    }
  }

 private:
  struct Next { alignas(64) std::atomic<int64_t> value{0}; };
  std::vector<Next> next_;
};

// One call of a linear layer

struct Call {
  Buffer floats, out;
  Prepared inputs;
  Share share;
};

void read_row(const Kernels& k, float* out, const void* x, int type, int64_t start, int64_t count) {
  if (type == CG_FLOAT32) std::memcpy(out, static_cast<const float*>(x) + start, count * sizeof(float));
  else if (type == CG_FLOAT16) k.from_half(out, static_cast<const uint16_t*>(x) + start, count);
  else k.from_brain(out, static_cast<const uint16_t*>(x) + start, count);
}

void to_brain(uint16_t* out, const float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, 4);
    out[i] = (bits & 0x7fffffffu) > 0x7f800000u ? static_cast<uint16_t>((bits >> 16) | 64)
                                                : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
}

void write_row(const Kernels& k, void* out, int type, int64_t start, const float* x, int64_t count) {
  if (type == CG_FLOAT32) std::memcpy(static_cast<float*>(out) + start, x, count * sizeof(float));
  else if (type == CG_FLOAT16) k.to_half(static_cast<uint16_t*>(out) + start, x, count);
  else to_brain(static_cast<uint16_t*>(out) + start, x, count);
}

void linear(const cg_weight& given, const void* x, int x_type, int64_t rows, int64_t x_stride, void* out, int out_type,
            int64_t out_stride) {
  if (!rows) return;
  static std::mutex one;
  static Call& call = *new Call;
  const std::lock_guard<std::mutex> guard(one);
  const Kernels& k = *current();
  Pool& pool = Pool::get();
  const Weight weight = weight_of(given);
  const int threads = pool.threads();
  Inputs in = call.inputs.reserve(k, weight, rows);
  const bool convert = x_type != CG_FLOAT32;
  float* floats = convert ? call.floats.get<float>(rows * weight.columns) : nullptr;
  in.floats = convert ? floats : static_cast<const float*>(x);
  in.stride = convert ? weight.columns : x_stride;
  const int64_t size = piece(weight, rows, threads);
  const bool direct = out_type == CG_FLOAT32;
  float* parts = direct ? nullptr : call.out.get<float>(threads * size * 16 * rows);
  call.share.reset(threads);
  pool.run([&](int thread) {
    for (int64_t row = rows * thread / threads; row < rows * (thread + 1) / threads; ++row) {
      if (convert) read_row(k, floats + row * weight.columns, x, x_type, row * x_stride, weight.columns);
      if (weight.integer()) prepare_row(k, weight, in, row, in.floats + row * in.stride);
    }
    pool.barrier();
    call.share.run(thread, threads, weight.tiles(), size, [&](int64_t first, int64_t last) {
      const int64_t begin = 16 * first, count = outputs_of(weight, first, last);
      float* part = direct ? static_cast<float*>(out) + begin : parts + thread * size * 16 * rows;
      const int64_t stride = direct ? out_stride : size * 16;
      k.linear(weight, in, first, last, part, stride, false);
      add_bias(part, stride, rows, given.bias, begin, count);
      for (int64_t row = 0; !direct && row < rows; ++row)
        write_row(k, out, out_type, row * out_stride + begin, part + row * stride, count);
    });
  });
}

// A whole decoder

struct Layer {
  const float *norm1, *norm1_bias, *norm2, *norm2_bias;
  Weight qkv, dense, up, down;
  const float *qkv_bias, *dense_bias, *up_bias, *down_bias;
};

class Decoder {
 public:
  explicit Decoder(const cg_model& model) : m_(model), head_(weight_of(model.head)) {
    pairs_.assign(model.pairs, model.pairs + 2 * model.angles);
    m_.pairs = pairs_.data();
    for (int i = 0; i < model.layers; ++i) {
      const cg_layer& l = model.layer[i];
      layers_.push_back({l.norm1, l.norm1_bias, l.norm2, l.norm2_bias, weight_of(l.qkv), weight_of(l.dense),
                         weight_of(l.up), weight_of(l.down), l.qkv.bias, l.dense.bias, l.up.bias, l.down.bias});
    }
    shares_ = std::vector<Share>(layers_.size() * kPhases + 4);
  }

  static int64_t page_bytes(const cg_model& m) { return m.layers * layer_bytes(m); }

  void run(const cg_batch& batch) {
    Pool& pool = Pool::get();
    std::lock_guard<std::mutex> guard(pool.batch());
    const Kernels& k = *current();
    const int threads = pool.threads();
    Run r(*this, batch, k, pool, threads);
    r.allocate();
    for (auto& share : shares_) share.reset(threads);
    pool.run([&](int thread) { r.go(thread); });
  }

 private:
  enum { kNorm1, kQkv, kKeys, kAttend, kContext, kDense, kNorm2, kUp, kInner, kDown, kPhases };
  static constexpr int64_t kFew = 4;  // up to this many rows, every thread prepares all rows for itself, which saves a barrier

  static Store store_of(const cg_model& m) {
    switch (m.store) {
      case CG_FLOAT16: return Store::half;
      case CG_INT16: return Store::word;
      case CG_INT8: return Store::byte;
      default: return Store::single;
    }
  }

  static int64_t layer_bytes(const cg_model& m) {
    const int64_t tokens = int64_t{2} * m.groups * m.page_tokens;
    switch (store_of(m)) {
      case Store::single: return tokens * m.channels * 4;
      case Store::half: return tokens * m.channels * 2;
      case Store::word: return tokens * (m.channels * 2 + 4);
      default: return tokens * (m.channels + 4);
    }
  }

  struct Own {  // buffers of one thread
    Buffer row, gate, up;
    Prepared inputs;
  };

  struct Run {
    Decoder& d;
    const cg_batch& b;
    const Kernels& k;
    Pool& pool;
    const int threads;
    float *x = nullptr, *y = nullptr, *mixed = nullptr, *context = nullptr, *inner = nullptr;
    int64_t width = 0, outputs = 0;  // channels of all heads together; rows of qkv

    Run(Decoder& d, const cg_batch& b, const Kernels& k, Pool& pool, int threads)
        : d(d), b(b), k(k), pool(pool), threads(threads) {}

    void allocate() {
      const cg_model& m = d.m_;
      width = int64_t{m.heads} * m.channels;
      outputs = width + int64_t{2} * m.groups * m.channels;
      x = b.hidden;
      y = m.alpha != 0 ? d.other_.get<float>(b.rows * m.hidden) : x;
      mixed = d.mixed_.get<float>(b.rows * outputs);
      context = d.context_.get<float>(b.rows * width);
      inner = d.inner_.get<float>(b.rows * m.inner);
      if (static_cast<int>(d.own_.size()) < threads) d.own_.resize(threads);
      // The inputs of all layers share one buffer, as large as the largest needs.
      const int64_t rows = b.rows > b.wanted_count ? b.rows : b.wanted_count;
      int64_t bytes = 0, blocks = 0, floats = 0;
      const auto see = [&](const Weight& w) {
        if (!w.integer()) {
          floats = w.columns > floats ? w.columns : floats;
          return;
        }
        bytes = w.padded > bytes ? w.padded : bytes;
        blocks = w.padded / w.block > blocks ? w.padded / w.block : blocks;
      };
      for (const Layer& l : d.layers_)
        for (const Weight* w : {&l.qkv, &l.dense, &l.up, &l.down}) see(*w);
      see(d.head_);
      bytes_ = d.shared_.bytes.get<int8_t>(rows * bytes);
      scales_ = d.shared_.scales.get<float>(rows * blocks);
      sums_ = d.shared_.sums.get<int32_t>(rows * blocks);
      floats_ = d.floats_.get<float>(rows * floats);
      last_ = d.last_.get<float>(b.wanted_count * m.hidden);
    }

    void norm(float* out, const float* in, const float* weight, const float* bias) const {
      if (bias) k.layer_norm(out, in, weight, bias, d.m_.eps, d.m_.hidden);
      else k.rms_norm(out, in, weight, d.m_.eps, d.m_.hidden);
    }

    // Prepares rows as inputs of `weight`; `make(row, scratch)` returns the floats of a row.
    template <class Make>
    Inputs prepare(int thread, int phase, const Weight& weight, Make make) {
      Own& own = d.own_[thread];
      float* scratch = own.row.get<float>(weight.columns > d.m_.hidden ? weight.columns : d.m_.hidden);
      if (b.rows <= kFew && weight.integer()) {
        Inputs in = own.inputs.reserve(k, weight, b.rows);
        for (int64_t row = 0; row < b.rows; ++row)
          prepare_row(k, weight, in, row, make(row, scratch, row % threads == thread));
        return in;
      }
      const Inputs in{bytes_, scales_, sums_, floats_, b.rows, weight.columns, k.rows, k.few};
      d.shares_[phase].run(thread, threads, b.rows, 1, [&](int64_t row, int64_t) {
        if (weight.integer()) return prepare_row(k, weight, in, row, make(row, scratch, true));
        float* place = floats_ + row * weight.columns;
        const float* made = make(row, place, true);
        if (made != place) std::memcpy(place, made, weight.columns * sizeof(float));
      });
      pool.barrier();
      return in;
    }

    void linear(int thread, int phase, const Weight& weight, const float* bias, const Inputs& in, float* out, int64_t stride,
                bool add) {
      d.shares_[phase].run(thread, threads, weight.tiles(), piece(weight, b.rows, threads), [&](int64_t first, int64_t last) {
        k.linear(weight, in, first, last, out + 16 * first, stride, add);
        add_bias(out + 16 * first, stride, b.rows, bias, 16 * first, outputs_of(weight, first, last));
      }, b.rows <= k.few);
      pool.barrier();
    }

    // Where a head begins in a row of qkv outputs; kind: 0 query, 1 key, 2 value.
    int64_t place(int kind, int head) const {
      const cg_model& m = d.m_;
      if (m.interleaved) return (int64_t{3} * head + kind) * m.channels;
      return (kind == 0 ? int64_t{head} : kind == 1 ? int64_t{m.heads} + head : int64_t{m.heads} + m.groups + head) * m.channels;
    }

    Pages pages(int64_t row, int layer) const {
      const cg_model& m = d.m_;
      return {b.tables + b.sequence[row] * b.pages_per_table, layer * layer_bytes(m), m.page_tokens, m.groups, m.channels,
              store_of(m)};
    }

    void turn(int thread, int phase, int layer) {
      const cg_model& m = d.m_;
      const float scale = 1.0f / std::sqrt(static_cast<float>(m.channels));
      d.shares_[phase].run(thread, threads, b.rows, 1, [&](int64_t row, int64_t) {
        float* of = mixed + row * outputs;
        const float *cosines = b.cosines + row * m.angles, *sines = b.sines + row * m.angles;
        for (int head = 0; head < m.heads; ++head) {
          float* query = of + place(0, head);
          k.rotate(query, m.pairs, cosines, sines, m.angles);
          for (int i = 0; i < m.channels; ++i) query[i] *= scale;
        }
        const Pages to = pages(row, layer);
        for (int group = 0; group < m.groups; ++group) {
          float* key = of + place(1, group);
          k.rotate(key, m.pairs, cosines, sines, m.angles);
          k.remember(to, b.position[row], group, key, of + place(2, group));
        }
      });
      pool.barrier();
    }

    // The queries of one group are processed together, from as many rows of one sequence as the kernel takes.
    void attend(int thread, int phase, int layer) {
      const cg_model& m = d.m_;
      const int per_group = m.heads / m.groups;
      // A unit of work takes several heads of one row, or, with few heads per group, the heads of several neighbouring
      // rows.
      int heads_in = per_group < k.queries ? per_group : k.queries;
      const int64_t rows_in = k.queries / heads_in;
      while (heads_in > 1 && b.rows * m.groups * ((per_group + heads_in - 1) / heads_in) < threads) heads_in = (heads_in + 1) / 2;
      const int64_t splits = (per_group + heads_in - 1) / heads_in;
      const int64_t row_blocks = (b.rows + rows_in - 1) / rows_in;
      d.shares_[phase].run(thread, threads, row_blocks * m.groups * splits, 1, [&](int64_t unit, int64_t) {
        const int64_t split = unit % splits;
        const int group = static_cast<int>(unit / splits % m.groups);
        // The last rows attend to the most tokens. They come first, so that no thread ends with a long one.
        const int64_t block = row_blocks - 1 - unit / splits / m.groups;
        const float* queries[kMostQueries];
        float* out[kMostQueries];
        int32_t visible[kMostQueries];
        int count = 0;
        int64_t of = -1;
        for (int64_t row = block * rows_in; row < (block + 1) * rows_in && row < b.rows; ++row) {
          if (count && b.sequence[row] != b.sequence[of]) {
            k.attend(pages(of, layer), group, queries, visible, count, out);
            count = 0;
          }
          of = row;
          const int64_t first = split * heads_in;
          for (int64_t h = first; h < first + heads_in && h < per_group; ++h) {
            const int head = static_cast<int>(group * per_group + h);
            queries[count] = mixed + row * outputs + place(0, head);
            out[count] = context + row * width + int64_t{head} * m.channels;
            visible[count++] = b.visible[row];
          }
        }
        if (count) k.attend(pages(of, layer), group, queries, visible, count, out);
      });
      pool.barrier();
    }

    void feed_forward(int thread, int phase, const Layer& l, const Inputs& in) {
      const cg_model& m = d.m_;
      if (!m.gated) {
        d.shares_[phase].run(thread, threads, l.up.tiles(), piece(l.up, b.rows, threads), [&](int64_t first, int64_t last) {
          k.linear(l.up, in, first, last, inner + 16 * first, m.inner, false);
          const int64_t count = outputs_of(l.up, first, last);
          add_bias(inner + 16 * first, m.inner, b.rows, l.up_bias, 16 * first, count);
          for (int64_t row = 0; row < b.rows; ++row) k.gelu(inner + row * m.inner + 16 * first, count);
        });
        pool.barrier();
        return;
      }
      // The same rows of gate and up are computed by one thread, which then multiplies them.
      const int64_t tiles = m.inner / 16;
      int64_t size = piece(l.up, b.rows, threads);
      // Two ranges of memory are read alternately, in long pieces, because the CPU's prefetching needs time after a
      // change.
      if (b.rows <= k.few) size = longer(l.up, tiles, threads);
      Own& own = d.own_[thread];
      float *gate = own.gate.get<float>(size * 16 * b.rows), *up = own.up.get<float>(size * 16 * b.rows);
      d.shares_[phase].run(thread, threads, tiles, size, [&](int64_t first, int64_t last) {
        const int64_t stride = size * 16, count = 16 * (last - first);
        k.linear(l.up, in, first, last, gate, stride, false);
        k.linear(l.up, in, tiles + first, tiles + last, up, stride, false);
        add_bias(gate, stride, b.rows, l.up_bias, 16 * first, count);
        add_bias(up, stride, b.rows, l.up_bias, m.inner + 16 * first, count);
        for (int64_t row = 0; row < b.rows; ++row)
          k.swiglu(inner + row * m.inner + 16 * first, gate + row * stride, up + row * stride, count);
      }, b.rows <= k.few);
      pool.barrier();
    }

    void go(int thread) {
      const cg_model& m = d.m_;
      float *from = x, *to = y;
      for (int i = 0; i < m.layers; ++i) {
        const Layer& l = d.layers_[i];
        const int phase = i * kPhases;
        const auto normed = [&](const float* weight, const float* bias) {
          return [&, weight, bias](int64_t row, float* scratch, bool mine) -> const float* {
            norm(scratch, from + row * m.hidden, weight, bias);
            if (m.alpha != 0.0f && mine)
              for (int64_t j = 0; j < m.hidden; ++j) to[row * m.hidden + j] = m.alpha * scratch[j];
            return scratch;
          };
        };
        Inputs in = prepare(thread, phase + kNorm1, l.qkv, normed(l.norm1, l.norm1_bias));
        linear(thread, phase + kQkv, l.qkv, l.qkv_bias, in, mixed, outputs, false);
        turn(thread, phase + kKeys, i);
        attend(thread, phase + kAttend, i);
        in = prepare(thread, phase + kContext, l.dense,
                     [&](int64_t row, float*, bool) -> const float* { return context + row * width; });
        linear(thread, phase + kDense, l.dense, l.dense_bias, in, to, m.hidden, true);
        if (m.alpha != 0) std::swap(from, to);
        in = prepare(thread, phase + kNorm2, l.up, normed(l.norm2, l.norm2_bias));
        feed_forward(thread, phase + kUp, l, in);
        in = prepare(thread, phase + kInner, l.down,
                     [&](int64_t row, float*, bool) -> const float* { return inner + row * m.inner; });
        linear(thread, phase + kDown, l.down, l.down_bias, in, to, m.hidden, true);
        if (m.alpha != 0) std::swap(from, to);
      }
      finish(thread, m.layers * kPhases, from);
    }

    void finish(int thread, int phase, const float* from) {
      const cg_model& m = d.m_;
      d.shares_[phase].run(thread, threads, b.wanted_count, 1, [&](int64_t i, int64_t) {
        float* state = last_ + i * m.hidden;
        norm(state, from + b.wanted[i] * m.hidden, m.final_norm, m.final_norm_bias);
        if (b.states) std::memcpy(b.states + i * m.hidden, state, m.hidden * sizeof(float));
        if (d.head_.integer()) prepare_row(k, d.head_, Inputs{bytes_, scales_, sums_, nullptr, b.wanted_count, 0, k.rows, k.few}, i, state);
      });
      pool.barrier();
      if (!b.logits || !b.wanted_count) return;
      const Inputs in{bytes_, scales_, sums_, last_, b.wanted_count, m.hidden, k.rows, k.few};
      const int64_t vocabulary = d.head_.rows;
      d.shares_[phase + 1].run(thread, threads, d.head_.tiles(), piece(d.head_, b.wanted_count, threads), [&](int64_t first, int64_t last) {
        k.linear(d.head_, in, first, last, b.logits + 16 * first, vocabulary, false);
        add_bias(b.logits + 16 * first, vocabulary, b.wanted_count, m.head.bias, 16 * first,
                 outputs_of(d.head_, first, last));
      }, b.wanted_count <= k.few);
    }

    int8_t* bytes_ = nullptr;
    float *scales_ = nullptr, *floats_ = nullptr, *last_ = nullptr;
    int32_t* sums_ = nullptr;
  };

  cg_model m_;
  Weight head_;
  std::vector<int32_t> pairs_;
  std::vector<Layer> layers_;
  std::vector<Share> shares_;
  std::vector<Own> own_;
  Buffer other_, mixed_, context_, inner_, last_;
  Prepared shared_;
  Buffer floats_;
};

}  // namespace
}  // namespace chatglm

using namespace chatglm;

namespace {

bool fits(const cg_weight& w, int64_t rows, int64_t columns) { return w.rows == rows && w.columns == columns; }

bool supported_shape(const cg_model& m) {
  const int64_t width = int64_t{m.heads} * m.channels;
  if (m.channels % 16 || m.channels > kWidest || m.page_tokens < 16 || m.page_tokens % 16 || m.groups < 1) return false;
  if (m.heads % m.groups || (m.interleaved && m.heads != m.groups) || 2 * m.angles > m.channels) return false;
  if (m.gated && m.inner % 16) return false;
  for (int i = 0; i < m.layers; ++i) {
    const cg_layer& l = m.layer[i];
    if (!fits(l.qkv, width + int64_t{2} * m.groups * m.channels, m.hidden) || !fits(l.dense, m.hidden, width) ||
        !fits(l.up, m.gated ? 2 * m.inner : m.inner, m.hidden) || !fits(l.down, m.hidden, m.inner))
      return false;
  }
  return m.head.columns == m.hidden;
}

}  // namespace

int cg_interface(void) { return CG_INTERFACE; }

const char* cg_variants(void) {
  static const auto* names = [] {
    auto* text = new std::string;
    for (const Kernels* k : variants()) {
      if (!text->empty()) text->push_back(' ');
      text->append(k->name);
    }
    return text;
  }();
  return names->c_str();
}

const char* cg_variant(void) { return current()->name; }

int cg_store(void) { return current()->store == Store::word ? CG_INT16 : CG_FLOAT16; }

int cg_use(const char* variant) {
  for (const Kernels* k : variants())
    if (!std::strcmp(k->name, variant)) {
      current() = k;
      return 0;
    }
  return -1;
}

void cg_set_threads(int threads) { Pool::get().resize(threads); }

int cg_threads(void) { return Pool::get().threads(); }

int cg_linear(const cg_weight* weight, const void* x, int x_type, int64_t rows, int64_t x_stride, void* out, int out_type,
              int64_t out_stride) {
  try {
    linear(*weight, x, x_type, rows, x_stride, out, out_type, out_stride);
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

void cg_quantize(const float* x, int64_t rows, int64_t columns, int block, int8_t* bytes, float* scales, int32_t* sums) {
  const int64_t padded = (columns + block - 1) / block * block, blocks = padded / block;
  for (int64_t row = 0; row < rows; ++row)
    current()->quantize(bytes + row * padded, scales + row * blocks, sums + row * blocks, x + row * columns, columns, padded, block);
}

int64_t cg_page_bytes(const cg_model* model) { return Decoder::page_bytes(*model); }

void* cg_decoder_new(const cg_model* model) { return supported_shape(*model) ? new (std::nothrow) Decoder(*model) : nullptr; }

void cg_decoder_free(void* decoder) { delete static_cast<Decoder*>(decoder); }

int cg_decoder_run(void* decoder, const cg_batch* batch) {
  try {
    static_cast<Decoder*>(decoder)->run(*batch);
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}
