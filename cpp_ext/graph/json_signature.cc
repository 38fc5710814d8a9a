#include "cpp_ext/graph/json_signature.h"

#include <algorithm>
#include <protozero/pbf_reader.hpp>

namespace tessera {
namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;

constexpr uint32_t kMapEntry = 1;  // of SignatureDefMap.signature_def and SignatureDef.inputs
constexpr uint32_t kMapKey = 1;
constexpr uint32_t kMapValue = 2;
constexpr uint32_t kInfoDtype = 2;
constexpr int kReferenceDtypes = 100;  // a variable's dtype is its values' plus this

struct Entry {
  std::string_view key, value;
};

// Moves to the next entry of a map; false at the end.
bool NextEntry(pbf_reader* message, Entry* entry) {
  while (message->next()) {
    if (message->tag() != kMapEntry || message->wire_type() != pbf_wire_type::length_delimited) {
      message->skip();
      continue;
    }
    *entry = {};
    pbf_reader fields = message->get_message();
    while (fields.next()) {
      const bool delimited = fields.wire_type() == pbf_wire_type::length_delimited;
      if (!delimited || fields.tag() > kMapValue) {
        fields.skip();
        continue;
      }
      const uint32_t tag = fields.tag();
      const protozero::data_view view = fields.get_view();
      (tag == kMapKey ? entry->key : entry->value) = {view.data(), view.size()};
    }
    return true;
  }
  return false;
}

int DtypeOf(std::string_view info) {
  pbf_reader fields(info.data(), info.size());
  int dtype = 0;
  while (fields.next()) {
    if (fields.tag() == kInfoDtype && fields.wire_type() == pbf_wire_type::varint) {
      dtype = fields.get_int32();
    } else {
      fields.skip();
    }
  }
  return dtype > kReferenceDtypes ? dtype - kReferenceDtypes : dtype;
}

}  // namespace

bool FindSignatureInputs(std::string_view signature_defs, std::string_view name, std::vector<JsonInput>* inputs) {
  inputs->clear();
  pbf_reader signatures(signature_defs.data(), signature_defs.size());
  Entry signature;
  while (NextEntry(&signatures, &signature)) {
    if (signature.key != name) continue;
    pbf_reader fields(signature.value.data(), signature.value.size());
    Entry input;
    while (NextEntry(&fields, &input)) inputs->push_back({input.key, DtypeOf(input.value)});
    std::sort(inputs->begin(), inputs->end(), [](const JsonInput& a, const JsonInput& b) { return a.alias < b.alias; });
    return true;
  }
  return false;
}

}  // namespace tessera
