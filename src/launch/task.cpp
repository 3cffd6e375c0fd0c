#include "launch/task.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "config/values.h"
#include "core/error.h"
#include "output/path_template.h"
#include "output/preview.h"
#include "weights/model_files.h"
#include "weights/model_stamp.h"

namespace xdit::config {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Picture, index, prompt, seed, variant)

}  // namespace xdit::config

namespace xdit::launch {
namespace {

using nlohmann::json;

// Key::print's text as Key::set reads it: texts without YAML's quotes.
std::vector<std::string> values_of(const config::Key& key, const config::RunSpec& spec) {
  const std::string printed = key.print(spec, key);
  if (key.type != config::kText && key.type != config::kTexts) return {printed};
  std::vector<std::string> values;
  for (const std::string& line : config::split(printed, '\n')) {
    const std::size_t quote = line.find('"');
    if (quote != std::string::npos) values.push_back(json::parse(line.substr(quote)).get<std::string>());
  }
  return values;
}

// Names of files hold any bytes, and YAML does not.
template <class Spec>
auto raw_texts(Spec& spec) {
  return std::array{&spec.model.path, &spec.model.base, &spec.model.tokenizers, &spec.model.refiner,
                    &spec.output.trace};
}

template <class Wanted>
json json_of(const config::RunSpec& spec, const Wanted& wanted) {
  json settings = json::object();
  for (const config::Key& key : config::keys())
    if (wanted(key.path)) settings[std::string(key.path)] = values_of(key, spec);
  return settings;
}

config::RunSpec spec_of(const json& settings) {
  config::RunSpec spec;
  for (const config::Key& key : config::keys()) {
    const auto found = settings.find(key.path);
    if (found == settings.end()) continue;
    const config::Setting setting{.key = std::string(key.path),
                                  .values = found->get<std::vector<std::string>>(),
                                  .where = "a task",
                                  .code = ExitCode::kInternal};
    key.set(spec, setting, key);
  }
  return spec;
}

json json_of_paths(const std::map<std::int64_t, std::filesystem::path>& paths) {
  json all = json::array();
  for (const auto& [index, path] : paths) all.push_back({index, path.string()});
  return all;
}

std::map<std::int64_t, std::filesystem::path> paths_of(const json& all) {
  std::map<std::int64_t, std::filesystem::path> paths;
  for (const json& path : all) paths.emplace(path.at(0).get<std::int64_t>(), path.at(1).get<std::string>());
  return paths;
}

}  // namespace

json json_of(const Task& task) {
  json raw = json::array();
  for (const std::string* text : raw_texts(task.spec)) raw.push_back(*text);
  json variants = json::array();
  if (!task.spec.variants.empty())
    for (const config::RunSpec& variant : config::variants_of(task.spec))
      variants.push_back(json_of(variant, [](std::string_view path) {
        return path == "negative_prompt" || path.starts_with("sampling.");
      }));
  return {{"settings", json_of(task.spec, [](std::string_view /*path*/) { return true; })},
          {"variants", std::move(variants)},
          {"raw", std::move(raw)},
          {"listed", task.spec.listed},
          {"machine", task.machine},
          {"paths", json_of_paths(task.paths)},
          {"previews", json_of_paths(task.previews)},
          {"model_hash", task.model_hash},
          {"weights", task.weights},
          {"last", task.last},
          {"started_s", task.started_s},
          {"umask", task.umask}};
}

Task task_of(const json& message) {
  Task task{.spec = spec_of(message.at("settings")),
            .machine = message.at("machine").get<parallel::Machine>(),
            .model_hash = message.at("model_hash").get<std::string>(),
            .weights = message.at("weights").get<std::string>(),
            .last = message.at("last").get<bool>(),
            .started_s = message.at("started_s").get<double>(),
            .umask = message.at("umask").get<mode_t>()};
  for (const json& settings : message.at("variants")) {
    config::RunSpec variant = spec_of(settings);
    task.spec.variants.push_back({std::move(variant.sampling), std::move(variant.negative_prompt)});
  }
  const json& raw = message.at("raw");
  for (std::size_t i = 0; std::string * text : raw_texts(task.spec)) *text = raw.at(i++).get<std::string>();
  task.spec.listed = message.at("listed").get<std::vector<config::Picture>>();
  task.paths = paths_of(message.at("paths"));
  task.previews = paths_of(message.at("previews"));
  return task;
}

std::string weights_text(const config::RunSpec& spec, const Models& models, const std::string& model_hash) {
  std::string refiner;
  if (models.refiner != nullptr) {
    refiner = weights::model_stamp(models.refiner->files);
    if (!models.refiner->dummy) refiner += weights::model_hash(models.refiner->files) + " ";
  }
  return fmt::format("{}{}{} {} {} {} {}", weights::model_stamp(models.model.files), refiner, model_hash,
                     flag_name(spec.model.dtype), static_cast<int>(spec.model.quantize),
                     static_cast<int>(spec.model.load_format), static_cast<int>(spec.runtime.device));
}

std::map<std::int64_t, std::filesystem::path> preview_paths(
    const config::RunSpec& spec, const models::Model& model,
    const std::map<std::int64_t, std::filesystem::path>& paths) {
  std::map<std::int64_t, std::filesystem::path> previews;
  if (spec.output.preview == 0) return previews;
  const auto refuse = [](const std::string& what, const std::string& where, const std::string& fix) {
    throw Error(ExitCode::kUsage, what, where, fix);
  };
  if (!output::projection_of(model.family, model.shape.latent_channels))
    refuse(fmt::format("no projection of {}'s latents of {} channels to colours is known", model.family,
                       model.shape.latent_channels),
           "--preview", "--preview 0");
  std::set<std::filesystem::path> pictures;
  for (const auto& [index, path] : paths) pictures.insert(output::whole_path(path));
  for (const config::Picture& picture : config::pictures(spec)) {
    const std::filesystem::path& path = paths.at(picture.index);
    std::filesystem::path preview = path;
    preview.replace_extension(".preview.png");
    if (!spec.output.preview_path.empty())
      preview = output::output_paths(spec.output.preview_path, {&picture, 1}, spec.date, true).front();
    if (pictures.contains(output::whole_path(preview)))
      refuse("previews and pictures want one file", "--preview-path", "--preview-path live.png");
    previews.emplace(picture.index, std::move(preview));
  }
  return previews;
}

mode_t current_umask() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return mask;
}

}  // namespace xdit::launch
