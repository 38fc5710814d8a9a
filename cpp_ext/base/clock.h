// The clock of the native core: nanoseconds of CLOCK_MONOTONIC, as in abi.h.
#ifndef TESSERA_CPP_EXT_BASE_CLOCK_H_
#define TESSERA_CPP_EXT_BASE_CLOCK_H_

#include <time.h>

#include <cstdint>

namespace tessera {

inline int64_t MonotonicNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);  // cannot fail: the clock exists on every Linux
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BASE_CLOCK_H_
