#include "cpp_ext/graph/request_view.h"

#include <algorithm>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "protozero/pbf_reader.hpp"

namespace tessera {
namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;
using Choice = ModelSpecView::Choice;

constexpr uint32_t kPredictModelSpec = 1;
constexpr uint32_t kPredictInputs = 2;
constexpr uint32_t kPredictOutputFilter = 3;
constexpr uint32_t kPredictClientId = 6;
constexpr uint32_t kPredictOptions = 7;
constexpr uint32_t kOptionsClientId = 1;
constexpr uint32_t kMapKey = 1;
constexpr uint32_t kMapValue = 2;
constexpr uint32_t kSpecName = 1;
constexpr uint32_t kSpecVersion = 2;
constexpr uint32_t kSpecSignature = 3;
constexpr uint32_t kSpecLabel = 4;
constexpr uint32_t kWrappedValue = 1;
constexpr uint32_t kInferenceModelSpec = 1;
constexpr uint32_t kInferenceInput = 2;
constexpr uint32_t kInputList = 1;
constexpr uint32_t kInputListWithContext = 2;
constexpr uint32_t kListExamples = 1;
constexpr uint32_t kListContext = 2;
constexpr uint32_t kMultiTasks = 1;
constexpr uint32_t kMultiInput = 2;
constexpr uint32_t kTaskModelSpec = 1;
constexpr uint32_t kTaskMethodName = 2;

absl::string_view View(protozero::data_view view) { return {view.data(), view.size()}; }

// Calls `visit(field)`, which has to read the field, with every length-delimited field of `message`; skips the others.
template <typename Visit>
void ForEachDelimited(pbf_reader message, Visit visit) {
  while (message.next()) {
    if (message.wire_type() == pbf_wire_type::length_delimited) {
      visit(message);
    } else {
      message.skip();
    }
  }
}

void ReadVersion(pbf_reader wrapped, ModelSpecView* spec) {
  if (spec->choice != Choice::kVersion) spec->version = 0;
  spec->choice = Choice::kVersion;
  while (wrapped.next()) {
    if (wrapped.tag() == kWrappedValue && wrapped.wire_type() == pbf_wire_type::varint) {
      spec->version = wrapped.get_int64();
    } else {
      wrapped.skip();
    }
  }
}

void ReadModelSpec(const pbf_reader& message, ModelSpecView* spec) {
  spec->has_model_spec = true;
  ForEachDelimited(message, [spec](pbf_reader& field) {
    switch (field.tag()) {
      case kSpecName:
        spec->model = View(field.get_view());
        break;
      case kSpecSignature:
        spec->signature = View(field.get_view());
        break;
      case kSpecLabel:
        spec->label = View(field.get_view());
        spec->choice = Choice::kLabel;
        break;
      case kSpecVersion:
        ReadVersion(field.get_message(), spec);
        break;
      default:
        field.skip();
    }
  });
}

// What one message field is after another occurrence of it: its parts one after the other.
void Merge(absl::string_view part, absl::string_view* whole, std::deque<std::string>* owned) {
  if (whole->empty()) {
    *whole = part;
    return;
  }
  if (owned->empty() || owned->back().data() != whole->data()) owned->emplace_back(*whole);
  owned->back().append(part.data(), part.size());
  *whole = owned->back();
}

RequestView::Input ReadInput(const pbf_reader& entry, std::deque<std::string>* owned) {
  RequestView::Input input;
  ForEachDelimited(entry, [&](pbf_reader& field) {
    if (field.tag() == kMapKey) {
      input.alias = View(field.get_view());
    } else if (field.tag() == kMapValue) {
      Merge(View(field.get_view()), &input.tensor, owned);
    } else {
      field.skip();
    }
  });
  return input;
}

// Keeps the last entry of each alias. Requests have few inputs, so comparing all pairs is cheapest; many go by hash.
void DropRepeatedInputs(RequestView* view) {
  auto& inputs = view->inputs;
  if (inputs.size() < 2) return;
  std::unordered_map<absl::string_view, size_t> last;
  const bool many = inputs.size() > 32;
  if (many) {
    for (size_t i = 0; i < inputs.size(); ++i) last[inputs[i].alias] = i;
  }
  const auto repeated_later = [&](size_t i) {
    if (many) return last[inputs[i].alias] != i;
    return std::any_of(inputs.begin() + i + 1, inputs.end(),
                       [&](const RequestView::Input& later) { return later.alias == inputs[i].alias; });
  };
  size_t kept = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!repeated_later(i)) inputs[kept++] = inputs[i];
  }
  inputs.resize(kept);
}

