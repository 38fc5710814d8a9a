#include "cpp_ext/rpc/lookup_rows.h"

#include <algorithm>
#include <cstring>

#include "cpp_ext/base/hash.h"

namespace tessera {
namespace {

// Open addressing from (table, id) to the row's position; one a thread, reused so that a lookup allocates nothing.
class RowIndex {
 public:
  // Forgets everything and makes room for `rows`.
  void Reset(size_t rows) {
    size_t wanted = 64;
    while (wanted < 2 * rows) wanted *= 2;
    if (wanted > entries_.size()) {
      entries_.assign(wanted, Entry{});
      stamp_ = 0;
    }
    mask_ = wanted - 1;
    if (++stamp_ == 0) {  // wrapped: old entries would look current
      std::fill(entries_.begin(), entries_.end(), Entry{});
      stamp_ = 1;
    }
  }

  // Returns the position of the row, or `rows.size()` after having noted that it comes there.
  size_t FindOrAdd(const std::vector<LookupRow>& rows, uint32_t table, uint64_t id) {
    for (size_t at = MixBits(id + (uint64_t{table} << 40)) & mask_;; at = (at + 1) & mask_) {
      Entry& entry = entries_[at];
      if (entry.stamp != stamp_) {
        entry = {stamp_, static_cast<uint32_t>(rows.size())};
        return rows.size();
      }
      const LookupRow& row = rows[entry.row];
      if (row.id == id && row.table == table) return entry.row;
    }
  }

  // A large lookup must not leave its memory with every thread that ever saw one.
  void GiveBackIfLarge() {
    if (entries_.size() > kKeptEntries) entries_ = std::vector<Entry>();
  }

