#include "launch/rank_process.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/stop.h"
#include "launch/clock.h"
#include "launch/messages.h"
#include "launch/stages.h"
#include "launch/task.h"
#include "launch/teller.h"
#include "output/finish.h"

namespace xdit::launch {
namespace {

using nlohmann::json;

constexpr const char* kRankLibrary = "libxdit-rank.so";

void* open_library(const std::string& path) {
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw Error(
        ExitCode::kInternal, fmt::format("cannot load {}: {}", path, ::dlerror()), {},
        "scripts/build, or XDIT_LIBTORCH=.../site-packages, the folder with LibTorch 2.11.0 in torch/");
  return library;
}

// What the launcher sends. One thread listens as long as the process lives, and tells that it does.
class Inbox {
 public:
  Inbox(Channel& channel, Teller& teller) : channel_(channel), teller_(teller) {}

  void listen(double beat_s) {
    std::vector<json> messages;
    bool works = true;  // on its first task, even before it has come
    do {
      if (works) teller_.tell(json::object());
      pollfd readable{channel_.descriptor(), POLLIN, 0};
      ::poll(&readable, 1, works ? static_cast<int>(beat_s * 1e3) : -1);
      const bool open = channel_.receive(messages);
      const std::lock_guard lock(mutex_);
      for (json& message : std::exchange(messages, {})) take(std::move(message));
      closed_ = !open;
      works = working_;
      arrived_.notify_one();
    } while (!closed_);
  }

  /// Waits for the next task; nothing once the launcher has gone.
  [[nodiscard]] std::optional<json> next() {
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [&] { return closed_ || !tasks_.empty(); });
    if (tasks_.empty()) return std::nullopt;
    json task = std::move(tasks_.front());
    tasks_.pop_front();
    return task;
  }
  void done() {
    const std::lock_guard lock(mutex_);
    working_ = false;
  }
  [[nodiscard]] const StopToken& stop() const { return stop_; }

 private:
  void take(json message) {
    if (const auto signal = message.find("stop"); signal != message.end())
      return stop_.request(signal->get<int>());
    stop_.request(0);
    working_ = true;
    tasks_.push_back(std::move(message));
  }

  Channel& channel_;
  Teller& teller_;
  StopToken stop_;  // of the task that came last
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<json> tasks_;
  bool working_ = true;
  bool closed_ = false;
};

class RankProcess {
 public:
  RankProcess(const Birth& birth, Channel channel)
      : birth_(birth),
        channel_(std::move(channel)),
        teller_(channel_),
        inbox_(channel_, teller_),
        models_(birth.models),
        weights_(birth.weights) {}

  /// Its exit status.
  int live() {
    std::thread([this] { inbox_.listen(birth_.beat_s); }).detach();  // as long as the process
    const int failed = telling([&] { rank_ = make_rank(); });
    if (failed != 0) return failed;
    opened_s_ = now_s();
    while (const std::optional<json> message = inbox_.next()) {
      const double begun_s = now_s();
      bool last = true;
      const int code = telling([&] {
        task_ = task_of(message->at("task"));
        last = task_.last;
        work(message->contains("forget"), begun_s);
      });
      if (last) return code;
      if (code != 0 || aborted()) rank_->leave(birth_.peers, kPatience);
      inbox_.done();
      teller_.tell({{"idle", rank_->holds()}});
    }
    return 0;
  }

 private:
  static constexpr std::chrono::seconds kPatience{10};

