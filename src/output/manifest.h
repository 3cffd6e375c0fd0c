#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/file.h"
#include "output/metadata.h"

namespace xdit::output {

/// What a batch has done: JSON, one object a line, appended and fsynced before anybody is told. The first
/// line holds what a resumed batch must repeat; a last line that was cut off counts for nothing.
class Manifest {
 public:
  struct Begin {
    std::uint64_t seed;  ///< that seeds of -1 are drawn from
    std::string date;    ///< {date} of the paths
  };
  /// A line of the batch's file, perhaps of an earlier one: its pictures are numbered as if all were there.
  struct Place {
    std::string mark;
    std::int64_t pictures;
    friend bool operator==(const Place&, const Place&) = default;
  };
  struct Entry {
    std::string line;            ///< of the batch: "prompts.jsonl:12"
    std::filesystem::path path;  ///< of the picture
    PictureRecord record;        ///< what made it
    std::string grid;            ///< "data 4, ulysses 2"
    std::int64_t index = 0;      ///< the picture's
  };

  /// Reads `path`, if it is there, to go on with `resume`: Error(kOutput) when it is something else, or a
  /// batch's without `resume` or `overwrite`. Writes nothing.
  Manifest(const std::filesystem::path& path, const Begin& begin, bool resume, bool overwrite);
  /// Begins the file, unless it goes on: what was there of another batch is lost.
  void start();

  [[nodiscard]] const Begin& begin() const { return begin_; }  ///< of the first time
  [[nodiscard]] bool resumed() const { return resumed_; }      ///< something was there
  [[nodiscard]] const std::vector<Place>& places() const { return places_; }
  /// Of all lines, also those that the file has no more.
  void place(const std::vector<Place>& places);
  /// Whether pictures were recorded, with whatever settings: one at `path`; one of [first, first + count).
  [[nodiscard]] bool recorded(const std::filesystem::path& path) const;
  [[nodiscard]] bool recorded(std::int64_t first, std::int64_t count) const;
  /// Whether the picture was recorded with these settings; its mode and grid do not count.
  [[nodiscard]] bool has(const std::filesystem::path& path, const PictureRecord& record) const;

  /// Whether it was begun so, while nothing was at its path: what is there now is it.
  [[nodiscard]] bool begun(const std::filesystem::path& path, const PictureRecord& record) const;

  /// Pictures that will not say themselves what made them.
  void begin(const std::vector<Entry>& entries);
  void done(const Entry& entry);
  void failed(const std::string& line, const std::string& why);

 private:
  using Settings = std::map<std::string, std::string>;  ///< by path
  void read(const std::string& text);
  [[nodiscard]] bool same(const Settings& known, const std::filesystem::path& path,
                          const PictureRecord& record) const;
  void append(const std::string& lines);

  std::filesystem::path path_;
  File file_;
  Begin begin_;
  bool resume_;
  bool resumed_ = false;
  bool cut_off_ = false;  // the last line in the file
  std::vector<Place> places_{};
  Settings made_, begun_;
  std::set<std::int64_t> numbers_{};  // of pictures that were made
};

/// Whether two pictures were asked for with the same settings, whichever grid made them.
[[nodiscard]] bool same_settings(PictureRecord a, PictureRecord b);

}  // namespace xdit::output
