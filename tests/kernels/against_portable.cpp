// Holds one instruction set's kernels against the portable ones, on a CPU or in an emulator: for CPUs that Python does not
// run on here. Prints what differs, and how many comparisons there were.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "kernels.h"

#ifndef CHATGLM_CHECKED
#error "name the table to check: -DCHATGLM_CHECKED=neon"
#endif

using namespace chatglm;

namespace {

std::mt19937 generator(1);
int compared = 0, wrong = 0;

std::vector<float> normal(size_t count, float scale = 1.0f) {
  std::normal_distribution<float> draw(0.0f, scale);
  std::vector<float> values(count);
  for (auto& value : values) value = draw(generator);
  return values;
}

// `tolerance` is relative to the largest of the expected values.
void close(const char* what, const std::vector<float>& got, const std::vector<float>& wanted, float tolerance) {
  float largest = 1e-30f, off = 0;
  for (const float value : wanted) largest = std::fmax(largest, std::fabs(value));
  for (size_t i = 0; i < wanted.size(); ++i) off = std::fmax(off, std::isnan(got[i]) ? INFINITY : std::fabs(got[i] - wanted[i]));
  ++compared;
  if (!(off <= tolerance * largest)) {
    ++wrong;
    std::printf("%s: off by %g of %g\n", what, off, largest);
  }
}

template <class T>
void same(const char* what, const std::vector<T>& got, const std::vector<T>& wanted) {
  ++compared;
  if (std::memcmp(got.data(), wanted.data(), wanted.size() * sizeof(T))) {
    ++wrong;
    std::printf("%s: differs\n", what);
  }
}

// Bytes with their scales and offsets as `Inputs` has them.
struct Laid {
  std::vector<int8_t> bytes;
  std::vector<float> scales;
  std::vector<int32_t> offsets;
};

Laid lay(const Kernels& k, const Weight& weight, const std::vector<float>& x, Inputs& in) {
  const int64_t blocks = weight.padded / weight.block;
  Laid laid{std::vector<int8_t>(in.rows * weight.padded), std::vector<float>(in.rows * blocks), std::vector<int32_t>(in.rows * blocks)};
  in.most = k.rows;
  in.few = k.few;
  for (int64_t part = 0; part < in.parts(); ++part) {
    const int64_t first = in.first(part), together = in.first(part + 1) - first;
    for (int64_t m = 0; m < together; ++m) {
      std::vector<int8_t> own(weight.padded);
      std::vector<float> scales(blocks);
      std::vector<int32_t> sums(blocks);
      k.quantize(own.data(), scales.data(), sums.data(), x.data() + (first + m) * weight.columns, weight.columns, weight.padded, weight.block);
      const int64_t eights = weight.padded / 8;
      for (int64_t i = 0; i < 2 * eights; ++i) {
        const int64_t eight = together == 1 ? i / 2 : eights - 1 - i / 2;
        std::memcpy(&laid.bytes[first * weight.padded + 4 * ((2 * eight + i % 2) * together + m)], &own[4 * i], 4);
      }
      for (int64_t i = 0; i < blocks; ++i) {
        laid.scales[first * blocks + i * together + m] = scales[i];
        laid.offsets[first * blocks + i * together + m] = sums[i] * (weight.kind == Kind::int4 ? -8 : -128);
      }
    }
  }
  in.bytes = laid.bytes.data();
  in.scales = laid.scales.data();
  in.offsets = laid.offsets.data();
  return laid;
}

void linear(const Kernels& k, Kind kind, int64_t rows, int64_t outputs, int64_t columns, int group) {
  Weight weight{};
  weight.rows = outputs;
  weight.columns = columns;
  weight.kind = kind;
  weight.group = group;
  weight.block = group ? group : 128;
  weight.padded = weight.integer() ? (columns + weight.block - 1) / weight.block * weight.block : columns;
  std::vector<uint8_t> data(weight.integer() ? weight.tiles() * 16 * weight.padded : outputs * columns * 4 + 64);
  std::vector<uint16_t> scales(weight.tiles() * 16 * (group ? weight.padded / group : 1));
  for (auto& byte : data) byte = static_cast<uint8_t>(generator());
  for (auto& scale : scales) scale = static_cast<uint16_t>(0x2000 + generator() % 0x400);
  if (!weight.integer()) {
    const auto plain = normal(outputs * columns);
    if (kind == Kind::single) std::memcpy(data.data(), plain.data(), plain.size() * 4);
    else if (kind == Kind::half) portable.to_half(reinterpret_cast<uint16_t*>(data.data()), plain.data(), plain.size());
    else for (size_t i = 0; i < plain.size(); ++i) std::memcpy(data.data() + 2 * i, reinterpret_cast<const char*>(&plain[i]) + 2, 2);
  }
  weight.data = data.data();
  weight.scales = scales.data();
  const auto x = normal(rows * columns);
  std::vector<float> outs[2];
  const Kernels* both[] = {&k, &portable};
  for (int which = 0; which < 2; ++which) {
    Inputs in{};
    in.rows = rows;
    in.floats = x.data();
    in.stride = columns;
    const Laid laid = weight.integer() ? lay(*both[which], weight, x, in) : Laid();
    outs[which].assign(rows * outputs, 0.5f);
    both[which]->linear(weight, in, 0, weight.tiles(), outs[which].data(), outputs, true);
  }
  char what[99];
  std::snprintf(what, sizeof what, "linear of kind %d, %ld x %ld x %ld, group %d", static_cast<int>(kind), long(rows), long(outputs), long(columns), group);
  close(what, outs[0], outs[1], 2e-5f);
}

void attention(const Kernels& k, Store store, int channels, int queries, int tokens) {
  constexpr int page = 64, groups = 2;
  const bool integers = store == Store::byte || store == Store::word;
  const int size = store == Store::byte ? 1 : store == Store::single ? 4 : 2, count = (tokens + page - 1) / page;
  const size_t scales = integers ? sizeof(float) : 0;  // of each token's keys, and of its values
  std::vector<std::vector<uint8_t>> memory(count, std::vector<uint8_t>(size_t(2) * groups * page * (channels * size + scales)));
  std::vector<int64_t> addresses;
  for (auto& one : memory) addresses.push_back(static_cast<int64_t>(reinterpret_cast<uintptr_t>(one.data())));
  const Pages pages{addresses.data(), 0, page, groups, channels, store};
  const auto keys = normal(size_t(tokens) * channels), values = normal(size_t(tokens) * channels);
  const auto asked = normal(size_t(queries) * channels, 1.0f / std::sqrt(float(channels)));
  std::vector<float> outs[2];
  const Kernels* both[] = {&k, &portable};
  for (int which = 0; which < 2; ++which) {
    for (int token = 0; token < tokens; ++token)
      both[which]->remember(pages, token, 1, keys.data() + size_t(token) * channels, values.data() + size_t(token) * channels);
    outs[which].assign(size_t(queries) * channels, 0);
    for (int first = 0; first < queries; first += both[which]->queries) {
      const float* of[kMostQueries];
      float* out[kMostQueries];
      int32_t visible[kMostQueries];
      int n = 0;
      for (; n < both[which]->queries && first + n < queries; ++n) {
        of[n] = asked.data() + size_t(first + n) * channels;
        out[n] = outs[which].data() + size_t(first + n) * channels;
        visible[n] = tokens - (first + n) % 7;
      }
      both[which]->attend(pages, 1, of, visible, n, out);
    }
  }
  char what[99];
  std::snprintf(what, sizeof what, "attention of %d channels, %d queries, %d tokens, store %d", channels, queries, tokens, static_cast<int>(store));
  // A query between two of its 15 bits' steps may go either way.
  close(what, outs[0], outs[1], store == Store::word ? 1e-4f : 2e-5f);
}

// Rows without a peak, whose sums of products are as large as can be: half of the tokens score c, the others -c, so a
// context is e^c of e^c + e^-c where the values of these are 1 and of those 0.
void even_attention(const Kernels& k, Store store, float size) {
  constexpr int page = 64, channels = kWidest, tokens = 2 * page;
  std::vector<uint8_t> memory[2];
  std::vector<int64_t> addresses;
  for (auto& one : memory) {
    one.resize(size_t(2) * page * (channels * sizeof(float) + sizeof(float)));
    addresses.push_back(static_cast<int64_t>(reinterpret_cast<uintptr_t>(one.data())));
  }
  const Pages pages{addresses.data(), 0, page, 1, channels, store};
  for (int token = 0; token < tokens; ++token) {
    const std::vector<float> key(channels, token % 2 ? size : -size), value(channels, token % 2 ? size : 0.0f);
    k.remember(pages, token, 0, key.data(), value.data());
  }
  const float c = 0.7f, half = std::exp(c) / (std::exp(c) + std::exp(-c));
  const std::vector<float> query(channels, c / size / channels);
  std::vector<float> got(channels);
  const float* of = query.data();
  float* out = got.data();
  const int32_t visible = tokens;
  k.attend(pages, 0, &of, &visible, 1, &out);
  char what[99];
  std::snprintf(what, sizeof what, "even attention, store %d, size %g", static_cast<int>(store), size);
  close(what, got, std::vector<float>(channels, half * size), 1e-3f);
}

void elementwise(const Kernels& k, int count) {
  const auto x = normal(count, 3.0f), w = normal(count), b = normal(count);
  std::vector<float> got(count), wanted(count);
  k.rms_norm(got.data(), x.data(), w.data(), 1e-5f, count);
  portable.rms_norm(wanted.data(), x.data(), w.data(), 1e-5f, count);
  close("rms_norm", got, wanted, 1e-6f);
  k.layer_norm(got.data(), x.data(), w.data(), b.data(), 1e-5f, count);
  portable.layer_norm(wanted.data(), x.data(), w.data(), b.data(), 1e-5f, count);
  close("layer_norm", got, wanted, 1e-6f);
  k.swiglu(got.data(), x.data(), w.data(), count);
  portable.swiglu(wanted.data(), x.data(), w.data(), count);
  close("swiglu", got, wanted, 1e-6f);
  got = wanted = x;
  k.gelu(got.data(), count);
  portable.gelu(wanted.data(), count);
  close("gelu", got, wanted, 1e-6f);
  std::vector<uint16_t> halves(count), others(count);
  k.to_half(halves.data(), x.data(), count);
  portable.to_half(others.data(), x.data(), count);
  same("to_half", halves, others);
  k.from_half(got.data(), halves.data(), count);
  portable.from_half(wanted.data(), halves.data(), count);
  same("from_half", got, wanted);
  k.from_brain(got.data(), halves.data(), count);
  portable.from_brain(wanted.data(), halves.data(), count);
  same("from_brain", got, wanted);
}

void quantize(const Kernels& k, int64_t columns, int block) {
  const int64_t padded = (columns + block - 1) / block * block, blocks = padded / block;
  auto x = normal(columns);
  std::vector<int8_t> bytes[2];
  std::vector<float> scales[2];
  std::vector<int32_t> sums[2];
  const Kernels* both[] = {&k, &portable};
  for (int which = 0; which < 2; ++which) {
    bytes[which].resize(padded);
    scales[which].resize(blocks);
    sums[which].resize(blocks);
    both[which]->quantize(bytes[which].data(), scales[which].data(), sums[which].data(), x.data(), columns, padded, block);
  }
  same("bytes", bytes[0], bytes[1]);
  same("scales", scales[0], scales[1]);
  same("sums", sums[0], sums[1]);
}

}  // namespace

int main() {
  const Kernels& k = CHATGLM_CHECKED;
  for (const int64_t columns : {32, 100, 384})
    for (const int block : {32, 64, 128}) quantize(k, columns, block);
  for (const Kind kind : {Kind::int4, Kind::int8})
    for (const int64_t rows : {1, 2, 3, 4, 5, 7, 8, 13})
      for (const int group : {0, 32, 64, 128}) linear(k, kind, rows, 50, 200, group);
  for (const Kind kind : {Kind::half, Kind::brain, Kind::single})
    for (const int64_t rows : {1, 5}) linear(k, kind, rows, 37, 77, 0);
  for (const Store store : {Store::single, Store::half, Store::byte, Store::word})
    for (const int channels : {16, 48, 128})
      for (const int queries : {1, 2, 3, 5, 16})
        for (const int tokens : {7, 64, 200}) attention(k, store, channels, queries, tokens);
  for (const Store store : {Store::single, Store::half, Store::byte, Store::word})
    for (const float size : {1e-3f, 1.0f, 1e3f}) even_attention(k, store, size);
  for (const int count : {1, 16, 77}) elementwise(k, count);
  std::printf("%s: %d of %d comparisons differ\n", k.name, wrong, compared);
  return wrong != 0;
}
