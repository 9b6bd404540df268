// A ring of batches of blocks from one thread to one other. Who must wait sleeps, so that a process's CPU time holds
// work only.
#ifndef HAKMEM_BENCH_BATCH_RING_H_
#define HAKMEM_BENCH_BATCH_RING_H_

#include <semaphore.h>

#include <array>
#include <cerrno>
#include <cstddef>

namespace hak_bench {

constexpr size_t kMaxBatchBlocks = 100;

class BatchRing {
 public:
  BatchRing() {
    sem_init(&n_free_, 0, kPlaces);
    sem_init(&n_full_, 0, 0);
  }
  ~BatchRing() {
    sem_destroy(&n_free_);
    sem_destroy(&n_full_);
  }
  BatchRing(const BatchRing &) = delete;
  BatchRing &operator=(const BatchRing &) = delete;

  // The next batch to fill; waits for a free place.
  void **BeginPut() {
    Wait(&n_free_);
    return places_[n_put_ % kPlaces].data();
  }
  void EndPut() {
    ++n_put_;
    sem_post(&n_full_);
  }

  // The next batch to empty; waits for one.
  void **BeginTake() {
    Wait(&n_full_);
    return places_[n_taken_ % kPlaces].data();
  }
  void EndTake() {
    ++n_taken_;
    sem_post(&n_free_);
  }

 private:
  static constexpr unsigned kPlaces = 8;

  static void Wait(sem_t *semaphore) {
    while (sem_wait(semaphore) != 0 && errno == EINTR) {
    }
  }

  alignas(128) sem_t n_free_;
  alignas(128) sem_t n_full_;
  alignas(128) size_t n_put_ = 0;    // the putting thread's
  alignas(128) size_t n_taken_ = 0;  // the taking thread's
  alignas(128) std::array<std::array<void *, kMaxBatchBlocks>, kPlaces> places_{};
};

}  // namespace hak_bench

#endif  // HAKMEM_BENCH_BATCH_RING_H_
