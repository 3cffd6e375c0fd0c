// Real ranks of a small model on the CPU, started and watched from this process.
#include <signal.h>  // NOLINT: kill is POSIX's
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>

#include "core/file.h"
#include "launch/clock.h"
#include "launch/launch.h"
#include "parallel/plan_parameters.h"
#include "parallel/plan_weights.h"
#include "tests/catch.h"
#include "tests/launch/processes.h"
#include "tests/launch/tiny_run.h"
#include "tests/scratch.h"

namespace xdit::launch {
namespace {

namespace fs = std::filesystem;

// The Error that the run ends with; checks that nothing is left of it.
Error failure(const config::RunSpec& spec, const models::Model& model, Heard& heard) {
  try {
    static_cast<void>(run(spec, model, heard, heard.stop));
  } catch (const Error& error) {
    CHECK(test::children_of(::getpid()).empty());
    return error;
  }
  FAIL("the run went through");
  std::abort();
}

}  // namespace

TEST_CASE("pictures do not depend on the number of ranks") {
  const tests::Scratch one;
  Heard heard;
  const models::Model model = open_tiny();
  const Outcome alone = run(small_spec(one.path(), 1), model, heard, heard.stop);
  const std::vector<std::string> expected = pngs(one.path());
  REQUIRE(expected.size() == 6);
  CHECK(alone.report.ranks.size() == 1);
  for (const std::int64_t ranks : {2, 3, 4}) {
    CAPTURE(ranks);
    const tests::Scratch many;
    Heard of_many;
    config::RunSpec spec = small_spec(many.path(), ranks);
    if (ranks == 3) spec.runtime.warm_up = "true";
    const Outcome outcome = run(spec, model, of_many, of_many.stop);
    CHECK((pngs(many.path()) == expected));
    CHECK(of_many.pictures == 6);
    CHECK(of_many.warnings.empty());
    REQUIRE(outcome.report.ranks.size() == static_cast<std::size_t>(ranks));
    CHECK(outcome.report.phases.back().name == "finish");
    CHECK(outcome.report.phases.back().end_s == outcome.report.wall_s);
    for (std::int64_t rank = 0; rank < ranks; ++rank) {
      CHECK(outcome.report.ranks.at(static_cast<std::size_t>(rank)).rank == rank);
      CHECK(outcome.report.ranks.at(static_cast<std::size_t>(rank)).device == "cpu");
      for (const char* name :
           {"start", "connect", "share_prompts", "load", "text_encode", "step", "decode", "write"}) {
        CAPTURE(rank, name);
        const bool encodes = rank == 0;  // for all
        CHECK((std::string(name) == "text_encode" && !encodes) !=
              std::any_of(outcome.report.phases.begin(), outcome.report.phases.end(),
                          [&](const output::Phase& p) { return p.rank == rank && p.name == name; }));
      }
    }
  }
  CHECK(test::children_of(::getpid()).empty());
}

TEST_CASE("a picture does not depend on the number of ranks that make it") {
  std::vector<std::int64_t> counts{2, 3, 5};
  if (std::getenv("XDIT_TEST_FULL") != nullptr) counts = {2, 3, 4, 5, 6, 7, 8};
  for (const char* name : {"tiny-dev", "tiny-schnell"}) {  // of 3 and of 4 heads
    const models::Model model = open_tiny(fs::path(XDIT_TEST_DATA "/flux") / name);
    for (const auto& [dtype, cfg_scale] :
         {std::pair{DType::kF32, 1.0}, {DType::kBF16, 1.0}, {DType::kBF16, 2.0}}) {
      const auto picture = [&, type = dtype, scale = cfg_scale](std::int64_t ranks) {
        const tests::Scratch folder;
        Heard heard;
        config::RunSpec spec = small_spec(folder.path(), ranks);
        spec.prompts = {"a lighthouse on a cliff at dawn"};
        spec.image = {.width = 80, .height = 112, .count = 1};
        spec.model.dtype = type;
        spec.sampling.cfg_scale = scale;
        spec.sampling.max_sequence_length = 29;
        spec.output.trace = (folder.path() / "trace").string();
        const Outcome outcome = run(spec, model, heard, heard.stop);
        CHECK(outcome.report.ranks.size() == static_cast<std::size_t>(ranks));
        return std::pair{pngs(folder.path()).at(0), read_file(folder.path() / "trace", ExitCode::kOutput)};
      };
      const auto alone = picture(1);
      for (const std::int64_t ranks : counts) {
        CAPTURE(name, static_cast<int>(dtype), cfg_scale, ranks);
        CHECK(picture(ranks) == alone);
      }
    }
  }
}

TEST_CASE("nor on how many of them decode it, more of them than it has rows among the cases") {
  const models::Model model = open_tiny();
  const auto picture = [&](std::int64_t ranks, std::optional<std::int64_t> decoding) {
    const tests::Scratch folder;
    Heard heard;
    config::RunSpec spec = small_spec(folder.path(), ranks);
    spec.image = {.width = 48, .height = 16, .count = 2};  // 2 rows of latents
    spec.parallel.data = 1;
    spec.parallel.vae = decoding;
    static_cast<void>(run(spec, model, heard, heard.stop));
    return pngs(folder.path());
  };
  const auto alone = picture(1, {});
  CHECK(alone.size() == 4);
  CHECK((picture(3, {}) == alone));
  CHECK((picture(3, 1) == alone));
  CHECK((picture(3, 2) == alone));
}

TEST_CASE("the report counts what each rank puts to others and reads of their weights") {
  // One prompt and picture in float32, decoded by rank 0: what is left are the prompt, attention, the
  // latents' tokens at the end, and shares of the weights.
  const models::Model model = open_tiny(XDIT_TEST_DATA "/flux/tiny-dev", true);
  const models::Shape& shape = model.shape;
  constexpr std::int64_t kElement = 4;
  constexpr std::int64_t kPrompt = (32 * 40 + 24) * kElement;  // joint_attention_dim, pooled_projection_dim
  struct Case {
    std::int64_t gather, ulysses;
    const char* shard;
    config::Transport transport;
  };
  using config::Transport;
  for (const Case& c : {Case{3, 1, "false", Transport::kPeer}, Case{1, 3, "false", Transport::kPeer},
                        Case{1, 3, "false", Transport::kHost}, Case{2, 1, "true", Transport::kPeer}}) {
    CAPTURE(c.gather, c.ulysses, c.shard, static_cast<int>(c.transport));
    const tests::Scratch folder;
    Heard heard;
    config::RunSpec spec = small_spec(folder.path(), c.gather * c.ulysses);
    spec.prompts.pop_back();
    spec.image = {.width = 80, .height = 112, .count = 1};
    spec.parallel.gather = c.gather;
    spec.parallel.ulysses = c.ulysses;
    spec.parallel.vae = 1;
    spec.parallel.shard_weights = c.shard;
    spec.runtime.transport = c.transport;
    const Outcome outcome = run(spec, model, heard, heard.stop);
    const std::int64_t ranks = c.gather * c.ulysses;
    REQUIRE(outcome.report.ranks.size() == static_cast<std::size_t>(ranks));
    for (const parallel::RankPlan& rank : outcome.plan.ranks) {
      const std::int64_t image = rank.image_tokens.at(0).count;
      const std::int64_t mine = rank.text_tokens.count + image;
      const std::int64_t others = outcome.plan.text_tokens + outcome.plan.image_tokens - mine;
      const std::int64_t row = shape.width / c.ulysses * kElement;          // of a token's heads
      std::int64_t layer = 2 * mine * row * (ranks - 1);                    // K and V
      if (c.ulysses > 1) layer += mine * row * (ranks - 1) + others * row;  // Q, and the outputs of others
      std::int64_t blocks = 0, pieces = 0;  // of others: for each step, and for the prompt
      if (outcome.plan.shard > 1) {
        const models::Network& network = parallel::denoiser_of(model);
        const auto units =
            parallel::sharded_units(parallel::held_by(outcome.plan, rank, network), rank.blocks);
        for (std::int64_t i = 0; i < std::ssize(units); ++i) {
          const parallel::Range& unit = units.at(static_cast<std::size_t>(i));
          (i < shape.blocks ? blocks : pieces) +=
              unit.count - parallel::share_of(unit, outcome.plan.shard, rank.rank).count;
        }
      }
      const std::int64_t step = shape.blocks * layer + blocks * kElement;
      const std::int64_t expected = (rank.rank == 0 ? kPrompt * (ranks - 1) : 0) +
                                    spec.sampling.steps * step + pieces * kElement +
                                    image * shape.token_channels * kElement * (ranks - 1);
      CHECK(outcome.report.ranks.at(static_cast<std::size_t>(rank.rank)).bytes_sent ==
            static_cast<std::uint64_t>(expected));
    }
  }
}

TEST_CASE("a picture is the same through memory that relays") {
  const models::Model model = open_tiny();
  const auto picture = [&](const config::RunSpec::Parallel& parallel, std::int64_t ranks,
                           config::Transport transport) {
    const tests::Scratch folder;
    Heard heard;
    config::RunSpec spec = small_spec(folder.path(), ranks);
    spec.prompts.pop_back();
    spec.image = {.width = 80, .height = 112, .count = 1};
    spec.sampling.steps = 3;
    spec.parallel = parallel;
    spec.parallel.gpus = std::to_string(ranks);
    spec.parallel.allow = config::Allow::kApproximate;
    spec.runtime.transport = transport;
    static_cast<void>(run(spec, model, heard, heard.stop));
    return pngs(folder.path()).at(0);
  };
  for (const auto& [parallel, ranks] : std::vector<std::pair<config::RunSpec::Parallel, std::int64_t>>{
           {{.ulysses = 3}, 3},
           {{.gather = 2, .shard_weights = "true"}, 2},
           {{.ring = 3}, 3},
           {{.tensor = 3}, 3},
           {{.pipefusion = 2, .gather = 2}, 4}}) {
    CAPTURE(ranks, parallel.pipefusion.value_or(1));
    CHECK((picture(parallel, ranks, config::Transport::kHost) ==
           picture(parallel, ranks, config::Transport::kPeer)));
  }
}

TEST_CASE("ranks that share weights need not have the same prompts, nor any") {
  for (const bool dummy : {false, true}) {
    const models::Model model = open_tiny(XDIT_TEST_DATA "/flux/tiny-dev", dummy);
    const auto pictures = [&](const config::RunSpec::Parallel& parallel, std::int64_t ranks,
                              std::size_t prompts) {
      const tests::Scratch folder;
      Heard heard;
      config::RunSpec spec = small_spec(folder.path(), ranks);
      spec.prompts.resize(prompts);
      spec.prompts.front() = "a lighthouse";
      for (std::size_t i = 1; i < prompts; ++i) spec.prompts[i] = "a fox " + std::to_string(i);
      spec.image.count = 1;
      spec.sampling.cfg_scale = 2;
      spec.parallel = parallel;
      spec.parallel.gpus = std::to_string(ranks);
      const Outcome outcome = run(spec, model, heard, heard.stop);
      CHECK(outcome.plan.shard == (ranks == 1 ? 1 : ranks == 3 ? 3 : 2));
      return pngs(folder.path());
    };
    using P = config::RunSpec::Parallel;
    for (const std::size_t prompts : {1, 3, 11}) {  // 11: not all of them are prepared at once
      const auto alone = pictures({}, 1, prompts);
      CHECK(alone.size() == prompts);
      for (const auto& [parallel, ranks] : {std::pair{P{.data = 2, .shard_weights = "true"}, 2},
                                            {P{.data = 3, .shard_weights = "true"}, 3},
                                            {P{.data = 2, .cfg = 2, .shard_weights = "true"}, 4}}) {
        CAPTURE(dummy, prompts, ranks);
        CHECK((pictures(parallel, ranks, prompts) == alone));
      }
    }
  }
}

TEST_CASE("more ranks than pictures: the others are idle, read nothing, and it is said") {
  const tests::Scratch folder;
  Heard heard;
  config::RunSpec spec = small_spec(folder.path(), 3);
  spec.prompts.pop_back();
  spec.image.count = 1;
  spec.parallel.data = 3;
  const Outcome outcome = run(spec, open_tiny(), heard, heard.stop);
  CHECK(heard.warnings == std::vector<std::string>{"1 picture for 3 ranks: ranks 1 to 2 have nothing to do"});
  REQUIRE(outcome.report.ranks.size() == 3);
  CHECK(outcome.report.ranks[0].bytes_read > 0);
  CHECK(outcome.report.ranks[2].bytes_read == 0);
}

TEST_CASE("a rank killed or stopped in load, encode, denoise, decode or write: exit 7 names it") {
  // Rank 0's phase is the one that it has just begun: the kill comes at once, and what the phase does takes
  // longer. Loading the small model does not, so that the phase after it may be named.
  struct Case {
    std::string phase;
    std::function<void(config::RunSpec&)> lengthen;
    std::string named;
  };
  const std::vector<Case> cases{
      {"load", [](config::RunSpec&) {}, "in (load|text_encode)"},
      {"text_encode",
       [](config::RunSpec& spec) {
         for (int i = 0; i < 1000; ++i) spec.prompts.push_back(std::to_string(i));
       },
       "in text_encode"},
      {"denoise", [](config::RunSpec& spec) { spec.sampling.steps = 1000; }, "in denoise"},
      {"decode", [](config::RunSpec& spec) { spec.image = {.width = 768, .height = 768, .count = 3}; },
       "in decode"},
      {"write",
       [](config::RunSpec& spec) {
         spec.prompts.pop_back();
         spec.image = {.width = 1536, .height = 1024, .count = 1};
       },
       "in write"}};
  const models::Model model = open_tiny();
  for (const Case& c : cases)
    for (const int signal : {SIGKILL, SIGSTOP}) {
      CAPTURE(c.phase, signal);
      const tests::Scratch folder;
      config::RunSpec spec = small_spec(folder.path(), 2);
      spec.sampling.steps = 1;
      spec.runtime.timeout_s = 5;
      c.lengthen(spec);
      double killed_s = 0;
      Heard heard;
      heard.at_begin = [&](std::string_view phase) {
        if (phase != c.phase || killed_s > 0) return;
        killed_s = now_s();
        ::kill(test::rank_process(::getpid(), 0), signal);
      };
      const Error error = failure(spec, model, heard);
      CHECK(error.code() == ExitCode::kRank);
      CHECK(now_s() - killed_s < 10);
      const std::string how = signal == SIGKILL ? "died" : "was silent";
      CHECK_THAT(error.what(), Catch::Matchers::Matches("rank 0 " + how + " " + c.named + "[^]*"));
      CHECK(test::only_whole_pictures(folder.path()));  // of the rank that went on
    }
}

TEST_CASE("a rank other than 0") {
  const tests::Scratch folder;
  config::RunSpec spec = small_spec(folder.path(), 3);
  spec.sampling.steps = 1000;
  Heard heard;
  bool killed = false;
  heard.at_begin = [&](std::string_view phase) {
    if (phase != "denoise" || std::exchange(killed, true)) return;
    ::usleep(1'000'000);  // its own denoise has begun too
    ::kill(test::rank_process(::getpid(), 2), SIGKILL);
  };
  const Error error = failure(spec, open_tiny(), heard);
  CHECK_THAT(error.what(), ContainsSubstring("rank 2 died in denoise (signal 9)"));
  CHECK(test::only_whole_pictures(folder.path()));  // of the rank that went on
}

TEST_CASE("an Error of a rank keeps its code and words, and says whose it is") {
  const tests::Scratch folder;
  Heard heard;
  SECTION("load: a file that got shorter after the launcher had looked") {
    fs::copy(XDIT_TEST_DATA "/flux/tiny-dev", folder.path() / "model", fs::copy_options::recursive);
    const fs::path file = folder.path() / "model/text_encoder/model.safetensors";
    const models::Model model = open_tiny(folder.path() / "model");
    fs::resize_file(file, fs::file_size(file) - 1000);
    const Error error = failure(small_spec(folder.path() / "out", 2), model, heard);
    CHECK(error.code() == ExitCode::kModel);
    CHECK_THAT(error.what(), ContainsSubstring(file.filename().string()));
  }
  SECTION("decode: a picture that is none") {
    fs::copy(XDIT_TEST_DATA "/flux/tiny-dev", folder.path() / "model", fs::copy_options::recursive);
    {
      const fs::path path = folder.path() / "model/vae/diffusion_pytorch_model.safetensors";
      std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
      std::uint64_t header = 0;
      file.read(reinterpret_cast<char*>(&header), sizeof header);
      file.seekp(static_cast<std::streamoff>(sizeof header + header));
      file << std::string(fs::file_size(path) - sizeof header - header,
                          '\xff');  // weights that are no numbers
    }
    const Error error =
        failure(small_spec(folder.path() / "out", 2), open_tiny(folder.path() / "model"), heard);
    CHECK(error.code() == ExitCode::kModel);
    CHECK_THAT(error.what(), Catch::Matchers::Matches("[^]*rank [01] in decode: [^]*the picture[^]*"));
    CHECK_FALSE(fs::exists(folder.path() / "out" / "0.png"));
  }
  SECTION("write: a name that a file stands in the way of") {
    config::RunSpec spec = small_spec(folder.path(), 2);
    spec.sampling.steps = 50;  // the file is there before the first picture
    spec.output.path = (folder.path() / "out/{index}.png").string();
    heard.at_begin = [&](std::string_view) { std::ofstream(folder.path() / "out") << "a file"; };
    const Error error = failure(spec, open_tiny(), heard);
    CHECK(error.code() == ExitCode::kOutput);
    CHECK_THAT(error.what(), ContainsSubstring("rank "));
  }
  SECTION("write, of a picture that several ranks make: not what the others say of it") {
    config::RunSpec spec = small_spec(folder.path(), 4);
    spec.parallel.data = 1;
    spec.parallel.gather = 4;
    spec.sampling.steps = 50;  // the file is there before the first picture
    spec.output.path = (folder.path() / "out/{index}.png").string();
    heard.at_begin = [&](std::string_view) { std::ofstream(folder.path() / "out") << "a file"; };
    const Error error = failure(spec, open_tiny(), heard);
    CHECK(error.code() == ExitCode::kOutput);
    CHECK_THAT(error.what(), ContainsSubstring("rank 0 in "));
  }
}

}  // namespace xdit::launch