  void work(bool forget, double begun_s) {
    ::umask(task_.umask);
    if (forget || task_.weights != weights_) rank_->forget();
    if (task_.weights != weights_) {
      const config::RunSpec::Model& asked = task_.spec.model;
      const bool dummy = asked.load_format == config::LoadFormat::kDummy;
      opened_ = models::open(asked.path, asked.base, asked.tokenizers, dummy);
      if (!asked.refiner.empty())
        opened_refiner_ = models::open_refiner(asked.refiner, opened_, asked.base, asked.tokenizers);
      models_.emplace(opened_, asked.refiner.empty() ? nullptr : &opened_refiner_);
      weights_ = task_.weights;
    }
    plan_ = parallel::make_plan(task_.spec, models_->model, task_.machine);
    refiner_plan_ = plan_refiner(task_.spec, *models_, plan_, task_.machine);
    const bool stay = !task_.last && fit_together(task_.spec, plan_, refiner_plan_, task_.machine);
    report_ = {};
    if (born_s_ > task_.started_s) add_phase("start.libraries", born_s_, opened_s_);
    add_phase("start.task", begun_s, now_s());
    add_phase("start", task_.started_s, now_s());
    const pipeline::RankJob job{.spec = task_.spec,
                                .model = models_->model,
                                .plan = plan_,
                                .rank = birth_.rank,
                                .model_hash = task_.model_hash,
                                .paths = task_.paths,
                                .stop = inbox_.stop(),
                                .peers = birth_.peers[0],
                                .last = !stay,
                                .previews = task_.previews,
                                .started_s = task_.started_s};
    for (const pipeline::RankJob& stage : stages_of(job, *models_, refiner_plan_, birth_.peers[1]))
      rank_->run(stage, teller_, report_);
    add_phase("finish.release", task_.started_s + output::end_of(report_, birth_.rank), now_s());
    teller_.tell(report_message(report_));
  }

  [[nodiscard]] bool aborted() const {
    return std::ranges::any_of(birth_.peers, [](const auto& peers) { return peers && peers->aborted(); });
  }

  void add_phase(const char* name, double from_s, double to_s) {
    report_.phases.push_back({name, from_s - task_.started_s, to_s - task_.started_s, birth_.rank});
  }

  int telling(const std::function<void()>& part) {
    try {
      part();
      return 0;
    } catch (const Error& error) {
      return failed(error);
    } catch (const std::bad_alloc&) {
      return failed(Error(ExitCode::kMemory, "out of memory", {}, "a smaller --size"));
    } catch (const std::exception& error) {
      return failed(Error(ExitCode::kInternal, fmt::format("internal error: {}", error.what())));
    }
  }

  int failed(const Error& error) {
    json message = error_message(error);
    for (const auto& peers : birth_.peers)
      if (const std::optional<int> first = peers ? peers->aborted() : std::nullopt)
        if (*first != birth_.rank) message["after"] = *first;
    teller_.tell(message);
    for (const auto& peers : birth_.peers)
      if (peers) peers->abort(static_cast<int>(birth_.rank));  // told before a peer can notice
    return static_cast<int>(error.code());
  }

  const Birth& birth_;
  Channel channel_;
  Teller teller_;
  Inbox inbox_;
  std::unique_ptr<pipeline::Rank> rank_;
  std::optional<Models> models_;
  models::Model opened_, opened_refiner_;  // when not the launcher's
  std::string weights_;
  double born_s_ = now_s(), opened_s_ = 0;  // the process, and the rank library in it
  Task task_;
  parallel::Plan plan_;
  std::optional<parallel::Plan> refiner_plan_;
  output::Report report_;
};

}  // namespace

// Opened here and not linked: LibTorch takes half a second to load, and only a rank needs it. Never closed,
// since LibTorch cannot be unloaded.
void* rank_entry(const char* name) {
  ::setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1);  // CUDA numbers GPUs as NVML does, and so as the plan
  // What is loaded already serves the rank library, whatever its RUNPATH says.
  if (const char* folder = std::getenv("XDIT_LIBTORCH"); folder != nullptr && *folder != '\0')
    for (const char* torch : {"libtorch_cuda.so", "libtorch.so"})
      static_cast<void>(open_library(fmt::format("{}/torch/lib/{}", folder, torch)));
  void* library = open_library(kRankLibrary);  // by the executable's RUNPATH
  void* entry = ::dlsym(library, name);
  XDIT_ASSERT(entry != nullptr);
  return entry;
}

std::unique_ptr<pipeline::Rank> make_rank() {
  auto* const make = reinterpret_cast<pipeline::MakeRank*>(rank_entry(pipeline::kMakeRankSymbol));
  return std::unique_ptr<pipeline::Rank>(make());
}

void rank_main(const Birth& birth, Channel channel, pid_t launcher) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != launcher) ::_exit(1);  // it died before that
  ::prctl(PR_SET_NAME, fmt::format("xdit-rank-{}", birth.rank).c_str());
  const auto process = std::make_unique<RankProcess>(birth, std::move(channel));
  ::_exit(process->live());  // the launcher's buffers and LibTorch's destructors stay untouched
}

}  // namespace xdit::launch
