#include "output/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <utility>

namespace xdit::output {
namespace {

constexpr double kBarSeconds = 0.1;
constexpr double kLineSeconds = 5;
constexpr std::size_t kShortestBar = 8;
constexpr std::size_t kLongestBar = 40;
constexpr std::size_t kFrame = 3;    // "[] "
constexpr double kTogetherS = 1e-3;  // what is told in less has waited for its listener: it tells no speed

std::string duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::ceil(std::max(seconds, 0.0)));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  return fmt::format("{}:{:02} h", whole / 3600, whole / 60 % 60);
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void write_to_stderr(std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = ::write(STDERR_FILENO, text.data(), text.size());
    if (wrote <= 0) return;  // nobody listens: progress is no reason to fail
    text.remove_prefix(static_cast<std::size_t>(wrote));
  }
}

int stderr_columns() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

double steady_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

ProgressScreen stderr_screen() {
  const std::string term = environment("TERM");
  return {.interactive = ::isatty(STDERR_FILENO) == 1 && !term.empty() && term != "dumb",
          .colour = environment("NO_COLOR").empty(),
          .columns = stderr_columns,
          .write = write_to_stderr,
          .now_s = steady_s};
}

Progress::Progress(ProgressMode mode, ProgressScreen screen) : mode_(mode), screen_(std::move(screen)) {
  if (mode_ == ProgressMode::kAuto && !screen_.interactive) mode_ = ProgressMode::kPlain;
}

Progress::~Progress() {
  wipe();
}

void Progress::whole(std::string label, double share) {
  const double now_s = screen_.now_s();
  if (!whole_) shown_s_ = now_s;
  whole_ = {std::move(label), share, whole_ ? whole_->begun_s : now_s, now_s};
  tick();
}

void Progress::begin(std::string label, std::int64_t steps) {
  finish();
  label_ = std::move(label);
  steps_ = steps;
  done_ = first_done_ = 0;
  begun_s_ = last_step_s_ = screen_.now_s();
  if (!whole_) shown_s_ = begun_s_;
  active_ = true;
  printed_ = false;
  if (mode_ == ProgressMode::kAuto) show(false);
}

void Progress::advance(std::int64_t done) {
  if (!active_ || done <= done_) return;
  const double before_s = std::exchange(last_step_s_, screen_.now_s());
  if (done_ == 0 || (done_ == first_done_ && last_step_s_ - before_s < kTogetherS)) {
    first_step_s_ = last_step_s_;
    first_done_ = done;
  }
  done_ = done;
  tick();
}

void Progress::tick() {
  const double every = mode_ == ProgressMode::kAuto ? kBarSeconds : kLineSeconds;
  if (active_ && screen_.now_s() - shown_s_ >= every) show(false);
}

void Progress::finish() {
  if (!active_) return;
  wipe();
  if (mode_ == ProgressMode::kPlain && printed_ && !whole_) show(true);
  active_ = false;
}

void Progress::note(std::string_view line) {
  const bool redraw = drawn_;
  wipe();
  screen_.write(fmt::format("{}\n", line));
  if (redraw) show(false);
}

std::optional<double> Progress::seconds_per_step() const {
  if (done_ == 0) return std::nullopt;
  const bool first = done_ == first_done_;
  const double seconds = first ? first_step_s_ - begun_s_ : last_step_s_ - first_step_s_;
  if (seconds < kTogetherS) return std::nullopt;
  return seconds / static_cast<double>(first ? done_ : done_ - first_done_);
}

std::optional<double> Progress::seconds_left() const {
  const double now_s = screen_.now_s();
  if (whole_ && whole_->share == 0) return std::nullopt;
  if (whole_)
    return (whole_->told_s - whole_->begun_s) * (1 - whole_->share) / whole_->share -
           (now_s - whole_->told_s);
  const std::optional<double> each_s = seconds_per_step();
  if (!each_s) return std::nullopt;
  return static_cast<double>(steps_ - done_) * *each_s - (now_s - last_step_s_);
}

std::string Progress::line(std::size_t room, bool last) const {
  std::string text;
  const auto add = [&](const std::string& part) {
    if (text.size() + part.size() <= room) text += part;
  };
  const std::optional<double> left_s = last ? std::nullopt : seconds_left();
  const std::string left = left_s ? duration(*left_s) + " left" : "";
  const std::string speed = seconds_per_step() ? fmt::format("  {:.3g} s/step", *seconds_per_step()) : "";
  const std::string count = steps_ > 0 ? fmt::format("{}/{}", done_, steps_) : "";
  if (whole_) {
    text = whole_->label.substr(0, room);
    if (left_s) add(", " + left);
    add("; " + label_ + (steps_ > 0 ? " " + count : ""));
    add(speed);
    return text;
  }
  text = label_.substr(0, room);
  if (steps_ > 0 && label_.size() + count.size() + 1 > room)
    text = count.substr(0, room);  // the label matters less
  else if (steps_ > 0)
    add(" " + count);
  add(speed);
  if (left_s) add("  " + left);
  if (steps_ == 0 || last) add("  " + duration(std::floor(screen_.now_s() - begun_s_)));
  return text;
}

std::string Progress::with_bar(std::string line, std::size_t room) const {
  if ((steps_ == 0 && !whole_) || line.size() + kFrame + kShortestBar > room) return line;
  const std::size_t width = std::min(room - line.size() - kFrame, kLongestBar);
  const auto full =
      whole_ ? static_cast<std::size_t>(static_cast<double>(width) * whole_->share)
             : width * static_cast<std::size_t>(std::min(done_, steps_)) / static_cast<std::size_t>(steps_);
  return fmt::format("[{}{}{}{}] {}", screen_.colour ? "\x1b[32m" : "", std::string(full, '#'),
                     screen_.colour ? "\x1b[0m" : "", std::string(width - full, '.'), line);
}

void Progress::show(bool last) {
  if (mode_ == ProgressMode::kOff) return;
  shown_s_ = screen_.now_s();
  if (mode_ == ProgressMode::kPlain) {
    printed_ = true;
    screen_.write(fmt::format("{}\n", line(std::string::npos, last)));
  } else {
    drawn_ = true;  // the last column stays free: some terminals wrap there
    const auto room = static_cast<std::size_t>(std::max(screen_.columns() - 1, 0));
    screen_.write(fmt::format("\r{}\x1b[K", with_bar(line(room, last), room)));
  }
}

void Progress::wipe() {
  if (drawn_) screen_.write("\r\x1b[K");
  drawn_ = false;
}

}  // namespace xdit::output
