#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/nearest.h"
#include "weights/model_files.h"

namespace xdit::weights {
namespace fs = std::filesystem;
namespace {

/// huggingface_hub's own order: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, home.
fs::path cache_folder() {
  const auto value = [](const char* name) {
    const char* const text = std::getenv(name);
    return fs::path(text == nullptr ? "" : text);
  };
  if (fs::path hub = value("HF_HUB_CACHE"); !hub.empty()) return hub;
  if (const fs::path home = value("HF_HOME"); !home.empty()) return home / "hub";
  const fs::path cache = value("XDG_CACHE_HOME");
  return (cache.empty() ? value("HOME") / ".cache" : cache) / "huggingface" / "hub";
}

/// The entries of a folder that can be read, sorted; none where it cannot.
std::vector<std::string> entries(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto at = fs::directory_iterator(folder, error); !error && at != fs::directory_iterator();
       at.increment(error))
    names.push_back(at->path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// "models--owner--name" -> "owner/name", or "".
std::string model_of(const std::string& folder) {
  constexpr std::string_view kStart = "models--";
  const std::size_t middle = folder.find("--", kStart.size());
  if (!folder.starts_with(kStart) || middle == std::string::npos) return {};
  return folder.substr(kStart.size(), middle - kStart.size()) + "/" + folder.substr(middle + 2);
}

bool is_model_id(const std::string& name) {
  const std::size_t slash = name.find('/');
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '/';
  };
  return slash != std::string::npos && slash > 0 && slash + 1 < name.size() && name.rfind('/') == slash &&
         name.front() != '.' && name[slash + 1] != '.' && std::all_of(name.begin(), name.end(), allowed);
}

fs::path snapshot(const fs::path& model, const std::string& download) {
  const fs::path main = model / "refs" / "main";
  std::error_code ignored;
  if (fs::is_regular_file(main, ignored)) {
    std::string commit = read_file(main, ExitCode::kModel, 4096);
    commit.erase(commit.find_last_not_of(" \r\n") + 1);
    const bool is_name = !commit.empty() && commit.find('/') == std::string::npos && commit.front() != '.';
    if (is_name && fs::is_directory(model / "snapshots" / commit, ignored))
      return model / "snapshots" / commit;
  }
  const std::vector<std::string> snapshots = entries(model / "snapshots");
  if (snapshots.size() == 1) return model / "snapshots" / snapshots.front();
  if (snapshots.empty())
    throw Error(ExitCode::kModel, "the download has no snapshot", model.string(), download);
  throw Error(ExitCode::kModel,
              fmt::format("several snapshots and no refs/main that names one of them: {}",
                          fmt::join(snapshots, ", ")),
              model.string(), fmt::format("-m {}", (model / "snapshots" / snapshots.back()).string()));
}

}  // namespace

fs::path find_model(const std::string& name) {
  std::error_code ignored;
  if (!name.empty() && fs::exists(name, ignored)) return name;
  if (!is_model_id(name)) {
    const fs::path folder = fs::path(name).has_parent_path() ? fs::path(name).parent_path() : fs::path(".");
    const std::vector<std::string> beside = entries(folder);
    const std::string near = nearest(fs::path(name).filename().string(), beside);
    throw Error(
        ExitCode::kModel,
        "no such file or folder" + (near.empty() ? "" : "; did you mean " + (folder / near).string() + "?"),
        name, "-m FOLDER, -m FILE.safetensors, or -m owner/name of a downloaded model");
  }
  const fs::path cache = cache_folder();
  const std::size_t slash = name.find('/');
  const fs::path model = cache / fmt::format("models--{}--{}", name.substr(0, slash), name.substr(slash + 1));
  const std::string download = "hf download " + name;
  if (fs::is_directory(model, ignored)) return snapshot(model, download);

  std::vector<std::string> models;
  for (const std::string& entry : entries(cache))
    if (std::string there = model_of(entry); !there.empty()) models.push_back(std::move(there));
  throw Error(ExitCode::kModel,
              fmt::format("neither a file or folder here nor a model in {}{}", cache.string(),
                          models.empty() ? " (which holds none)" : ": " + suggest(name, models)),
              name, download);
}

}  // namespace xdit::weights
