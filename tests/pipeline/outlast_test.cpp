// Jobs of ranks that stay: what they exchange through outlasts a job where the next one is like it.
#include <unistd.h>

#include <future>

#include "comm/job.h"
#include "core/file.h"
#include "tests/catch.h"
#include "tests/launch/processes.h"
#include "tests/pipeline/run.h"
#include "tests/scratch.h"

namespace xdit::test {
namespace {

namespace fs = std::filesystem;
using config::Transport;
using Parallel = config::RunSpec::Parallel;

struct Made {
  std::vector<std::string> pictures;
  std::vector<output::RankUse> uses;  // by rank
};

// Ranks that stay, on threads of this process. They do what their processes do when a job fails.
class Session {
 public:
  Session(const models::Model& model, int size) : model_(model), peers_(comm::Job::create(size)) {
    for (int rank = 0; rank < size; ++rank) ranks_.emplace_back(xdit_make_rank());
  }

  Made run(const config::RunSpec& spec, std::int64_t stop_last_rank_after = -1) {
    const parallel::Machine machine{.gpus = {}, .host_memory = std::uint64_t{64} << 30U, .cores = 2};
    const parallel::Plan plan = parallel::make_plan(spec, model_, machine);
    const tests::Scratch folder;
    std::map<std::int64_t, fs::path> paths;
    for (const config::Picture& picture : config::pictures(spec))
      paths[picture.index] = folder.path() / (std::to_string(picture.index) + ".png");
    if (peers_->aborted()) peers_->renew();
    const auto work = [&](std::size_t rank) {
      Recorder recorder;
      if (rank + 1 == ranks_.size()) recorder.stop_after = stop_last_rank_after;
      output::Report report;
      try {
        ranks_[rank]->run({.spec = spec,
                           .model = model_,
                           .plan = plan,
                           .rank = static_cast<std::int64_t>(rank),
                           .model_hash = std::string(64, '0'),
                           .paths = paths,
                           .stop = recorder.stop,
                           .peers = peers_,
                           .last = false},
                          recorder, report);
      } catch (const Error&) {
        peers_->abort(static_cast<int>(rank));
        ranks_[rank]->leave(std::array{peers_}, std::chrono::seconds(10));
        throw;
      }
      return report.ranks.at(0);
    };
    std::vector<std::future<output::RankUse>> all;
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank)
      all.push_back(std::async(std::launch::async, work, rank));
    for (auto& one : all) one.wait();
    Made made;
    for (auto& one : all) made.uses.push_back(one.get());
    for (const auto& [index, path] : paths) made.pictures.push_back(read_file(path, ExitCode::kOutput));
    return made;
  }
  // How often they have met since a job failed: at each spread that they made.
  [[nodiscard]] std::uint64_t meetings() const { return peers_->card(0).ready; }
  void renew() const { peers_->renew(); }

 private:
  const models::Model& model_;
  std::shared_ptr<const comm::Job> peers_;
  std::vector<std::unique_ptr<pipeline::Rank>> ranks_;
};

std::size_t shared_blocks() {
  return shared_memory(::getpid()).size();
}

// Weights are drawn: what ranks send each other of files is none of a job's that finds them loaded.
models::Model drawn(const std::string& name) {
  return models::open(XDIT_TEST_DATA "/" + name, {}, {}, true);
}

config::RunSpec spec_on(int ranks, const Parallel& parallel, double cfg_scale = 1) {
  config::RunSpec spec = small_spec();
  spec.image = {.width = 64, .height = 48, .count = 1};
  spec.sampling.steps = 3;
  spec.sampling.cfg_scale = cfg_scale;
  spec.parallel = parallel;
  spec.parallel.gpus = std::to_string(ranks);
  spec.parallel.allow = config::Allow::kApproximate;
  return spec;
}

void check_same(const Made& made, const Made& fresh) {
  CHECK((made.pictures == fresh.pictures));
  REQUIRE(made.uses.size() == fresh.uses.size());
  for (std::size_t rank = 0; rank < made.uses.size(); ++rank)
    CHECK(made.uses[rank].bytes_sent == fresh.uses[rank].bytes_sent);
}

}  // namespace

