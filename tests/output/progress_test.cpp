#include "output/progress.h"

#include <sstream>
#include <vector>

#include "tests/catch.h"

using xdit::output::Progress;
using xdit::output::ProgressMode;
using xdit::output::ProgressScreen;

namespace {

// A screen that shows what a terminal would: \r and \x1b[K act on the last line, colours are kept apart.
struct FakeScreen {
  double now_s = 0;
  int columns = 80;
  std::string raw;
  std::size_t widest = 0;

  ProgressScreen screen(bool interactive, bool colour = false) {
    return {.interactive = interactive,
            .colour = colour,
            .columns = [this] { return columns; },
            .write =
                [this](std::string_view text) {
                  raw += text;
                  widest = std::max(widest, last_line().size());
                },
            .now_s = [this] { return now_s; }};
  }
  [[nodiscard]] std::vector<std::string> lines() const {
    std::vector<std::string> shown{""};
    for (std::size_t at = 0; at < raw.size(); ++at) {
      if (raw[at] == '\n')
        shown.emplace_back();
      else if (raw[at] == '\r')
        shown.back().clear();
      else if (raw[at] == '\x1b')
        at = raw.find_first_of("Km", at);
      else
        shown.back() += raw[at];
    }
    return shown;
  }
  [[nodiscard]] std::string last_line() const { return lines().back(); }
};

void run_steps(Progress& progress, FakeScreen& fake, std::int64_t steps, double step_s) {
  for (std::int64_t i = 1; i <= steps; ++i) {
    fake.now_s += step_s;
    progress.advance(i);
  }
}

}  // namespace

TEST_CASE("the bar shows step, speed and time left, and goes at the end", "[progress]") {
  FakeScreen fake;
  {
    Progress progress(ProgressMode::kAuto, fake.screen(true));
    progress.begin("denoise", 28);
    CHECK_THAT(fake.last_line(), ContainsSubstring("denoise 0/28"));
    fake.now_s = 10;  // the first step warms up: it must not count in the speed
    progress.advance(1);
    fake.now_s = 10.5;
    progress.advance(2);
    fake.now_s = 11;
    progress.advance(3);
    CHECK_THAT(fake.last_line(), ContainsSubstring("denoise 3/28  0.5 s/step  13 s left"));
    const std::string line = fake.last_line();
    const auto width = static_cast<std::ptrdiff_t>(line.find(']')) - 1;
    CHECK(std::count(line.begin(), line.end(), '#') == width * 3 / 28);
    CHECK(width > 20);
    fake.now_s = 13;  // time left goes down between steps too
    progress.tick();
    CHECK_THAT(fake.last_line(), ContainsSubstring("3/28  0.5 s/step  11 s left"));
    progress.finish();
    CHECK(fake.last_line().empty());
    progress.begin("decode");
    CHECK_THAT(fake.last_line(), ContainsSubstring("decode"));
  }
  CHECK(fake.lines() == std::vector<std::string>{""});
}

TEST_CASE("what arrives together tells no speed") {
  FakeScreen fake;
  Progress progress(ProgressMode::kAuto, fake.screen(true));
  progress.begin("denoise", 20);
  for (int i = 1; i <= 3; ++i) progress.advance(i);
  fake.now_s = 0.2;
  progress.tick();
  CHECK(fake.last_line().ends_with("denoise 3/20"));
  run_steps(progress, fake, 5, 0.5);  // to 2.7 s: 4/20 at 2.2
  CHECK_THAT(fake.last_line(), ContainsSubstring("denoise 5/20  1.35 s/step  21 s left"));
  progress.begin("denoise", 20);  // of the next, that much later
  fake.now_s += 10;
  for (int i = 1; i <= 2; ++i) progress.advance(i);
  fake.now_s += 0.25;
  progress.tick();
  CHECK_THAT(fake.last_line(), ContainsSubstring("denoise 2/20  5 s/step  1:30 min left"));
}

TEST_CASE("phases that belong to a whole: the bar and the time left are its own") {
  FakeScreen fake;
  Progress progress(ProgressMode::kAuto, fake.screen(true));
  progress.begin("load");
  fake.now_s = 100;
  progress.whole("0 of 4 pictures", 0);
  progress.begin("denoise", 10);
  run_steps(progress, fake, 10, 1);
  CHECK(fake.last_line().ends_with(".] 0 of 4 pictures; denoise 10/10  1 s/step"));
  fake.now_s = 112;
  progress.whole("1 of 4 pictures", 0.25);
  progress.begin("denoise", 20);  // a larger one
  CHECK_THAT(fake.last_line(), ContainsSubstring("] 1 of 4 pictures, 36 s left; denoise 0/20"));
  fake.now_s = 114;
  progress.advance(1);
  CHECK_THAT(fake.last_line(), ContainsSubstring("] 1 of 4 pictures, 34 s left; denoise 1/20  2 s/step"));
  const std::string line = fake.last_line();
  const auto width = static_cast<std::ptrdiff_t>(line.find(']')) - 1;
  CHECK(std::count(line.begin(), line.end(), '#') == width / 4);
  progress.begin("decode");
  CHECK_THAT(fake.last_line(), ContainsSubstring("] 1 of 4 pictures, 34 s left; decode"));
}

