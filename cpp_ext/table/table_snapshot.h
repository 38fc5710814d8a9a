// What a process serves at one moment. Immutable once it is current.
#ifndef TESSERA_CPP_EXT_TABLE_TABLE_SNAPSHOT_H_
#define TESSERA_CPP_EXT_TABLE_TABLE_SNAPSHOT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cpp_ext/table/held_table.h"

namespace tessera {

struct HeldPackage {
  std::string model;
  int64_t version = 0;
  std::vector<std::shared_ptr<const HeldTable>> tables;  // in the order of the manifest; none is null
};

struct KnownPlacement {
  uint64_t epoch = 0;
  std::string document;
};

// The maps have a few entries, so that copying a snapshot, which copies pointers, is cheap.
struct TableSnapshot {
  std::map<std::string, std::shared_ptr<const HeldPackage>, std::less<>> packages;       // by digest
  std::map<std::string, std::shared_ptr<const KnownPlacement>, std::less<>> placements;  // by model
  bool draining = false;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_TABLE_TABLE_SNAPSHOT_H_
