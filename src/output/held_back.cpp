#include "output/held_back.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string_view>

#include "output/stretches.h"

namespace xdit::output {
namespace {

constexpr double kLeastShare = 0.01;  // of the run

std::vector<Stretch> stretches(const Report& report, std::int64_t rank,
                               std::initializer_list<std::string_view> names) {
  std::vector<Stretch> all;
  for (const Phase& phase : report.phases)
    if (phase.rank == rank &&
        (names.size() == 0 || std::find(names.begin(), names.end(), phase.name) != names.end()))
      all.emplace_back(phase.start_s, phase.end_s);
  return all;
}

std::vector<Stretch> operator+(std::vector<Stretch> a, const std::vector<Stretch>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// A rank's steps.
struct Denoising {
  double seconds = 0;
  double waited_s = 0;
  double host_bound_s = 0;
  [[nodiscard]] double busy_s() const { return seconds - waited_s; }
};

class Findings {
 public:
  explicit Findings(const Report& report) : report_(report) {
    for (const RankUse& use : report.ranks)
      ranks_.push_back({.seconds = covered(stretches(report, use.rank, {"step"})),
                        .waited_s = std::max(0.0, use.waited_s),
                        .host_bound_s = std::max(0.0, use.host_bound_s)});
  }

  std::vector<Finding> all() {
    around_steps();
    among_ranks();
    on_the_host();
    throttled();
    std::stable_sort(found_.begin(), found_.end(),
                     [](const Finding& a, const Finding& b) { return a.seconds > b.seconds; });
    return found_;
  }

 private:
  void add(const char* what, double seconds, double of, const char* mend) {
    if (seconds > 0 && seconds >= kLeastShare * report_.wall_s) found_.push_back({what, seconds, of, mend});
  }

  // On the rank that was done last.
  void around_steps() {
    const std::int64_t rank = last_at_work(report_);
    if (rank < 0) return;
    const std::vector<Stretch> start = stretches(report_, rank, {"start", "connect", "finish"});
    const std::vector<Stretch> work = start + stretches(report_, rank,
                                                        {"tokenise", "text_encode", "prepare", "step",
                                                         "hand_over", "decode", "write", "write_trace"});
    const std::vector<Stretch> warm_up = stretches(report_, rank, {"warm_up"});
    const std::vector<Stretch> files = stretches(report_, rank, {"load", "load_encoders"});
    add("start", covered(start), report_.wall_s,
        "batch, worker or generate --keep: processes and weights that stay");
    add("warm-up", covered(work + warm_up) - covered(work), report_.wall_s,
        "batch, worker or generate --keep: kernels that are loaded once");
    add("files", covered(work + warm_up + files) - covered(work + warm_up), report_.wall_s,
        "batch, worker or generate --keep: weights that stay; files in the page cache or on a faster disk");
    add("idle", report_.wall_s - covered(work + warm_up + files), report_.wall_s,
        "a rank that waits for another's phase or the launcher; compare its phases with the others'");
  }

  void among_ranks() {
    if (ranks_.size() < 2) return;
    const Denoising* most = &ranks_.front();   // busy
    const Denoising* least = &ranks_.front();  // waiting, of those with steps
    double sum = 0;
    for (const Denoising& rank : ranks_) {
      sum += rank.busy_s();
      if (rank.busy_s() > most->busy_s()) most = &rank;
      if (rank.seconds > 0 && (least->seconds == 0 || rank.waited_s < least->waited_s)) least = &rank;
    }
    add("peers", least->waited_s, least->seconds,
        "fewer ranks a picture, more pictures at once (--data), or a larger picture");
    add("shares", most->busy_s() - sum / static_cast<double>(ranks_.size()), most->seconds,
        "degrees that divide pictures, tokens and heads evenly, on devices of one kind");
  }

  void on_the_host() {
    const auto most = std::max_element(
        ranks_.begin(), ranks_.end(),
        [](const Denoising& a, const Denoising& b) { return a.host_bound_s < b.host_bound_s; });
    if (most == ranks_.end()) return;
    add("cpu", most->host_bound_s, most->seconds,
        "ranks that stay (a first step plans and captures), runtime.cuda_graphs, or a less busy CPU");
  }

  void throttled() {
    const auto [begin, end] = span_of_steps(report_);
    const std::vector<Reading> readings = readings_in_steps(report_);
    std::map<std::string, double> causes;
    double slowed = 0;
    for (const Reading& reading : readings) {
      slowed += reading.slowed.empty() ? 0 : 1;
      causes[reading.slowed] += 1;
    }
    if (slowed == 0) return;
    const bool heat = causes["power"] < slowed / 2;
    add("throttling", (end - begin) * slowed / static_cast<double>(readings.size()), end - begin,
        heat ? "cooling: the GPU holds its clock down by heat"
             : "a higher power limit (nvidia-smi -pl), or fewer joules a picture: the GPU is at its limit");
  }

  const Report& report_;
  std::vector<Denoising> ranks_;
  std::vector<Finding> found_;
};

}  // namespace

std::vector<Finding> held_back(const Report& report) {
  return Findings(report).all();
}

std::string to_text(const std::vector<Finding>& findings) {
  std::string text;
  for (const Finding& finding : findings)
    text += fmt::format("{}{} {:.2f} of {:.2f} s", text.empty() ? "" : ", ", finding.what, finding.seconds,
                        finding.of);
  return text;
}

}  // namespace xdit::output
