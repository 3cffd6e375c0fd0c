#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace xdit::output {

enum class ProgressMode : std::uint8_t { kAuto, kPlain, kOff };

/// Where progress is drawn, and the time; all replaceable in tests.
struct ProgressScreen {
  bool interactive = false;                     ///< a terminal that moves its cursor
  bool colour = false;                          ///< NO_COLOR is not set
  std::function<int()> columns;                 ///< asked at every drawing: windows change
  std::function<void(std::string_view)> write;  ///< must not throw
  std::function<double()> now_s;                ///< a steady clock
};

/// stderr of this process, by isatty, TERM, NO_COLOR and the window's size.
[[nodiscard]] ProgressScreen stderr_screen();

/// Progress of one phase at a time: a bar with step, s/step and time left on a terminal, else a line every
/// few seconds. Nothing is printed for kOff. Labels are ours: ASCII, one line. Used from one thread.
class Progress {
 public:
  Progress(ProgressMode mode, ProgressScreen screen);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  ///< wipes an unfinished bar

  /// What the phases that follow belong to, and the share of its work that is over: bar and time left are its
  /// own, counted from the first call, and plain lines follow each other through all phases.
  void whole(std::string label, double share);
  /// Begins a phase of `steps` steps; 0 when it has none.
  void begin(std::string label, std::int64_t steps = 0);
  void advance(std::int64_t done);  ///< `done` steps of the phase are over
  void tick();                      ///< time has passed: redraws when due
  void finish();  ///< ends the phase: the bar goes, a phase that showed a line gets a last one
  /// A whole line on stderr (a warning), above the bar; printed in every mode.
  void note(std::string_view line);

 private:
  struct Whole {
    std::string label;
    double share;
    double begun_s, told_s;
  };
  [[nodiscard]] std::optional<double> seconds_per_step() const;
  [[nodiscard]] std::optional<double> seconds_left() const;
  [[nodiscard]] std::string line(std::size_t room,
                                 bool last) const;  ///< what of label, step, speed, time left fits
  [[nodiscard]] std::string with_bar(std::string line, std::size_t room) const;
  void show(bool last);
  void wipe();

  ProgressMode mode_;
  ProgressScreen screen_;
  std::optional<Whole> whole_;
  std::string label_;
  std::int64_t steps_ = 0;
  std::int64_t done_ = 0;
  double begun_s_ = 0;
  std::int64_t first_done_ = 0;  ///< steps that were over at the first advance: they also pay for warming up
  double first_step_s_ = 0;
  double last_step_s_ = 0;
  double shown_s_ = 0;
  bool active_ = false;
  bool drawn_ = false;    ///< a bar stands on the screen
  bool printed_ = false;  ///< a plain line of this phase was printed
};

}  // namespace xdit::output
