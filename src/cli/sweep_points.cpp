#include "cli/sweep_points.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <ctime>
#include <limits>
#include <random>
#include <set>

#include "cli/number.h"
#include "config/values.h"
#include "launch/launch.h"
#include "output/compare.h"
#include "output/path_template.h"
#include "output/png.h"
#include "weights/model_files.h"

namespace xdit::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLongestValue = 40;  // bytes of a value in the name of a folder
constexpr std::size_t kLongestName = 200;

// "gpus-2_steps-20"
std::string folder_name(const config::Layer& values, std::set<std::string>& taken) {
  std::string name;
  for (const config::Setting& value : values) {
    std::string text = fmt::format("{}", fmt::join(value.values, "+")).substr(0, kLongestValue);
    for (char& c : text)
      if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '.' && c != '+' && c != '-') c = '_';
    name += fmt::format("{}{}-{}", name.empty() ? "" : "_", value.key.substr(value.key.rfind('.') + 1), text);
  }
  name = name.substr(0, kLongestName);
  std::string unique = name;
  for (int i = 2; !taken.insert(unique).second; ++i) unique = fmt::format("{}-{}", name, i);
  return unique;
}

std::string label_of(const config::Layer& values) {
  std::string label;
  for (const config::Setting& value : values)
    label += fmt::format("{}{} {}", label.empty() ? "" : ", ", value.key, fmt::join(value.values, " + "));
  return label;
}

void refuse_own_files(const Prepared& run) {
  for (const char* key : {"output.report", "output.trace"})
    if (const config::Setting* asked = config::winner(run.layers, key);
        asked != nullptr && asked->values != std::vector<std::string>{""})
      throw Error(asked->code, fmt::format("{}: a sweep writes report.json into each point's folder", key),
                  asked->where, "xdit-gen generate");
}

std::string group_of(config::RunSpec spec) {
  spec.parallel = {};
  spec.output = {};
  return config::to_yaml(spec);
}

}  // namespace

SweepPlace sweep_place(const std::string& output) {
  const std::string fixed = output.substr(0, output.find_first_of("{%"));
  const bool is_template = output.ends_with(".png");
  if (!is_template && fixed != output)
    throw Error(ExitCode::kUsage, "the folder of a sweep holds no {...} and no %", config::in_quotes(output),
                "-o out/sweep, or -o 'out/sweep/{seed}.png'");
  const std::size_t slash = fixed.rfind('/');
  const std::size_t cut = slash == std::string::npos ? 0 : slash + 1;
  const std::string folder = is_template ? output.substr(0, cut) : output;
  fs::path normal = (fs::path(folder.empty() ? "." : folder) / "").lexically_normal();
  if (!normal.has_filename() && normal.has_parent_path()) normal = normal.parent_path();
  return {.folder = normal, .names = is_template ? output.substr(cut) : "{index}.png"};
}

bool ends_point_only(ExitCode code) {
  return code != ExitCode::kOutput && code != ExitCode::kInterrupted && code != ExitCode::kTerminated;
}

