#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <utility>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/layers.h"
#include "config/values.h"
#include "core/temporary_folder.h"
#include "launch/launch.h"
#include "output/compare.h"

namespace xdit::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using output::PixelDifference;

Json as_json(const PixelDifference& difference, bool opaque) {
  const auto levels = [&](const std::array<std::uint8_t, 4>& rgba) {
    return Json(std::vector<int>(rgba.begin(), rgba.end() - (opaque ? 1 : 0)));
  };
  return {{"maximum", difference.maximum},
          {"mean", difference.mean},
          {"psnr_db", difference.psnr_db},
          {"pixels", difference.pixels},
          {"differing", difference.differing},
          {"share", static_cast<double>(difference.differing) / static_cast<double>(difference.pixels)},
          {"box", {difference.left, difference.top, difference.right, difference.bottom}},
          {"worst",
           {{"x", difference.worst.x},
            {"y", difference.worst.y},
            {"a", levels(difference.worst.a)},
            {"b", levels(difference.worst.b)}}}};
}

// "result": equal, encoding (same pixels and text), text (same pixels), pixels, size.
Json compare_files(const fs::path& a, const fs::path& b) {
  if (output::same_bytes(a, b, ExitCode::kUsage)) return {{"result", "equal"}};
  Json about{{"result", "encoding"}};
  const output::PngText text_a = output::read_png_text(a, ExitCode::kUsage);
  const output::PngText text_b = output::read_png_text(b, ExitCode::kUsage);
  for (const auto& [name, pair] : output::compare(text_a, text_b)) {
    about["result"] = "text";
    for (const auto& text : {pair.first, pair.second})
      about["text"][name].push_back(text ? Json(*text) : Json());
  }
  const output::Pixels x = output::read_png_pixels(a, ExitCode::kUsage);
  const output::Pixels y = output::read_png_pixels(b, ExitCode::kUsage);
  if (x.width != y.width || x.height != y.height) {
    about["result"] = "size";
    about["sizes"] = {{x.width, x.height}, {y.width, y.height}};
  } else if (const PixelDifference difference = output::compare(x, y); difference.maximum > 0) {
    about["result"] = "pixels";
    about["pixels"] = as_json(difference, x.opaque && y.opaque);
  }
  return about;
}

std::set<fs::path> pngs_below(const fs::path& folder) {
  std::set<fs::path> names;
  try {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder))
      if (entry.path().extension() == ".png" && entry.is_regular_file())
        names.insert(entry.path().lexically_relative(folder));
  } catch (const fs::filesystem_error& error) {
    throw Error(ExitCode::kUsage, error.code().message(), error.path1().string());
  }
  return names;
}

// Each PNG of either folder, by its name in both; also "missing" (from which) and "unreadable" (why).
Json compare_folders(const fs::path& a, const fs::path& b) {
  const std::set<fs::path> in_a = pngs_below(a);
  const std::set<fs::path> in_b = pngs_below(b);
  std::set<fs::path> all = in_a;
  all.insert(in_b.begin(), in_b.end());
  Json rows = Json::array();
  for (const fs::path& name : all) {
    Json row{{"name", config::valid_utf8(name.string())}};
    try {
      if (in_a.count(name) == 0 || in_b.count(name) == 0)
        row.update({{"result", "missing"}, {"from", in_a.count(name) == 0 ? "a" : "b"}});
      else
        row.update(compare_files(a / name, b / name));
    } catch (const Error& error) {
      row.update({{"result", "unreadable"}, {"where", error.where()}, {"why", error.message()}});
    }
    rows.push_back(row);
  }
  return rows;
}

std::string text_lines(const Json& texts) {
  std::string lines;
  for (const auto& [name, pair] : texts.items()) {
    const auto shown = [](const Json& text) {
      return text.is_null() ? "(none)" : config::in_quotes(text.get<std::string>());
    };
    lines += fmt::format("  {}: {} and {}\n", printable(name), shown(pair[0]), shown(pair[1]));
  }
  return lines;
}

std::string pixel_lines(const Json& pixels) {
  const Json& box = pixels.at("box");
  const Json& worst = pixels.at("worst");
  return fmt::format(
      "  {} levels apart at most, {:.3g} on average; PSNR {:.2f} dB\n"
      "  {} of {} pixels ({:.3g} %), all in x {} to {}, y {} to {}\n"
      "  worst at x {}, y {}: {} and {}\n",
      pixels.at("maximum").get<int>(), pixels.at("mean").get<double>(), pixels.at("psnr_db").get<double>(),
      pixels.at("differing").dump(), pixels.at("pixels").dump(), 100 * pixels.at("share").get<double>(),
      box[0].dump(), box[2].dump(), box[1].dump(), box[3].dump(), worst.at("x").dump(), worst.at("y").dump(),
      worst.at("a").dump(), worst.at("b").dump());
}

