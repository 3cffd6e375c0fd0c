#include "output/metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include "config/samplers.h"
#include "config/values.h"
#include "core/json.h"

namespace xdit::output {
namespace {

constexpr std::string_view kKeyword = "xdit-gen";

// Every field once: its name in JSON, the profile key that it replays ("" for none), and itself.
template <class Record, class Visit>
void visit_fields(Record& record, Visit&& visit) {
  visit("version", "", record.version);
  visit("model", "", record.model);
  visit("model_hash", "", record.model_hash);
  visit("load_format", "model.load_format", record.load_format);
  visit("quantize", "model.quantize", record.quantize);
  visit("prompt", "prompt", record.prompt);
  visit("negative_prompt", "negative_prompt", record.negative_prompt);
  visit("width", "image.width", record.width);
  visit("height", "image.height", record.height);
  visit("steps", "sampling.steps", record.steps);
  visit("scheduler", "sampling.scheduler", record.scheduler);
  visit("sigmas", "sampling.sigmas", record.sigmas);
  visit("guidance", "sampling.guidance", record.guidance);
  visit("cfg_scale", "sampling.cfg_scale", record.cfg_scale);
  visit("guidance_rescale", "sampling.guidance_rescale", record.guidance_rescale);
  visit("shift", "sampling.shift", record.shift);
  visit("timestep_spacing", "sampling.timestep_spacing", record.timestep_spacing);
  visit("prediction", "sampling.prediction", record.prediction);
  visit("refiner", "", record.refiner);
  visit("refiner_start", "sampling.refiner_start", record.refiner_start);
  visit("aesthetic_score", "sampling.aesthetic_score", record.aesthetic_score);
  visit("negative_aesthetic_score", "sampling.negative_aesthetic_score", record.negative_aesthetic_score);
  visit("original_size", "sampling.original_size", record.original_size);
  visit("crop", "sampling.crop", record.crop);
  visit("target_size", "sampling.target_size", record.target_size);
  visit("max_sequence_length", "sampling.max_sequence_length", record.max_sequence_length);
  visit("seed", "sampling.seed", record.seed);
  visit("rng_dtype", "sampling.rng_dtype", record.rng_dtype);
  visit("dtype", "model.dtype", record.dtype);
  visit("mode", "parallel.allow", record.mode);
}

// A value as text: what a setting holds, and what JSON holds for names.
std::string text_of(const std::string& value) {
  return value;
}
std::string text_of(std::int64_t value) {
  return fmt::format("{}", value);
}
std::string text_of(std::uint64_t value) {
  return fmt::format("{}", value);
}
std::string text_of(double value) {
  return fmt::format("{}", value);
}
std::string text_of(DType value) {
  return std::string(flag_name(value));
}
std::string text_of(config::LoadFormat value) {
  return value == config::LoadFormat::kAuto ? "auto" : "dummy";
}
std::string text_of(config::Quantize value) {
  return value == config::Quantize::kNone ? "none" : "fp8";
}
std::string text_of(config::Allow value) {
  if (value == config::Allow::kExact) return "exact";
  return value == config::Allow::kRounding ? "rounding" : "approximate";
}

// What most pictures have is left out.
bool is_default(const auto& value) {
  using T = std::decay_t<decltype(value)>;
  if constexpr (config::Enum<T> && !std::is_same_v<T, DType>) return value == T{};
  return false;
}
template <class T>
bool is_default(const std::optional<T>& value) {
  return !value;
}

template <class T>
constexpr bool kOptional = false;
template <class T>
constexpr bool kOptional<std::optional<T>> = true;

/// Reads fields of untrusted JSON, strictly.
struct FieldReader {
  const Json& json;
  const std::string& where;
  ExitCode code;