void ReadPredict(const pbf_reader& message, RequestView* view) {
  absl::string_view own_client_id;
  ForEachDelimited(message, [&](pbf_reader& field) {
    switch (field.tag()) {
      case kPredictModelSpec:
        ReadModelSpec(field.get_message(), view);
        break;
      case kPredictInputs:
        view->inputs.push_back(ReadInput(field.get_message(), &view->owned));
        break;
      case kPredictOutputFilter:
        view->output_filter.push_back(View(field.get_view()));
        break;
      case kPredictClientId:
        own_client_id = View(field.get_view());
        break;
      case kPredictOptions:
        ForEachDelimited(field.get_message(), [view](pbf_reader& option) {
          if (option.tag() == kOptionsClientId) {
            view->client_id = View(option.get_view());
          } else {
            option.skip();
          }
        });
        break;
      default:
        field.skip();
    }
  });
  if (!own_client_id.empty()) view->client_id = own_client_id;
  DropRepeatedInputs(view);
}

void ReadExamples(const pbf_reader& list, RequestView::Examples kind, RequestView* view) {
  if (view->examples_kind != kind) {  // the other member of the oneof is gone
    view->examples.clear();
    view->context.clear();
  }
  view->examples_kind = kind;
  ForEachDelimited(list, [&](pbf_reader& field) {
    if (field.tag() == kListExamples) {
      view->examples.push_back(View(field.get_view()));
    } else if (field.tag() == kListContext && kind == RequestView::Examples::kListWithContext) {
      view->context.push_back(View(field.get_view()));
    } else {
      field.skip();
    }
  });
}

void ReadInferenceInput(const pbf_reader& input, RequestView* view) {
  ForEachDelimited(input, [view](pbf_reader& field) {
    if (field.tag() == kInputList) {
      ReadExamples(field.get_message(), RequestView::Examples::kList, view);
    } else if (field.tag() == kInputListWithContext) {
      ReadExamples(field.get_message(), RequestView::Examples::kListWithContext, view);
    } else {
      field.skip();
    }
  });
}

void ReadInference(const pbf_reader& message, RequestView* view) {
  ForEachDelimited(message, [view](pbf_reader& field) {
    if (field.tag() == kInferenceModelSpec) {
      ReadModelSpec(field.get_message(), view);
    } else if (field.tag() == kInferenceInput) {
      ReadInferenceInput(field.get_message(), view);
    } else {
      field.skip();
    }
  });
}

RequestView::Task ReadTask(const pbf_reader& message) {
  RequestView::Task task;
  ForEachDelimited(message, [&task](pbf_reader& field) {
    if (field.tag() == kTaskModelSpec) {
      ReadModelSpec(field.get_message(), &task.spec);
    } else if (field.tag() == kTaskMethodName) {
      task.method_name = View(field.get_view());
    } else {
      field.skip();
    }
  });
  return task;
}

void ReadMultiInference(const pbf_reader& message, RequestView* view) {
  ForEachDelimited(message, [view](pbf_reader& field) {
    if (field.tag() == kMultiTasks) {
      view->tasks.push_back(ReadTask(field.get_message()));
    } else if (field.tag() == kMultiInput) {
      ReadInferenceInput(field.get_message(), view);
    } else {
      field.skip();
    }
  });
  if (!view->tasks.empty()) static_cast<ModelSpecView&>(*view) = view->tasks.front().spec;
}

constexpr const char* kMessageNames[] = {"PredictRequest", "ClassificationRequest", "RegressionRequest",
                                         "MultiInferenceRequest"};

}  // namespace

absl::Status ParseRequest(Method method, absl::string_view message, RequestView* view) {
  try {
    const pbf_reader reader(message.data(), message.size());
    switch (method) {
      case Method::kPredict:
        ReadPredict(reader, view);
        break;
      case Method::kClassify:
      case Method::kRegress:
        ReadInference(reader, view);
        break;
      case Method::kMultiInference:
        ReadMultiInference(reader, view);
        break;
    }
  } catch (const protozero::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(kMessageNames[static_cast<int>(method)], ": the message of ",
                                                   message.size(), " bytes cannot be parsed: ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace tessera