// For people: a line a picture, and what differs below it.
std::string as_text(const Json& row, const std::string& a, const std::string& b) {
  const std::string result = row.at("result");
  std::string text = row.contains("name") ? printable(row["name"].get<std::string>()) + ": " : "";
  if (result == "equal") text += "equal bytes";
  if (result == "encoding") text += "equal pixels and text, encoded otherwise";
  if (result == "text") text += "equal pixels, other text";
  if (result == "pixels") text += "other pixels";
  if (result == "size")
    text += fmt::format("sizes {} and {}", row["sizes"][0].dump(), row["sizes"][1].dump());
  if (result == "missing") text += "missing from " + printable(row["from"] == "a" ? a : b);
  if (result == "unreadable")
    text += printable(fmt::format("{} ({})", row["why"].get<std::string>(), row["where"].get<std::string>()));
  text += "\n";
  if (row.contains("pixels")) text += pixel_lines(row["pixels"]);
  if (row.contains("text")) text += text_lines(row["text"]);
  return text;
}

// "gpus=2 gather=2"
bool is_plan(const std::string& text) {
  std::error_code ignored;
  return text.find('=') != std::string::npos && !fs::exists(text, ignored);
}

// The run of the flags, spread as `plan` says.
Prepared with_plan(const Call& call, GenerateOptions options, const std::string& plan,
                   std::uint64_t drawn_from) {
  for (const std::string& assignment : config::split(plan, ' ')) {
    if (assignment.empty()) continue;
    options.settings.push_back(config::parse_assignment("parallel." + assignment));
    options.settings.back().where = config::in_quotes(plan);
  }
  std::mt19937 draw(static_cast<std::mt19937::result_type>(drawn_from));  // alike in both
  return prepare(options, call.environment, [&] { return draw(); });
}

Json compare_plans(const Call& call, const std::string& a, const std::string& b) {
  refuse_what_is_of_one_run(call.flags, "a comparison of plans", /*takes_stdin=*/false);
  const GenerateOptions options = read_generate_options(call.flags, std::cin);
  const TemporaryFolder folder;
  std::random_device entropy;
  const std::uint64_t drawn_from = entropy();
  std::map<std::string, Prepared> runs;  // by the names of their folders
  for (const auto& [name, plan] : {std::pair{"a", a}, {"b", b}}) {
    Prepared& run = runs.emplace(name, with_plan(call, options, plan, drawn_from)).first->second;
    run.resolved.spec.output = {};
    run.resolved.spec.output.path = (folder.path() / name / "{index}.png").string();
    static_cast<void>(parallel::make_plan(run.resolved.spec, run.model, launch::this_machine()));
  }
  for (const auto& [name, run] : runs) {
    ConsoleWithoutPaths console(options, run.resolved.spec, run.model.files.name, {});
    launch::Ranks ranks;
    const launch::Outcome made = launch::run(run.resolved.spec, run.models(), ranks, console, call.stop);
    console.note(fmt::format("{}: {:.2f} s", name == "a" ? a : b, made.report.wall_s));
  }
  return compare_folders(folder.path() / "a", folder.path() / "b");
}

ExitCode verify(const Call& call) {
  if (call.rest.size() != 2)
    throw Error(ExitCode::kUsage, "two pictures, two folders or two plans are compared", {},
                "xdit-gen verify out/42.png again/42.png");
  const std::string& a = call.rest.front();
  const std::string& b = call.rest.back();
  const bool plans = is_plan(a) && is_plan(b);
  const bool folders = plans || fs::is_directory(a);
  if (!plans && folders != fs::is_directory(b))
    throw Error(ExitCode::kUsage, "a folder is compared with a folder, a picture with a picture",
                folders ? b : a);
  Json rows = plans     ? compare_plans(call, a, b)
              : folders ? compare_folders(a, b)
                        : Json::array({compare_files(a, b)});
  if (rows.empty()) throw Error(ExitCode::kUsage, "no PNG in either folder", a);
  const auto equal = static_cast<std::size_t>(
      std::count_if(rows.begin(), rows.end(), [](const Json& row) { return row.at("result") == "equal"; }));
  if (call.flags.on("--json")) {
    print(Json{{"equal", equal == rows.size()}, {"pictures", rows}}.dump(-1, ' ', false,
                                                                         Json::error_handler_t::replace) +
          "\n");
  } else {
    std::string text;
    for (const Json& row : rows)
      if (!folders || row.at("result") != "equal") text += as_text(row, a, b);
    if (folders) text += fmt::format("{} of {} pictures: equal bytes\n", equal, rows.size());
    print(text);
  }
  return equal == rows.size() ? ExitCode::kOk : ExitCode::kPartial;
}

}  // namespace

Command verify_command() {
  return {.name = "verify",
          .arguments = "A B",
          .positionals = 2,
          .meaning =
              "two PNGs, the PNGs of two folders, or those that a run makes with two plans: equal bytes "
              "(exit 0), "
              "or how far apart and where (exit 9)",
          .examples = R"(xdit-gen verify out again
xdit-gen verify "gpus=1" "gpus=2 gather=2" --profile run.yaml
)",
          .add_flags = add_generate_flags,
          .run = verify};
}

}  // namespace xdit::cli
