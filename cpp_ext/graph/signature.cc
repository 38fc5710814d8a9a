#include "cpp_ext/graph/signature.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

// "name" and "name:0" are the same tensor.
std::string Canonical(const std::string& tensor) {
  return tensor.find(':') == std::string::npos ? absl::StrCat(tensor, ":0") : tensor;
}

template <typename Item>
int FindAlias(const std::vector<Item>& items, absl::string_view alias) {
  const auto found = std::lower_bound(items.begin(), items.end(), alias,
                                      [](const Item& item, absl::string_view key) { return item.alias < key; });
  return found != items.end() && found->alias == alias ? static_cast<int>(found - items.begin()) : -1;
}

template <typename Item>
std::string JoinAliases(const std::vector<Item>& items) {
  return absl::StrJoin(items, ",", [](std::string* out, const Item& item) { out->append(item.alias); });
}

absl::Status CheckDense(const std::string& signature, const std::string& alias, const tf::TensorInfo& info) {
  if (info.encoding_case() == tf::TensorInfo::kName && !info.name().empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "signature ", signature, ": ", alias, " is not a dense tensor; sparse and composite tensors cannot be served"));
}

}  // namespace

absl::StatusOr<Signature> Signature::Make(const std::string& name, const tf::SignatureDef& def) {
  Signature signature;
  signature.name_ = name;
  signature.method_name_ = def.method_name();
  std::map<std::string, int> input_of;  // tensor → input
  // std::map sorts by alias; protobuf's map does not.
  for (const auto& [alias, info] : std::map<std::string, tf::TensorInfo>(def.inputs().begin(), def.inputs().end())) {
    absl::Status status = CheckDense(name, alias, info);
    if (!status.ok()) return status;
    SignatureInput input{alias, Canonical(info.name()), false, {}};
    if (const auto value = def.defaults().find(alias); value != def.defaults().end()) {
      input.has_default = signature.has_defaults_ = true;
      if (!input.default_value.FromProto(value->second)) {
        return absl::InvalidArgumentError(
            absl::StrCat("signature ", name, ": the default value of input ", alias, " cannot be read"));
      }
    }
    if (!input_of.emplace(input.tensor, static_cast<int>(signature.inputs_.size())).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("signature ", name, ": two inputs feed the tensor ", input.tensor));
    }
    signature.inputs_.push_back(std::move(input));
  }
  std::map<std::string, int> fetch_of;
  for (const auto& [alias, info] : std::map<std::string, tf::TensorInfo>(def.outputs().begin(), def.outputs().end())) {
    absl::Status status = CheckDense(name, alias, info);
    if (!status.ok()) return status;
    SignatureOutput output{alias, Canonical(info.name()), -1, -1};
    if (const auto input = input_of.find(output.tensor); input != input_of.end()) {
      output.input = input->second;
    } else {
      const auto [fetch, added] = fetch_of.emplace(output.tensor, static_cast<int>(signature.fetches_.size()));
      if (added) signature.fetches_.push_back(output.tensor);
      output.fetch = fetch->second;
    }
    signature.outputs_.push_back(std::move(output));
  }
  return signature;
}

int Signature::FindInput(absl::string_view alias) const { return FindAlias(inputs_, alias); }
int Signature::FindOutput(absl::string_view alias) const { return FindAlias(outputs_, alias); }

absl::Status Signature::CheckInputs(absl::Span<const absl::string_view> aliases, absl::Span<const int> positions,
                                    absl::Span<tf::Tensor> args) const {
  std::vector<absl::string_view> extra, missing;
  absl::InlinedVector<bool, 32> given(inputs_.size(), false);
  for (size_t i = 0; i < aliases.size(); ++i) {
    if (positions[i] < 0) {
      extra.push_back(aliases[i]);
    } else {
      given[positions[i]] = true;
    }
  }
  size_t first_missing = inputs_.size();
  for (size_t i = inputs_.size(); i-- > 0;) {
    if (given[i]) continue;
    if (inputs_[i].has_default) {
      args[i] = inputs_[i].default_value;
    } else {
      missing.push_back(inputs_[i].alias);
      first_missing = i;
    }
  }
  if (extra.empty() && missing.empty()) return absl::OkStatus();
  std::reverse(missing.begin(), missing.end());
  std::vector<absl::string_view> sorted(aliases.begin(), aliases.end());
  std::sort(sorted.begin(), sorted.end());
  std::sort(extra.begin(), extra.end());
  if (!has_defaults_ && aliases.size() != inputs_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("input size does not match signature: ", aliases.size(), "!=", inputs_.size(), " len({",
                     absl::StrJoin(sorted, ","), "}) != len({", JoinAliases(inputs_), "}). Sent extra: {",
                     absl::StrJoin(extra, ","), "}. Missing but required: {", absl::StrJoin(missing, ","), "}."));
  }
  if (first_missing < inputs_.size()) {
    std::vector<absl::string_view> defaults;
    for (const SignatureInput& input : inputs_) {
      if (input.has_default) defaults.push_back(input.alias);
    }
    const SignatureInput& input = inputs_[first_missing];
    return absl::InvalidArgumentError(
        absl::StrCat("Signature input alias: ", input.alias, "(feed name: ", input.tensor,
                     ") not found in request and no default value provided. Inputs expected "
                     "to be in the request {",
                     JoinAliases(inputs_), "}, or default input alias set: ", absl::StrJoin(defaults, ",")));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("Inputs contains invalid name. Used request inputs: ", JoinAliases(inputs_),
                   ", request input: ", absl::StrJoin(sorted, ",")));
}

absl::Status Signature::SelectOutputs(absl::Span<const absl::string_view> filter,
                                      absl::InlinedVector<const SignatureOutput*, 4>* selected) const {
  if (filter.empty()) {
    for (const SignatureOutput& output : outputs_) selected->push_back(&output);
    return absl::OkStatus();
  }
  for (const absl::string_view alias : filter) {
    const int position = FindOutput(alias);
    if (position < 0) {
      return absl::InvalidArgumentError(absl::StrCat("output tensor alias not found in signature: ", alias,
                                                     " Outputs expected to be in the set {", JoinAliases(outputs_),
                                                     "}."));
    }
    const SignatureOutput* output = &outputs_[static_cast<size_t>(position)];
    if (std::find(selected->begin(), selected->end(), output) != selected->end()) {
      return absl::InvalidArgumentError(absl::StrCat("duplicate output tensor alias: ", alias));
    }
    selected->push_back(output);
  }
  return absl::OkStatus();
}

}  // namespace tessera
