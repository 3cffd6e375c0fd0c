#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/layers.h"
#include "config/values.h"
#include "core/file.h"
#include "models/registry.h"
#include "output/metadata.h"
#include "output/png.h"

namespace xdit::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::string_view kPngSignature = "\x89PNG\r\n\x1a\n";

bool is_png(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return false;
  std::string start(kPngSignature.size(), '\0');
  const File file = File::open_read(path, ExitCode::kUsage);
  return file.read_at(std::as_writable_bytes(std::span(start)), 0) == start.size() && start == kPngSignature;
}

Json inspect_png(const fs::path& path) {
  const output::PngText png = output::read_png_text(path, ExitCode::kUsage);
  Json about{{"kind", "picture"},
             {"path", config::valid_utf8(path.string())},
             {"width", png.width},
             {"height", png.height}};
  for (const output::TextChunk& chunk : png.chunks)
    if (chunk.keyword == "xdit-gen")
      about["settings"] =
          Json::parse(output::to_json(output::from_json(chunk.text, path.string(), ExitCode::kUsage)));
    else
      about["text"][chunk.keyword] = chunk.text;
  return about;
}

// Tensors, parameters, dtypes and bytes of a table of tensors.
Json inspect_tensors(const weights::TensorTable& table) {
  std::set<std::string> dtypes;
  std::uint64_t parameters = 0;
  std::uint64_t bytes = 0;
  for (const auto& [name, tensor] : table.tensors) {
    dtypes.emplace(safetensors_name(tensor.dtype));
    bytes += tensor.bytes;
    parameters += tensor.bytes / static_cast<std::uint64_t>(size_of(tensor.dtype));
  }
  return {
      {"tensors", table.tensors.size()}, {"parameters", parameters}, {"dtypes", dtypes}, {"bytes", bytes}};
}

// Adds what keeps a network from loading. Returns whether it would.
bool add_mismatch(const models::Model& model, const models::Network& network, Json& about) {
  const weights::Component& component = model.files.components.at(network.component);
  const weights::Mismatch mismatch =
      weights::compare(network.parameters, component.table, component.keys, network.ignored);
  if (!mismatch.missing.empty()) about["missing"] = mismatch.missing;
  if (!mismatch.extra.empty()) about["extra"] = mismatch.extra;
  for (const weights::Mismatch::Unfit& unfit : mismatch.unfit) about["unfit"][unfit.file_name] = unfit.why;
  return mismatch.missing.empty() && mismatch.extra.empty() && mismatch.unfit.empty();
}

Json inspect_model(const fs::path& path, const std::string& base) {
  // "dummy" asks for no tensors yet, so that all that are missing can be told.
  const models::Model model = models::open(fs::absolute(path).string(), base, {}, /*dummy=*/true);
  Json about{{"kind", "model"},
             {"path", config::valid_utf8(path.string())},
             {"name", config::valid_utf8(model.files.name)},
             {"family", model.family},
             {"pipeline", model.files.class_name},
             {"hash", weights::model_hash(model.files)},
             {"complete", true}};
  for (const config::Layer& layer : model_defaults(model))
    for (const config::Setting& setting : layer) about["defaults"][setting.key] = setting.values.front();
  for (const models::Network& network : model.networks) {
    const weights::Component& component = model.files.components.at(network.component);
    Json& part = about["components"][network.component];
    part["class"] = component.class_name;
    part.update(inspect_tensors(component.table));
    if (!add_mismatch(model, network, part)) about["complete"] = false;
  }
  return about;
}

// A safetensors file that is no model by itself: a shard, a component, a LoRA.
Json inspect_tensor_file(const fs::path& path, const Error& why) {
  const weights::TensorTable table = weights::read_safetensors(path);
  Json about{{"kind", "tensors"}, {"path", config::valid_utf8(path.string())}};
  about.update(inspect_tensors(table));
  about["names"] = Json::array();
  for (const auto& [name, tensor] : table.tensors) about["names"].push_back(name);
  if (!table.metadata.empty()) about["metadata"] = table.metadata;
  about["as_model"] = why.message();
  return about;
}

Json inspect_path(const std::string& name, const std::string& base) {
  if (is_png(name)) return inspect_png(name);
  const fs::path path = weights::find_model(name);
  try {
    return inspect_model(path, base);
  } catch (const Error& error) {
    std::error_code ignored;
    if (!fs::is_regular_file(path, ignored)) throw;
    return inspect_tensor_file(path, error);
  }
}

// For people: "key: value" lines, indented; long lists are cut.
std::string as_text(const Json& value, const std::string& indent = {}) {
  constexpr std::size_t kShown = 10;
  std::string text;
  for (const auto& [key, item] : value.items()) {
    text += indent + printable(key) + ":";
    if (item.is_object()) {
      text += "\n" + as_text(item, indent + "  ");
      continue;
    }
    if (item.is_array()) {
      for (std::size_t i = 0; i < std::min(item.size(), kShown); ++i)
        text += (i == 0 ? " " : ", ") + printable(item[i].get<std::string>());
      if (item.size() > kShown) text += fmt::format(" (and {} more)", item.size() - kShown);
    } else {
      text += " " + (item.is_string() ? printable(item.get<std::string>()) : item.dump());
    }
    text += "\n";
  }
  return text;
}

ExitCode inspect(const Call& call) {
  if (call.rest.empty())
    throw Error(ExitCode::kUsage, "no file to inspect", {}, "xdit-gen inspect out/42.png");
  const std::string& file = call.rest.front();
  Json about = inspect_path(file, call.flags.last("--base"));
  if (call.flags.on("--sha256")) about["sha256"] = weights::file_sha256(file);
  print(call.flags.on("--json") ? about.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"
                                : as_text(about));
  return about.value("complete", true) ? ExitCode::kOk : ExitCode::kModel;
}

}  // namespace

Command inspect_command() {
  return {.name = "inspect",
          .arguments = "FILE",
          .positionals = 1,
          .meaning =
              "what made a PNG, or what a model holds and lacks: a folder, a .safetensors file, owner/name",
          .examples = R"(xdit-gen inspect out/42.png
xdit-gen inspect models/FLUX.1-dev --json
)",
          .add_flags =
              [](Parser& parser) {
                parser.toggle("--json", "one JSON object");
                parser.toggle("--sha256", "adds the hash of the whole file");
                parser.value("--base", "DIR", "folder with the components that a single file lacks");
              },
          .run = inspect};
}

}  // namespace xdit::cli
