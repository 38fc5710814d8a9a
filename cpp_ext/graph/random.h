// Chance, for decisions about one request: no lock, one generator a thread.
#ifndef TESSERA_CPP_EXT_GRAPH_RANDOM_H_
#define TESSERA_CPP_EXT_GRAPH_RANDOM_H_

#include <cstdint>
#include <random>

namespace tessera {

inline uint64_t RandomBits() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return generator();
}

// Maps 64 random bits into (0, 1).
inline double UnitInterval(uint64_t bits) { return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53; }

// True with a chance of `rate`, always for 1 and never for 0.
inline bool Sample(double rate) { return rate >= 1 || (rate > 0 && UnitInterval(RandomBits()) < rate); }

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_RANDOM_H_
