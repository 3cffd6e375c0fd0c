#include "launch/join.h"

#include <map>
#include <string>

#include "core/error.h"
#include "tests/catch.h"

namespace xdit::launch {
namespace {

using Variables = std::map<std::string, std::string>;

std::optional<Place> place_of(const Variables& variables) {
  return joined_place([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

void check_place(const Variables& variables, std::int64_t rank, std::int64_t ranks) {
  const std::optional<Place> place = place_of(variables);
  REQUIRE(place.has_value());
  CHECK(place->rank == rank);
  CHECK(place->ranks == ranks);
}

TEST_CASE("ranks that torchrun, mpirun or srun started") {
  check_place({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"LOCAL_WORLD_SIZE", "2"}}, 1, 2);
  check_place({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "3"}}, 0, 3);
  check_place({{"PMI_RANK", "2"}, {"PMI_SIZE", "3"}, {"MPI_LOCALNRANKS", "3"}}, 2, 3);
  check_place({{"SLURM_PROCID", "3"}, {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_STEP_TASKS_PER_NODE", "4"}}, 3,
              4);
}

TEST_CASE("a lone process joins nothing, nor does a batch script of Slurm") {
  CHECK_FALSE(place_of({}).has_value());
  CHECK_FALSE(place_of({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).has_value());
  CHECK_FALSE(place_of({{"RANK", "0"}}).has_value());
  CHECK_FALSE(place_of({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}).has_value());
}

TEST_CASE("variables that make no sense are usage errors") {
  for (const Variables& variables :
       {Variables{{"RANK", "x"}, {"WORLD_SIZE", "2"}}, Variables{{"RANK", "-1"}, {"WORLD_SIZE", "2"}},
        Variables{{"RANK", "2"}, {"WORLD_SIZE", "2"}},
        Variables{{"RANK", "0"}, {"WORLD_SIZE", "4"}, {"LOCAL_WORLD_SIZE", "2"}}})
    try {
      static_cast<void>(place_of(variables));
      FAIL("taken");
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::kUsage);
    }
}

TEST_CASE("where joined ranks meet") {
  const auto meet = [](const Variables& variables) {
    return meeting_place([&](const char* name) {
      const auto found = variables.find(name);
      return found == variables.end() ? nullptr : found->second.c_str();
    });
  };
  const pipeline::Meeting own = meet({{"MASTER_ADDR", "node"}, {"MASTER_PORT", "29500"}});
  CHECK(own.host == "node");
  CHECK(own.port == 29500);
  CHECK_FALSE(own.served);
  const pipeline::Meeting torchrun = meet({{"MASTER_ADDR", "node"},
                                           {"MASTER_PORT", "1"},
                                           {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                                           {"TORCHELASTIC_RESTART_COUNT", "2"}});
  CHECK(torchrun.served);
  CHECK(torchrun.attempt == "2");
  for (const Variables& variables :
       {Variables{}, Variables{{"MASTER_ADDR", "node"}}, Variables{{"MASTER_PORT", "29500"}},
        Variables{{"MASTER_ADDR", "node"}, {"MASTER_PORT", "0"}},
        Variables{{"MASTER_ADDR", "node"}, {"MASTER_PORT", "65536"}},
        Variables{{"MASTER_ADDR", "node"}, {"MASTER_PORT", "x"}}})
    CHECK_THROWS_AS(meet(variables), Error);
}

TEST_CASE("--gpus of a joined run") {
  const auto gpus = [](const std::string& asked, std::size_t visible) {
    config::RunSpec spec;
    spec.parallel.gpus = asked;
    return joined_spec(spec, {.rank = 0, .ranks = 2}, visible).parallel.gpus;
  };
  CHECK(gpus("1", 8) == "2");
  CHECK(gpus("all", 0) == "2");
  CHECK(gpus("2", 2) == "2");
  CHECK(gpus("1", 1) == "0,0,");
  CHECK(gpus("3,1", 8) == "3,1");
  for (const char* asked : {"3", "1,", "0,1,2"}) {
    CAPTURE(asked);
    CHECK_THROWS_AS(gpus(asked, 8), Error);
  }
}

}  // namespace
}  // namespace xdit::launch