 private:
  static constexpr size_t kKeptEntries = 1 << 17;  // 1 MiB
  struct Entry {
    uint32_t stamp = 0;
    uint32_t row = 0;
  };
  std::vector<Entry> entries_;
  size_t mask_ = 0;
  uint32_t stamp_ = 0;
};

template <typename Id>
Status CollectGather(const TesseraRoute& route, const TesseraGather& gather, RowIndex* index,
                     std::vector<LookupRow>* rows, std::vector<LookupRepeat>* repeats) {
  const TesseraRoute::Table& table = route.table(gather.table);
  const uint8_t* ids = static_cast<const uint8_t*>(gather.ids);
  const size_t row_bytes = static_cast<size_t>(table.row_bytes);
  uint8_t* to = static_cast<uint8_t*>(gather.rows);
  for (size_t i = 0; i < gather.ids_count; ++i, to += row_bytes) {
    const int64_t id = LoadLittleEndian<Id>(ids + i * sizeof(Id));
    if (id < 0 || id >= table.rows) {
      return Status(Code::kInvalidArgument, "table \"" + table.name + "\": id " + std::to_string(id) + " at position " +
                                                std::to_string(i) + " is not in [0, " + std::to_string(table.rows) +
                                                ")");
    }
    const size_t row = index->FindOrAdd(*rows, gather.table, static_cast<uint64_t>(id));
    if (row < rows->size()) {
      repeats->push_back({(*rows)[row].to, to, row_bytes});
    } else {
      rows->push_back(
          {static_cast<uint64_t>(id), to, gather.table, table.bucket_slots[table.Bucket(static_cast<uint64_t>(id))]});
    }
  }
  return Status();
}

Status CheckGather(const TesseraRoute& route, const TesseraGather& gather) {
  if (gather.table >= route.table_count()) {
    return Status(Code::kInvalidArgument, "gather of table " + std::to_string(gather.table) + ", the route has only " +
                                              std::to_string(route.table_count()));
  }
  if (gather.id_width_bytes != 4 && gather.id_width_bytes != 8) {
    return Status(Code::kInvalidArgument, "gather of table \"" + route.table(gather.table).name +
                                              "\": id_width_bytes is " + std::to_string(gather.id_width_bytes) +
                                              ", expected 4 or 8");
  }
  return Status();
}

// Calls run(table, begin, end) for each run of positions with rows of one table.
template <typename Run>
void ForEachTable(const std::vector<LookupRow>& rows, const std::vector<uint32_t>& positions, Run run) {
  for (size_t begin = 0, end; begin < positions.size(); begin = end) {
    const uint32_t table = rows[positions[begin]].table;
    for (end = begin + 1; end < positions.size() && rows[positions[end]].table == table; ++end) {
    }
    run(table, begin, end);
  }
}

// kRowBytes 0: any size. A size known to the compiler makes a copy a few instructions instead of a call.
template <size_t kRowBytes>
size_t ScatterRun(LookupRow* rows, const uint32_t* positions, size_t count, const uint8_t* from, size_t row_bytes,
                  bool only_missing) {
  size_t copied = 0;
  for (size_t i = 0; i < count; ++i, from += row_bytes) {
    LookupRow& row = rows[positions[i]];
    if (only_missing) {
      if (row.done) continue;
      row.done = true;
    }
    memcpy(row.to, from, kRowBytes != 0 ? kRowBytes : row_bytes);
    ++copied;
  }
  return copied;
}

auto ScatterFor(size_t row_bytes) {
  switch (row_bytes) {
    case 4:
      return ScatterRun<4>;
    case 16:
      return ScatterRun<16>;
    case 32:
      return ScatterRun<32>;
    case 64:
      return ScatterRun<64>;
    case 128:
      return ScatterRun<128>;
    case 256:
      return ScatterRun<256>;
    default:
      return ScatterRun<0>;
  }
}

template <typename Id>
void WriteIds(const std::vector<LookupRow>& rows, const uint32_t* positions, size_t count, uint8_t* to) {
  for (size_t i = 0; i < count; ++i) {
    const Id id = static_cast<Id>(rows[positions[i]].id);
    memcpy(to + i * sizeof(Id), &id, sizeof(Id));
  }
}

}  // namespace

Status CollectRows(const TesseraRoute& route, const TesseraGather* gathers, size_t gathers_count,
                   std::vector<LookupRow>* rows, std::vector<LookupRepeat>* repeats) {
  size_t ids = 0;
  for (size_t i = 0; i < gathers_count; ++i) {
    if (Status status = CheckGather(route, gathers[i]); !status.ok()) return status;
    if (gathers[i].ids_count >= UINT32_MAX - ids) {
      return Status(Code::kResourceExhausted, "lookup of 2^32 or more ids");
    }
    ids += gathers[i].ids_count;
  }
  thread_local RowIndex index;
  index.Reset(ids);
  rows->reserve(ids);
  Status status;
  for (size_t i = 0; i < gathers_count && status.ok(); ++i) {
    status = gathers[i].id_width_bytes == 4 ? CollectGather<int32_t>(route, gathers[i], &index, rows, repeats)
                                            : CollectGather<int64_t>(route, gathers[i], &index, rows, repeats);
  }
  index.GiveBackIfLarge();
  return status;
}

void AppendRows(const TesseraRoute& route, const std::vector<LookupRow>& rows, const std::vector<uint32_t>& positions,
                LookupRequestWriter* writer) {
  ForEachTable(rows, positions, [&](uint32_t table, size_t begin, size_t end) {
    const bool wide = route.table(table).wide_ids;
    uint8_t* const to = writer->AddBlock(table, wide ? 8 : 4, end - begin);
    if (wide) {
      WriteIds<uint64_t>(rows, positions.data() + begin, end - begin, to);
    } else {
      WriteIds<uint32_t>(rows, positions.data() + begin, end - begin, to);
    }
  });
}

size_t ScatterRows(const TesseraRoute& route, std::vector<LookupRow>* rows, const std::vector<uint32_t>& positions,
                   const uint8_t* from, bool only_missing) {
  size_t copied = 0;
  ForEachTable(*rows, positions, [&](uint32_t table, size_t begin, size_t end) {
    const size_t row_bytes = static_cast<size_t>(route.table(table).row_bytes);
    copied += ScatterFor(row_bytes)(rows->data(), positions.data() + begin, end - begin, from, row_bytes, only_missing);
    from += (end - begin) * row_bytes;
  });
  return copied;
}

}  // namespace tessera
