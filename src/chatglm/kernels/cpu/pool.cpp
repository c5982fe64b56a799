#include "pool.h"

#include <chrono>
#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace chatglm {
namespace {

inline void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins for about as long as the next phase usually takes to come, then yields to other threads.
template <class Condition>
void wait_busily(Condition done) {
  for (int i = 0; !done(); ++i) {
    if (i < 4000) relax();
    else std::this_thread::yield();
  }
}

// Before workers sleep, they wait for the next job: first busily, for kBusy, then yielding, up to kAwake. Between two
// steps of a small model, Python runs for half a millisecond; to wake a thread takes half as long as such a step.
constexpr auto kBusy = std::chrono::microseconds(150), kAwake = std::chrono::microseconds(1000);

}  // namespace

Pool* Pool::only_ = nullptr;

Pool& Pool::get() {
  // Never destroyed: threads may still use it when the process ends.
  static const bool ready = [] {
    only_ = new Pool;
#if !defined(_WIN32)
    pthread_atfork(nullptr, nullptr, renew);
#endif
    return true;
  }();
  (void)ready;
  return *only_;
}

// Runs in the child after a fork: the parent's threads do not exist there, and one of them may have held a lock.
void Pool::renew() {
  const int threads = only_->threads_;
  only_ = new Pool;
  only_->threads_ = threads;
}

void Pool::resize(int threads) {
  std::lock_guard<std::mutex> guard(one_job_);
  if (!workers_.empty()) stop();
  threads_ = threads < 1 ? 1 : threads;
}

void Pool::start() {
  if (!workers_.empty()) return;
  ending_ = false;
  arrived_ = 0;
  running_ = 0;
  const uint64_t seen = begun_.load();
  for (int i = 1; i < threads_; ++i) workers_.emplace_back([this, i, seen] { work(i, seen); });
}

void Pool::stop() {
  {
    std::lock_guard<std::mutex> guard(sleep_);
    ending_ = true;
    begun_.fetch_add(1);
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
  workers_.clear();
}

void Pool::run(const std::function<void(int)>& job) {
  std::lock_guard<std::mutex> guard(one_job_);
  if (threads_ == 1) return job(0);
  start();
  job_ = &job;
  running_.store(threads_ - 1, std::memory_order_relaxed);
  {
    std::lock_guard<std::mutex> awake(sleep_);
    begun_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  job(0);
  wait_busily([this] { return running_.load(std::memory_order_acquire) == 0; });
  job_ = nullptr;
}

void Pool::work(int thread, uint64_t seen) {
  for (;;) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; begun_.load(std::memory_order_acquire) == seen; ++i) {
      relax();
      if (i % 64 != 63) continue;
      const auto waited = std::chrono::steady_clock::now() - begin;
      if (waited > kAwake) {
        std::unique_lock<std::mutex> guard(sleep_);
        wake_.wait(guard, [&] { return begun_.load(std::memory_order_acquire) != seen; });
      } else if (waited > kBusy) {
        std::this_thread::yield();
      }
    }
    if (ending_) return;
    ++seen;
    (*job_)(thread);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

void Pool::barrier() {
  if (threads_ == 1) return;
  const uint32_t turn = passed_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    passed_.fetch_add(1, std::memory_order_release);
  } else {
    wait_busily([&] { return passed_.load(std::memory_order_acquire) != turn; });
  }
}

}  // namespace chatglm