TEST_CASE("without a terminal a line every five seconds, however short the phases of a whole are") {
  FakeScreen fake;
  Progress progress(ProgressMode::kAuto, fake.screen(false));
  progress.whole("0 of 10 pictures", 0);
  for (int i = 1; i <= 10; ++i) {
    progress.begin("denoise", 2);
    run_steps(progress, fake, 2, 1);
    progress.finish();
    progress.whole(std::to_string(i) + " of 10 pictures", 0.1 * i);
  }
  const std::vector<std::string> lines = fake.lines();
  REQUIRE(lines.size() == 5);  // after 5, 10, 15, 20 s, and the empty rest
  CHECK(lines[0] == "2 of 10 pictures, 15 s left; denoise 1/2  1 s/step");
}

TEST_CASE("the bar is full at the last step and empty at the first", "[progress]") {
  FakeScreen fake;
  Progress progress(ProgressMode::kAuto, fake.screen(true));
  progress.begin("x", 4);
  CHECK(fake.last_line().find('#') == std::string::npos);
  run_steps(progress, fake, 4, 1);
  CHECK(fake.last_line().find('.') == std::string::npos);
}

TEST_CASE("no window is too narrow", "[progress]") {
  for (int columns = 0; columns < 120; ++columns) {
    FakeScreen fake;
    fake.columns = columns;
    Progress progress(ProgressMode::kAuto, fake.screen(true));
    progress.begin("load FLUX.1-dev");
    progress.begin("denoise", 28);
    run_steps(progress, fake, 28, 0.7);
    CAPTURE(columns, fake.last_line());
    CHECK(static_cast<int>(fake.widest) <= std::max(columns - 1, 0));
    if (columns > 5) CHECK_THAT(fake.last_line(), ContainsSubstring("28/28"));
    if (columns > 30) CHECK_THAT(fake.last_line(), ContainsSubstring("s/step"));
  }
}

TEST_CASE("the bar is not drawn more often than ten times a second", "[progress]") {
  FakeScreen fake;
  Progress progress(ProgressMode::kAuto, fake.screen(true));
  progress.begin("denoise", 10'000);
  run_steps(progress, fake, 10'000, 0.001);
  CHECK(std::count(fake.raw.begin(), fake.raw.end(), '\r') <= 102);
  CHECK(std::count(fake.raw.begin(), fake.raw.end(), '\r') >= 50);
}

TEST_CASE("without a terminal there is a line every five seconds", "[progress]") {
  FakeScreen fake;
  Progress progress(ProgressMode::kAuto, fake.screen(false));
  progress.begin("encode");
  fake.now_s = 1;
  progress.begin("denoise", 28);
  run_steps(progress, fake, 28, 1);
  progress.finish();
  const std::vector<std::string> lines = fake.lines();
  REQUIRE(lines.size() == 7);  // after 5, 10, 15, 20, 25 s, at the end, and the empty rest
  CHECK(lines[0] == "denoise 5/28  1 s/step  23 s left");
  CHECK(lines[5] == "denoise 28/28  1 s/step  28 s");
  CHECK(fake.raw.find('\r') == std::string::npos);
  CHECK(fake.raw.find('\x1b') == std::string::npos);
  fake.now_s += 1;
  progress.begin("decode");
  fake.now_s += 1;
  progress.finish();
  CHECK(fake.lines().size() == 7);  // a short phase says nothing
  progress.begin("load");
  for (int i = 0; i < 12; ++i) {
    fake.now_s += 1;
    progress.tick();
  }
  progress.finish();
  REQUIRE(fake.lines().size() == 10);  // one without steps too, in which only time passes
  CHECK(fake.lines()[6] == "load  5 s");
  CHECK(fake.lines()[8] == "load  12 s");
}

TEST_CASE("plain on a terminal, and off", "[progress]") {
  for (const ProgressMode mode : {ProgressMode::kPlain, ProgressMode::kOff}) {
    FakeScreen fake;
    Progress progress(mode, fake.screen(true, true));
    progress.begin("denoise", 20);
    run_steps(progress, fake, 20, 1);
    progress.finish();
    CHECK(fake.raw.find('\x1b') == std::string::npos);
    CHECK(fake.raw.empty() == (mode == ProgressMode::kOff));
    progress.note("a warning");
    CHECK_THAT(fake.raw, ContainsSubstring("a warning\n"));
  }
}

TEST_CASE("a note stands above the bar", "[progress]") {
  FakeScreen fake;
  Progress progress(ProgressMode::kAuto, fake.screen(true));
  progress.begin("denoise", 20);
  progress.note("the prompt was cut");
  const std::vector<std::string> lines = fake.lines();
  REQUIRE(lines.size() == 2);
  CHECK(lines[0] == "the prompt was cut");
  CHECK_THAT(lines[1], ContainsSubstring("denoise 0/20"));
}

TEST_CASE("colour only when allowed", "[progress]") {
  for (const bool colour : {false, true}) {
    FakeScreen fake;
    Progress progress(ProgressMode::kAuto, fake.screen(true, colour));
    progress.begin("denoise", 20);
    CHECK((fake.raw.find("\x1b[32m") != std::string::npos) == colour);
  }
}

TEST_CASE("steps never go back, and long times are readable", "[progress]") {
  FakeScreen fake;
  Progress progress(ProgressMode::kAuto, fake.screen(true));
  progress.advance(3);  // no phase: nothing
  CHECK(fake.raw.empty());
  progress.begin("denoise", 100);
  run_steps(progress, fake, 2, 100);
  progress.advance(1);
  CHECK_THAT(fake.last_line(), ContainsSubstring("2/100  100 s/step  2:43 h left"));
  fake.now_s += 9500;
  progress.tick();
  CHECK_THAT(fake.last_line(), ContainsSubstring("5:00 min left"));
}
