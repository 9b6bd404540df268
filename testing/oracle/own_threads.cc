#include "testing/oracle/own_threads.h"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/functional/function_ref.h"

namespace hak_oracle {
namespace {

using Task = absl::FunctionRef<void()>;

// A thread that executes one task after the other, each while its caller waits. With the standard library's lock, since
// ThreadSanitizer does not see that of an Abseil that was built without it.
class Worker {
 public:
  Worker() : thread_([this] { Work(); }) {}
  ~Worker() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void Do(Task task) {
    std::unique_lock<std::mutex> lock(mutex_);
    task_ = &task;
    changed_.notify_all();
    changed_.wait(lock, [this] { return task_ == nullptr; });
  }

 private:
  void Work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return task_ != nullptr || ending_; });
      if (task_ == nullptr) return;
      (*task_)();
      task_ = nullptr;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  const Task *task_ = nullptr;
  bool ending_ = false;
  std::thread thread_;  // the last member: uses the others
};

class OwnThread : public AllocatorThread {
 public:
  explicit OwnThread(Allocator *allocator) {
    worker_.Do([&] { thread_ = allocator->StartThread(); });
  }
  ~OwnThread() override {
    worker_.Do([&] { thread_.reset(); });
  }

  void *Malloc(size_t size, size_t alignment) override {
    void *p = nullptr;
    worker_.Do([&] { p = thread_->Malloc(size, alignment); });
    return p;
  }

  void *Calloc(size_t size, size_t *zero_bytes) override {
    void *p = nullptr;
    worker_.Do([&] { p = thread_->Calloc(size, zero_bytes); });
    return p;
  }

  void *Resize(void *p, size_t size) override {
    void *resized = nullptr;
    worker_.Do([&] { resized = thread_->Resize(p, size); });
    return resized;
  }

  void Free(void *p) override {
    worker_.Do([&] { thread_->Free(p); });
  }

  // Needs no thread of its own, and is asked for more often than all others.
  size_t UsableSize(const void *p) override { return thread_->UsableSize(p); }

  void Trim(size_t keep_bytes) override {
    worker_.Do([&] { thread_->Trim(keep_bytes); });
  }

  void Wait(uint64_t ms) override {
    worker_.Do([&] { thread_->Wait(ms); });
  }

 private:
  Worker worker_;
  std::unique_ptr<AllocatorThread> thread_;
};

class OwnThreads : public Allocator {
 public:
  explicit OwnThreads(std::unique_ptr<Allocator> allocator) : allocator_(std::move(allocator)) {}

  std::unique_ptr<AllocatorThread> StartThread() override { return std::make_unique<OwnThread>(allocator_.get()); }

  size_t min_alignment() const override { return allocator_->min_alignment(); }
  bool always_resizes() const override { return allocator_->always_resizes(); }
  bool Owns(const void *p) const override { return allocator_->Owns(p); }
  void CheckNothingHeld() override { allocator_->CheckNothingHeld(); }

 private:
  const std::unique_ptr<Allocator> allocator_;
};

}  // namespace

std::unique_ptr<Allocator> InOwnThreads(std::unique_ptr<Allocator> allocator) {
  return std::make_unique<OwnThreads>(std::move(allocator));
}

}  // namespace hak_oracle