  [[noreturn]] void refuse(const std::string& name, const std::string& expected) const {
    throw Error(code, fmt::format("{}: expected {}", name, expected), where);
  }
  void read(const std::string& name, const Json& value, std::string& to) const {
    if (!value.is_string()) refuse(name, "text");
    to = value.get<std::string>();
  }
  void read(const std::string& name, const Json& value, std::int64_t& to) const {
    try {
      to = integer_of(value);
    } catch (const Json::exception&) {
      refuse(name, "an integer");
    }
  }
  void read(const std::string& name, const Json& value, std::uint64_t& to) const {
    if (!value.is_number_unsigned()) refuse(name, "an integer of at least 0");
    to = value.get<std::uint64_t>();
  }
  void read(const std::string& name, const Json& value, double& to) const {
    if (!value.is_number()) refuse(name, "a number");
    to = value.get<double>();
  }
  template <class T>
  void read(const std::string& name, const Json& value, std::optional<T>& to) const {
    read(name, value, to.emplace());
  }
  void read(const std::string& name, const Json& value, DType& to) const {
    const std::optional<DType> dtype =
        value.is_string() ? from_flag_name(value.get<std::string>()) : std::nullopt;
    if (!dtype) refuse(name, "a dtype");
    to = *dtype;
  }
  template <config::Enum E>
  void read(const std::string& name, const Json& value, E& to) const {
    for (int i = 0; i < 3; ++i) {
      to = static_cast<E>(i);
      if (value == text_of(to)) return;
    }
    refuse(name, "a known name");
  }
};

// A1111 quotes what its own parser would split.
std::string a1111_value(const std::string& value) {
  return value.find_first_of(",:\n") == std::string::npos ? value : nlohmann::json(value).dump();
}

std::string a1111_sampler(std::string scheduler) {
  constexpr std::string_view kFlow = "flow-match-";
  if (scheduler.starts_with(kFlow)) scheduler.erase(0, kFlow.size());  // it has one name for both
  for (const config::Sampler& sampler : config::samplers())
    if (sampler.name == scheduler && !sampler.a1111.empty()) return std::string(sampler.a1111);
  return scheduler;
}

// What a model's path ends with: never a folder of this machine.
std::string name_of(const std::string& path) {
  std::filesystem::path name = std::filesystem::path(path).lexically_normal();
  if (!name.has_filename()) name = name.parent_path();
  return config::valid_utf8((name.extension() == ".safetensors" ? name.stem() : name.filename()).string());
}

std::optional<std::string> extent(const std::optional<config::Extent>& sides) {
  return sides ? std::optional(fmt::format("{}x{}", sides->width, sides->height)) : std::nullopt;
}

}  // namespace

PictureRecord record_of(const config::RunSpec& spec, const config::Picture& picture, const std::string& model,
                        std::string_view model_hash) {
  const config::RunSpec::Sampling& sampling = spec.sampling;
  const bool refined = !spec.model.refiner.empty();
  return {
      .version = XDIT_VERSION,
      .model = config::valid_utf8(model),
      .model_hash = std::string(model_hash.substr(0, 10)),
      .load_format = spec.model.load_format,
      .quantize = spec.model.quantize,
      .prompt = config::valid_utf8(picture.prompt),
      .negative_prompt =
          spec.negative_prompt ? std::optional(config::valid_utf8(*spec.negative_prompt)) : std::nullopt,
      .width = spec.image.width,
      .height = spec.image.height,
      .steps = sampling.steps,
      .scheduler = sampling.scheduler,
      .sigmas = sampling.sigmas,
      .guidance = sampling.guidance,
      .cfg_scale = sampling.cfg_scale,
      .guidance_rescale = sampling.guidance_rescale,
      .shift = sampling.shift,
      .timestep_spacing =
          sampling.timestep_spacing == "auto" ? std::nullopt : std::optional(sampling.timestep_spacing),
      .original_size = extent(sampling.original_size),
      .crop = extent(sampling.crop),
      .target_size = extent(sampling.target_size),
      .prediction = sampling.prediction == "auto" ? std::nullopt : std::optional(sampling.prediction),
      .refiner = refined ? std::optional(name_of(spec.model.refiner)) : std::nullopt,
      .refiner_start = refined ? std::optional(sampling.refiner_start) : std::nullopt,
      .aesthetic_score = refined ? std::optional(sampling.aesthetic_score) : std::nullopt,
      .negative_aesthetic_score = refined ? std::optional(sampling.negative_aesthetic_score) : std::nullopt,
      .max_sequence_length = sampling.max_sequence_length,
      .seed = picture.seed,
      .rng_dtype = sampling.rng_dtype.value_or(spec.model.dtype),
      .dtype = spec.model.dtype,
      .grid = {}};
}

std::string a1111_parameters(const PictureRecord& record) {
  std::string text = record.prompt;
  if (!record.negative_prompt.value_or("").empty()) text += "\nNegative prompt: " + *record.negative_prompt;
  text += fmt::format("\nSteps: {}, Sampler: {}", record.steps, a1111_value(a1111_sampler(record.scheduler)));
  if (record.sigmas != "default")
    text += fmt::format(", Schedule type: {}", config::a1111_sigmas(record.sigmas));
  text += fmt::format(", CFG scale: {}", record.cfg_scale);
  if (record.guidance > 0) text += fmt::format(", Distilled CFG Scale: {}", record.guidance);
  text += fmt::format(", Seed: {}, Size: {}x{}", record.seed, record.width, record.height);
  if (!record.model_hash.empty()) text += ", Model hash: " + record.model_hash;
  text += ", Model: " + a1111_value(record.model) + ", Version: xdit-gen " + record.version;
  for (std::size_t at = 0; (at = text.find('\0', at)) != std::string::npos;)
    text.replace(at, 1, "\xef\xbf\xbd");
  return text;
}

std::string to_json(const PictureRecord& record) {
  nlohmann::ordered_json json;
  visit_fields(record, [&](const char* name, const char* /*key*/, const auto& value) {
    using T = std::decay_t<decltype(value)>;
    if (is_default(value)) return;
    if constexpr (kOptional<T>) {
      json[name] = *value;
    } else if constexpr (std::is_arithmetic_v<T>) {
      json[name] = value;
    } else {
      json[name] = text_of(value);
    }
  });
  if (!record.grid.empty()) json["grid"] = record.grid;
  return json.dump(-1, ' ', /*ensure_ascii=*/true);
}

PictureRecord from_json(std::string_view text, const std::string& where, ExitCode code) {
  const Json json = parse_json(text, where, code);
  PictureRecord record;
  const FieldReader reader{json, where, code};
  if (!json.is_object()) reader.refuse(std::string(kKeyword), "an object");
  std::vector<std::string> names{"grid"};
  visit_fields(record, [&](const char* name, const char* /*key*/, auto& value) {
    names.emplace_back(name);
    if (json.contains(name)) {
      reader.read(name, json[name], value);
    } else if (!is_default(value)) {
      throw Error(code, fmt::format("the settings lack {}", name), where);
    }
  });
  for (const auto& [name, value] : json.items()) {
    if (std::find(names.begin(), names.end(), name) == names.end())
      throw Error(code,
                  fmt::format("xdit-gen {} does not know the setting {} of this picture", XDIT_VERSION, name),
                  where, "the version that made it: " + record.version);
  }
  if (json.contains("grid")) {
    if (!json["grid"].is_object()) reader.refuse("grid", "an object");
    for (const auto& [name, value] : json["grid"].items())
      reader.read("grid." + name, value, record.grid[name]);
  }
  return record;
}

std::vector<TextChunk> text_chunks(const PictureRecord& record) {
  return {{"parameters", a1111_parameters(record)}, {std::string(kKeyword), to_json(record)}};
}

PictureRecord read_record(const std::filesystem::path& png) {
  const PngText text = read_png_text(png, ExitCode::kUsage);
  for (const TextChunk& chunk : text.chunks)
    if (chunk.keyword == kKeyword) return from_json(chunk.text, png.string(), ExitCode::kUsage);
  throw Error(ExitCode::kUsage, "no settings of xdit-gen in this picture", png.string(),
              "a PNG that xdit-gen wrote without --no-metadata");
}

config::Layer replay_layer(const PictureRecord& record, const std::string& where) {
  config::Layer layer;
  const auto add = [&](const std::string& key, const std::string& value) {
    layer.push_back({.key = key, .values = {value}, .where = where, .code = ExitCode::kUsage});
  };
  visit_fields(record, [&](const char* /*name*/, const std::string& key, const auto& value) {
    if (key.empty()) return;
    if constexpr (kOptional<std::decay_t<decltype(value)>>) {
      const bool has_auto = config::find_key(key)->type != config::kNumber;
      if (value || has_auto) add(key, value ? text_of(*value) : "auto");
      if (!value && key == "negative_prompt") layer.back().values.clear();  // "auto" is a text there
    } else {
      add(key, text_of(value));
    }
  });
  add("image.count", "1");
  if (record.load_format == config::LoadFormat::kDummy) add("model.path", record.model);  // a built-in name
  for (const auto& [name, value] : record.grid) add("parallel." + name, value);
  return layer;
}

}  // namespace xdit::output
