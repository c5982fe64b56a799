// One pool of threads for all native code. A job is a function that all threads run. Within a job, threads wait for
// each other at barriers, and distribute pieces of work through counters.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace chatglm {

class Pool {
 public:
  static Pool& get();
  int threads() const { return threads_; }
  void resize(int threads);
  // Runs job(thread) on every thread, including the caller's. Only one job runs at a time.
  void run(const std::function<void(int)>& job);
  // Within a job: returns when all threads have reached the barrier.
  void barrier();
  // A decoder holds it while it allocates its buffers and runs a batch.
  std::mutex& batch() { return batch_; }

 private:
  static void renew();
  Pool() = default;
  void start();
  void stop();
  void work(int thread, uint64_t seen);

  static Pool* only_;
  std::mutex one_job_, batch_;
  std::vector<std::thread> workers_;
  int threads_ = 1;
  const std::function<void(int)>* job_ = nullptr;
  alignas(64) std::atomic<uint64_t> begun_{0};
  alignas(64) std::atomic<int> running_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> passed_{0};
  std::atomic<bool> ending_{false};
  std::mutex sleep_;
  std::condition_variable wake_;
};

}  // namespace chatglm