TEST_CASE("jobs of one plan share what their ranks exchange through, and make what fresh ranks do") {
  struct Case {
    const char* model;
    int ranks;
    Parallel parallel;
    double cfg_scale = 1;
    Transport transport = Transport::kPeer;
  };
  const std::vector<Case> cases{
      {"flux/tiny-dev", 2, {.gather = 2}},
      {"flux/tiny-dev", 3, {.ulysses = 3}, 1, Transport::kHost},
      {"flux/tiny-dev", 3, {.ring = 3}},
      {"flux/tiny-dev", 3, {.tensor = 3}},
      {"flux/tiny-dev", 2, {.pipefusion = 2}, 2},
      {"flux/tiny-dev", 2, {.data = 2}},
      {"sd/tiny-sdxl", 2, {.cfg = 2}, 3},
      {"sd/tiny-sdxl", 2, {.cfg = 1, .gather = 2, .patch = config::Patch::kDisplaced, .patch_warmup = 1}, 3}};
  for (const Case& c : cases) {
    CAPTURE(c.model, c.ranks, c.parallel.pipefusion.value_or(1), c.parallel.gather.value_or(1));
    const models::Model model = drawn(c.model);
    config::RunSpec first = spec_on(c.ranks, c.parallel, c.cfg_scale);
    first.runtime.transport = c.transport;
    if (model.shape.by_rows) first.sampling.scheduler = "euler-ancestral";  // draws
    if (c.parallel.data) first.image.count = 2;
    config::RunSpec second = first;  // other prompts, more pictures and steps
    second.prompts = {"a fox", "an owl"};
    second.sampling.steps = 4;
    second.sampling.seeds = {7};
    second.sampling.max_sequence_length = first.sampling.max_sequence_length;
    config::RunSpec other = first;
    other.image.width = 80;
    const auto fresh = [&](const config::RunSpec& spec) { return Session(model, c.ranks).run(spec); };

    const Made alone = fresh(first);
    Session session(model, c.ranks);
    check_same(session.run(first), alone);
    const std::size_t blocks = shared_blocks();
    check_same(session.run(second), fresh(second));
    check_same(session.run(first), alone);
    CHECK(session.meetings() == 1);
    CHECK(shared_blocks() == blocks);
    check_same(session.run(other), fresh(other));
    CHECK(session.meetings() == 2);
    check_same(session.run(first), alone);
    CHECK(session.meetings() == 3);
    CHECK(shared_blocks() == blocks);  // the others' are gone
  }
}

TEST_CASE("whatever changes what is exchanged is another plan") {
  const models::Model model = drawn("flux/tiny-dev");
  config::RunSpec spec = spec_on(2, {.gather = 2});
  Session session(model, 2);
  const Made alone = session.run(spec);
  const auto meets_anew = [&](const auto& change) {
    config::RunSpec other = spec;
    change(other);
    const std::uint64_t before = session.meetings();
    const Made made = session.run(other);
    check_same(made, Session(model, 2).run(other));
    CHECK(session.meetings() == before + 1);
    check_same(session.run(spec), alone);
    CHECK(session.meetings() == before + 2);
  };
  meets_anew([](config::RunSpec& other) { other.sampling.max_sequence_length = 29; });
  meets_anew([](config::RunSpec& other) { other.sampling.cfg_scale = 2; });
  meets_anew([](config::RunSpec& other) { other.runtime.transport = Transport::kHost; });
  meets_anew([](config::RunSpec& other) { other.parallel.vae = 1; });
  meets_anew([](config::RunSpec& other) {
    other.parallel.gather = 1, other.parallel.ulysses = 1, other.parallel.data = 2;
  });
  meets_anew([](config::RunSpec& other) { other.parallel.shard_weights = "true"; });
}

TEST_CASE("after a job that failed, here or on another rank, ranks let all of it go and meet anew") {
  const models::Model model = drawn("flux/tiny-dev");
  for (const Parallel& parallel : {Parallel{.gather = 2}, Parallel{.pipefusion = 2}}) {
    const config::RunSpec spec = spec_on(2, parallel);
    Session session(model, 2);
    const Made alone = session.run(spec);
    CHECK(shared_blocks() > 1);
    for (const std::int64_t after : {1, 2}) {
      CAPTURE(after);
      config::RunSpec longer = spec;
      longer.sampling.steps = 5;
      CHECK_THROWS_AS(session.run(longer, after), Error);
      CHECK(shared_blocks() == 1);  // the job's card
      check_same(session.run(spec), alone);
      CHECK(session.meetings() == 1);
    }
    session.renew();  // a rank failed when these were done
    check_same(session.run(spec), alone);
    CHECK(session.meetings() == 1);
  }
}

}  // namespace xdit::test
