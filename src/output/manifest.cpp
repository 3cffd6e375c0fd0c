#include "output/manifest.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>
#include <system_error>

#include "config/values.h"
#include "core/lock.h"

namespace xdit::output {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxBytes = std::size_t{4} << 30U;
constexpr std::string_view kBegin = R"({"batch":)";  // of the first line

[[noreturn]] void fail(const std::filesystem::path& path, int reason) {
  throw Error(ExitCode::kOutput, fmt::format("cannot write: {}", std::strerror(reason)), path.string());
}

[[noreturn]] void refuse_begun(const std::filesystem::path& path) {
  throw Error(ExitCode::kOutput, "a batch was begun there", path.string(),
              "--resume goes on with it, --overwrite begins again");
}

// `more`: O_CREAT | O_EXCL for a new file; else none where there is none.
File open_for_appending(const std::filesystem::path& path, int more) {
  const int descriptor =
      ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | more, 0666);  // NOLINT(*-vararg)
  if (descriptor < 0 && errno == EEXIST) refuse_begun(path);
  if (descriptor < 0 && (errno != ENOENT || more != 0)) fail(path, errno);
  File file(descriptor, path, ExitCode::kOutput);
  if (descriptor < 0) return file;
  lock_alone(file, path, "another batch writes there", "another -o, or --manifest");
  return file;
}

std::string settings_of(PictureRecord record) {
  record.mode = config::Allow::kExact;
  record.grid.clear();
  return to_json(record);
}

std::string shown(const std::filesystem::path& path) {
  return config::valid_utf8(path.string());
}

std::string now() {
  const std::time_t time = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&time, &utc);
  std::string text(32, '\0');
  text.resize(std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc));
  return text;
}

}  // namespace

bool same_settings(PictureRecord a, PictureRecord b) {
  return settings_of(std::move(a)) == settings_of(std::move(b));
}

Manifest::Manifest(const std::filesystem::path& path, const Begin& begin, bool resume, bool overwrite)
    : path_(path), file_(open_for_appending(path, 0)), begin_(begin), resume_(resume) {
  if (file_.descriptor() < 0) return;
  const std::string text = read_file(path, ExitCode::kOutput, kMaxBytes);
  if (!text.empty() && !text.starts_with(kBegin))
    throw Error(ExitCode::kOutput, "not the manifest of a batch", path.string(), "another --manifest or -o");
  if (!text.empty() && !resume && !overwrite) refuse_begun(path);
  if (!resume) return;
  read(text);
  cut_off_ = !text.empty() && !text.ends_with('\n');
}

void Manifest::start() {
  if (resumed_) return;
  if (file_.descriptor() < 0) {
    std::error_code ignored;
    std::filesystem::create_directories(path_.parent_path(), ignored);
    file_ = open_for_appending(path_, O_CREAT | O_EXCL);
  } else if (!resume_ && ::ftruncate(file_.descriptor(), 0) != 0) {
    fail(path_, errno);
  }
  append(Json{{"batch", XDIT_VERSION}, {"seed", begin_.seed}, {"date", begin_.date}}.dump());
}

void Manifest::read(const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    if (end == std::string::npos) return;
    const Json line = Json::parse(text.begin() + static_cast<std::ptrdiff_t>(at),
                                  text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    at = end + 1;
    const auto is = [&](const char* name, auto test) { return line.contains(name) && (line[name].*test)(); };
    if (!line.is_object()) continue;
    if (is("batch", &Json::is_string) && is("seed", &Json::is_number_unsigned) &&
        is("date", &Json::is_string)) {
      begin_ = {.seed = line["seed"].get<std::uint64_t>(), .date = line["date"].get<std::string>()};
      resumed_ = true;
    } else if (is("places", &Json::is_array)) {
      places_.clear();
      for (const Json& place : line["places"])
        if (place.is_array() && place.size() == 2 && place[0].is_string() && place[1].is_number_unsigned())
          places_.push_back({place[0].get<std::string>(), place[1].get<std::int64_t>()});
    } else if (is("path", &Json::is_string) && is("settings", &Json::is_object)) {
      made_[line["path"].get<std::string>()] = line["settings"].dump(-1, ' ', true);
      begun_.erase(line["path"].get<std::string>());
      if (is("index", &Json::is_number_unsigned)) numbers_.insert(line["index"].get<std::int64_t>());
    } else if (is("begun", &Json::is_string)) {
      std::string& settings = begun_[line["begun"].get<std::string>()];
      settings = is("settings", &Json::is_object) ? line["settings"].dump(-1, ' ', true) : "";
    }
  }
}

void Manifest::place(const std::vector<Place>& places) {
  if (places == places_) return;
  places_ = places;
  Json all = Json::array();
  for (const Place& place : places) all.push_back({place.mark, place.pictures});
  append(Json{{"places", std::move(all)}}.dump());
}

bool Manifest::recorded(const std::filesystem::path& path) const {
  return made_.contains(shown(path));
}

bool Manifest::recorded(std::int64_t first, std::int64_t count) const {
  const auto found = numbers_.lower_bound(first);
  return found != numbers_.end() && *found < first + count;
}

bool Manifest::has(const std::filesystem::path& path, const PictureRecord& record) const {
  return same(made_, path, record);
}

bool Manifest::begun(const std::filesystem::path& path, const PictureRecord& record) const {
  return same(begun_, path, record);
}

bool Manifest::same(const Settings& known, const std::filesystem::path& path,
                    const PictureRecord& record) const {
  const auto found = known.find(shown(path));
  if (found == known.end()) return false;
  try {
    return same_settings(from_json(found->second, path_.string(), ExitCode::kOutput), record);
  } catch (const Error&) {  // of another version
    return false;
  }
}

void Manifest::begin(const std::vector<Entry>& entries) {
  std::string lines;
  for (const Entry& entry : entries) {
    std::error_code ignored;
    Json line{{"begun", shown(entry.path)}};
    if (!std::filesystem::exists(std::filesystem::symlink_status(entry.path, ignored)))
      line["settings"] = Json::parse(to_json(entry.record));
    lines += (lines.empty() ? "" : "\n") + line.dump();
  }
  if (!lines.empty()) append(lines);
}

void Manifest::done(const Entry& entry) {
  append(Json{{"path", shown(entry.path)},
              {"index", entry.index},
              {"line", config::valid_utf8(entry.line)},
              {"settings", Json::parse(to_json(entry.record))},
              {"grid", entry.grid},
              {"time", now()}}
             .dump());
}

void Manifest::failed(const std::string& line, const std::string& why) {
  append(
      Json{{"line", config::valid_utf8(line)}, {"error", config::valid_utf8(why)}, {"time", now()}}.dump());
}

void Manifest::append(const std::string& lines) {
  const std::string bytes = (cut_off_ ? "\n" : "") + lines + "\n";
  for (std::size_t wrote = 0; wrote < bytes.size();) {
    const ssize_t count = ::write(file_.descriptor(), bytes.data() + wrote, bytes.size() - wrote);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path_, errno);
    wrote += static_cast<std::size_t>(count);
    cut_off_ = wrote < bytes.size();
  }
  if (::fsync(file_.descriptor()) != 0 && errno != EINVAL) fail(path_, errno);  // EINVAL: /dev/null
}

}  // namespace xdit::output
