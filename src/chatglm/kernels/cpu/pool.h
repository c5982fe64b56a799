// One pool of threads for everything native. A job is one function that all threads run; inside they wait for one
// another at barriers and share out pieces of work through counters.
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
  // Runs job(thread) on every thread, the caller's among them; one job at a time.
  void run(const std::function<void(int)>& job);
  // For use inside of a job: returns when all threads have come here.
  void barrier();

 private:
  Pool() = default;
  void start();
  void stop();
  void work(int thread, uint64_t seen);

  std::mutex one_job_;
  std::vector<std::thread> workers_;
  int threads_ = 1;
  long process_ = 0;  // a forked child has none of its parent's threads
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
