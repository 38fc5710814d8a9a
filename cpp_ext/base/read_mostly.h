// A value that many threads read all the time and that is replaced, as a whole, now and then.
//
// A reader counts itself in and out, on a cache line that threads rarely share: some nanoseconds, no lock, no waiting.
// A writer replaces the pointer and waits until the readers that may still see the old value are out, then frees it, so
// that nothing lives longer than its last reader. A reader that reads for long makes writers wait, never readers.
//
// Thread-safety: Get from any thread; the methods that replace from any thread that holds no Reader of the same object.
#ifndef TESSERA_CPP_EXT_BASE_READ_MOSTLY_H_
#define TESSERA_CPP_EXT_BASE_READ_MOSTLY_H_

#include <time.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

namespace tessera {

// A small number of the calling thread; threads get successive ones, so that a few threads do not share.
inline uint32_t ThreadNumber() {
  static std::atomic<uint32_t> next{0};
  thread_local const uint32_t number = next.fetch_add(1, std::memory_order_relaxed);
  return number;
}

template <typename T>
class ReadMostly {
 public:
  // Access to the value that was current when it was made; valid as long as this object, which must stay on its thread.
  class Reader {
   public:
    ~Reader() { readers_->fetch_sub(1, std::memory_order_release); }
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;
    const T& operator*() const { return *value_; }
    const T* operator->() const { return value_; }

   private:
    friend class ReadMostly;
    Reader(std::atomic<int64_t>* readers, const std::atomic<const T*>& current) : readers_(readers) {
      // Sequentially consistent, as the writer's steps: either the writer sees this count, or this sees its new value.
      readers_->fetch_add(1, std::memory_order_seq_cst);
      value_ = current.load(std::memory_order_seq_cst);
    }
    std::atomic<int64_t>* const readers_;
    const T* value_;
  };

  // REQUIRES: not null.
  explicit ReadMostly(std::unique_ptr<const T> value) : current_(value.release()) {}
  // REQUIRES: nobody reads any more.
  ~ReadMostly() { delete current_.load(std::memory_order_relaxed); }
  ReadMostly(const ReadMostly&) = delete;
  ReadMostly& operator=(const ReadMostly&) = delete;

  Reader Get() const {
    Cell& cell = cells_[ThreadNumber() % kCells];
    return Reader(&cell.readers[phase_.load(std::memory_order_relaxed)], current_);
  }

  // Replaces the value by `make(value)`, a unique_ptr; changes by several threads happen one after the other.
  template <typename Make>
  void Replace(Make make) {
    const std::lock_guard<std::mutex> lock(writers_);
    const T* old_value = current_.load(std::memory_order_relaxed);
    std::unique_ptr<const T> new_value = make(*old_value);
    current_.store(new_value.release(), std::memory_order_seq_cst);
    // New readers count in the other phase, so that a stream of them cannot keep the count of this one above zero. Both
    // phases are waited for, because a reader may have read the phase long before it counts itself in.
    for (int turn = 0; turn < 2; ++turn) {
      const int phase = phase_.load(std::memory_order_relaxed);
      phase_.store(1 - phase, std::memory_order_seq_cst);
      for (const Cell& cell : cells_) WaitForZero(cell.readers[phase]);
    }
    delete old_value;
  }

 private:
  static constexpr uint32_t kCells = 64;
  struct alignas(64) Cell {
    std::atomic<int64_t> readers[2] = {};
  };

  static void WaitForZero(const std::atomic<int64_t>& readers) {
    while (readers.load(std::memory_order_seq_cst) != 0) {
      const timespec pause{0, 20'000};  // a lookup takes about this long
      nanosleep(&pause, nullptr);
    }
  }

  std::mutex writers_;
  std::atomic<const T*> current_;
  std::atomic<int> phase_{0};
  mutable Cell cells_[kCells];
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BASE_READ_MOSTLY_H_