std::optional<parallel::Prediction> prediction_of(const Prepared& run, parallel::Machine machine) {
  const config::RunSpec& spec = run.resolved.spec;
  const auto asked = number<std::size_t>(spec.parallel.gpus);
  constexpr std::size_t kMost = 1024;  // GPUs that are worth a guess
  if (asked && *asked > machine.gpus.size() && *asked <= kMost && !machine.gpus.empty()) {
    machine.gpus.resize(*asked, machine.gpus.front());
    machine.links.clear();
  }
  try {
    const parallel::Plan plan = parallel::make_plan(spec, run.model, machine);
    return parallel::predict(plan, run.model, machine, spec, run.models().refiner);
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::vector<SweepPoint> settle_points(const std::vector<config::Axis>& axes, const GenerateOptions& options,
                                      const char* const* environment, const SweepPlace& place,
                                      std::uint64_t drawn_from, bool overwrite) {
  const parallel::Machine machine = launch::this_machine();
  const std::string date = output::local_date(std::time(nullptr));
  const std::vector<config::Layer> all = config::points_of(axes);
  std::vector<SweepPoint> points;
  points.reserve(all.size());
  std::set<std::string> taken;
  for (const config::Layer& values : all) {
    SweepPoint& point = points.emplace_back(SweepPoint{
        .values = values, .label = label_of(values), .folder = place.folder / folder_name(values, taken)});
    GenerateOptions own = options;
    own.job = values;
    try {
      std::mt19937 draw(static_cast<std::mt19937::result_type>(drawn_from));  // alike in every point
      point.run = prepare(own, environment, [&] { return draw(); });
      refuse_own_files(*point.run);
      config::RunSpec& spec = point.run->resolved.spec;
      point.group = group_of(spec);
      spec.output.path = (point.folder / place.names).string();
      spec.output.report = point.report().string();
      spec.output.overwrite = overwrite;
      spec.date = date;
      point.pictures = output::output_paths(spec.output.path, config::pictures(spec), date, overwrite);
      point.predicted = prediction_of(*point.run, machine);
      point.plan = parallel::make_plan(spec, point.run->model, machine);
    } catch (const Error& error) {
      if (!ends_point_only(error.code())) throw;
      point.fault = error;
    }
  }
  return points;
}

bool holds_same_run(const SweepPoint& point) {
  try {
    const std::vector<config::Layer> stored{config::read_profile(point.profile())};
    config::RunSpec spec = config::resolve(stored, [] { return std::uint64_t{0}; }).spec;
    config::RunSpec wanted = point.run->resolved.spec;
    spec.output.path = wanted.output.path;  // its own folder, however it was named
    spec.output.report = wanted.output.report;
    spec.output.overwrite = wanted.output.overwrite;
    spec.date = wanted.date;
    return spec == wanted;
  } catch (const Error&) {
    return false;
  }
}

bool is_complete(const SweepPoint& point) {
  const models::Model& model = point.run->model;
  try {
    const output::Measured measured = output::read_measured(point.report(), ExitCode::kOutput);
    if (measured.version != XDIT_VERSION) return false;  // pictures name it: bytes would differ
    if (measured.model_hash != (model.dummy ? "dummy" : weights::model_hash(model.files))) return false;
    for (const fs::path& picture : point.pictures)
      static_cast<void>(output::read_png_text(picture, ExitCode::kOutput));
    return holds_same_run(point);
  } catch (const Error&) {
    return false;
  }
}

bool check_equality(SweepPoint& point, std::span<const SweepPoint> before) {
  const SweepPoint* reference = nullptr;
  for (const SweepPoint& other : before)
    if (other.measured && other.group == point.group &&
        (reference == nullptr || (!reference->exact() && other.exact())))
      reference = &other;
  if (reference == nullptr) return true;
  std::size_t differing = 0;
  output::PixelDifference worst{.psnr_db = std::numeric_limits<double>::infinity()};
  for (std::size_t i = 0; i < point.pictures.size(); ++i) {
    const fs::path& a = reference->pictures.at(i);
    const fs::path& b = point.pictures[i];
    if (output::same_bytes(a, b, ExitCode::kOutput)) continue;
    ++differing;
    const output::Pixels x = output::read_png_pixels(a, ExitCode::kOutput);
    const output::Pixels y = output::read_png_pixels(b, ExitCode::kOutput);
    if (x.width != y.width || x.height != y.height)
      throw Error(ExitCode::kOutput, "a picture of another size than its run's", b.string(), "--overwrite");
    const output::PixelDifference difference = output::compare(x, y);
    if (difference.psnr_db < worst.psnr_db) worst = difference;
  }
  const bool promised = reference->exact() && point.exact();
  if (differing == 0)
    point.equality = "equal";
  else if (worst.maximum == 0)
    point.equality = "equal pixels";
  else
    point.equality = fmt::format("{} of {} differ: up to {} levels, PSNR {:.1f} dB", differing,
                                 point.pictures.size(), worst.maximum, worst.psnr_db);
  return differing == 0 || !promised;
}

}  // namespace xdit::cli
