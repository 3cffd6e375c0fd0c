// What fits the models of a run is settled by the launcher.
#include <filesystem>

#include "tests/catch.h"
#include "tests/cli/process.h"

namespace xdit::cli {
namespace fs = std::filesystem;

TEST_CASE("settings that reach no network of the run are warned of") {
  const auto warned = [](const std::string& model, const std::vector<std::string>& settings) {
    std::vector<std::string> arguments{"-m", data(model), "-p", "a", "-s", "1"};
    for (const std::string& setting : settings) arguments.insert(arguments.end(), {"--set", setting});
    const Result result = dry_run(arguments);
    CHECK(result.code == 0);
    return result.err;
  };
  const std::vector<std::string> sizes{"sampling.crop=8x8", "sampling.original_size=64x64",
                                       "sampling.target_size=64x64"};
  const std::vector<std::string> refining{"sampling.refiner_start=0.5", "sampling.aesthetic_score=7",
                                          "sampling.negative_aesthetic_score=1"};
  for (const char* model : {"flux/tiny-dev", "sd/tiny-sd15", "sd/tiny-sd21"})
    CHECK_THAT(warned(model, sizes), ContainsSubstring("warning: sampling.crop has no effect on tiny-") &&
                                         ContainsSubstring("sampling.original_size has no effect") &&
                                         ContainsSubstring("sampling.target_size has no effect"));
  CHECK(warned("sd/tiny-sdxl", sizes).empty());
  CHECK_THAT(warned("sd/tiny-sdxl", refining),
             ContainsSubstring("sampling.refiner_start has no effect without --refiner") &&
                 ContainsSubstring("sampling.aesthetic_score has no effect") &&
                 ContainsSubstring("sampling.negative_aesthetic_score has no effect"));
  std::vector<std::string> refined = refining;
  refined.push_back("model.refiner=" + data("sd/tiny-refiner"));
  CHECK(warned("sd/tiny-sdxl", refined).empty());
  CHECK_THAT(warned("sd/tiny-sdxl", {"sampling.scheduler=lcm", "sampling.timestep_spacing=trailing"}),
             ContainsSubstring("sampling.timestep_spacing has no effect on lcm"));
}

TEST_CASE("settings that say one thing twice, or mean another kind of model, are refused") {
  const auto dry = [](const std::string& model, const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"-m", data(model), "-p", "a", "-s", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return dry_run(arguments);
  };
  const auto refused = [&](const std::string& model, const std::vector<std::string>& more) {
    const Result result = dry(model, more);
    CHECK(result.code == 2);
    return result.err;
  };
  const auto taken = [&](const std::string& model, const std::vector<std::string>& more) {
    const Result result = dry(model, more);
    CAPTURE(result.err);
    CHECK(result.code == 0);
    return result.out;
  };
  for (const char* model : {"sd/tiny-sdxl", "sd/tiny-sd15"}) {
    CAPTURE(model);
    CHECK_THAT(refused(model, {"--guidance", "3", "--cfg-scale", "4"}),
               ContainsSubstring("sampling.guidance=3 and sampling.cfg_scale=4 are one setting") &&
                   ContainsSubstring("try: --cfg-scale 4 alone"));
    CHECK_THAT(taken(model, {"--guidance", "3", "--cfg-scale", "3.0"}), ContainsSubstring("cfg_scale: 3\n"));
    CHECK_THAT(taken(model, {"--cfg-scale", "3", "--guidance", "0"}), ContainsSubstring("cfg_scale: 3\n"));
    CHECK_THAT(refused(model, {"--set", "sampling.shift=3"}),
               ContainsSubstring("sampling.shift=3: ") && ContainsSubstring("sampling.shift=auto"));
    CHECK_THAT(refused(model, {"--sigmas", "SGM Uniform", "--set", "sampling.timestep_spacing=leading"}),
               ContainsSubstring("sampling.sigmas=sgm-uniform") &&
                   ContainsSubstring("sampling.timestep_spacing=leading") &&
                   ContainsSubstring("try: --sigmas default"));
    CHECK_THAT(refused(model, {"--sigmas", "simple", "--set", "sampling.timestep_spacing=trailing"}),
               ContainsSubstring("sampling.sigmas=simple"));
    taken(model, {"--sigmas", "sgm-uniform", "--set", "sampling.timestep_spacing=trailing"});
  }
  // One source over another: what is nearer wins.
  const Folder folder;
  const std::string profile = folder.write("p.yaml", "sampling: {guidance: 3}\n");
  CHECK_THAT(taken("sd/tiny-sdxl", {"--profile", profile, "--cfg-scale", "4"}),
             ContainsSubstring("cfg_scale: 4\n"));
  // Of what is overridden nothing is asked.
  const std::string both = folder.write("both.yaml", "sampling: {guidance: 3, cfg_scale: 2}\n");
  CHECK_THAT(taken("sd/tiny-sdxl", {"--profile", both, "--cfg-scale", "4"}),
             ContainsSubstring("cfg_scale: 4\n"));
  CHECK_THAT(refused("sd/tiny-sdxl", {"--profile", both}), ContainsSubstring("both.yaml:1"));
  // A profile of all settings says both.
  const std::string whole = folder.write("q.yaml", taken("sd/tiny-sdxl", {"--cfg-scale", "4"}));
  CHECK_THAT(taken("sd/tiny-sdxl", {"--profile", whole}), ContainsSubstring("cfg_scale: 4\n"));
  // FLUX has two scales; one without an embedding has one.
  CHECK_THAT(taken("flux/tiny-dev", {"--guidance", "3", "--cfg-scale", "4"}),
             ContainsSubstring("guidance: 3\n") && ContainsSubstring("cfg_scale: 4\n"));
  taken("flux/tiny-dev", {"--set", "sampling.shift=3"});
  taken("flux/tiny-schnell", {"--guidance", "0", "--cfg-scale", "4"});
  CHECK_THAT(refused("flux/tiny-schnell", {"--guidance", "3", "--cfg-scale", "4"}),
             ContainsSubstring("sampling.guidance=3: tiny-schnell embeds no guidance") &&
                 ContainsSubstring("try: --guidance 0, or --cfg-scale"));
}

TEST_CASE("a sampler that cannot do what is asked of it is refused before there is a rank") {
  const auto refused = [](std::vector<std::string> arguments, const std::string& model) {
    for (const std::string& more : {std::string("-m"), data(model), std::string("-p"), std::string("a"),
                                    std::string("--device"), std::string("cpu")})
      arguments.push_back(more);
    const Result result = xdit_gen(arguments, {.input = "a fox\n"});
    CAPTURE(result.out);
    CHECK(result.code == 2);
    return result.err;
  };
  for (const std::vector<std::string>& command : {std::vector<std::string>{"generate", "--dry-run"},
                                                  {"generate"},
                                                  {"plan"},
                                                  {"bench"},
                                                  {"batch", "-"}}) {
    CAPTURE(command.front());
    const auto with = [&](std::vector<std::string> more) {
      more.insert(more.begin(), command.begin(), command.end());
      return more;
    };
    CHECK_THAT(refused(with({"--scheduler", "ddim", "--sigmas", "karras"}), "sd/tiny-sdxl"),
               ContainsSubstring("--sigmas: ddim has no karras noise levels"));
    CHECK_THAT(refused(with({"--scheduler", "ddim"}), "flux/tiny-dev"),
               ContainsSubstring("ddim does not fit a model of flow matching"));
    CHECK_THAT(refused(with({"--set", "sampling.prediction=v_prediction"}), "flux/tiny-dev"),
               ContainsSubstring("models of flow matching predict one thing"));
    CHECK_THAT(refused(with({"--scheduler", "dpmpp_2m", "--steps", "999"}), "sd/tiny-sdxl"),
               ContainsSubstring("--steps: 999 steps have two at the noise level 14.61"));
    CHECK_THAT(
        refused(with({"--scheduler", "ddim", "--steps", "1000"}), "sd/tiny-sdxl"),
        ContainsSubstring("--steps: 1000 steps begin at timestep 1000") && ContainsSubstring("try: fewer"));
  }
}

TEST_CASE("a refiner is planned behind the model, and fits SDXL alone") {
  const std::string refiner = data("sd/tiny-refiner");
  const Result both = dry_run({"-m", data("sd/tiny-sdxl"), "--refiner", refiner, "-p", "a"});
  CHECK(both.code == 0);
  CHECK_THAT(both.out, ContainsSubstring("refiner_start: 0.8") && ContainsSubstring("# refiner"));
  const auto refused = [&](const std::vector<std::string>& arguments) {
    const Result result = dry_run(arguments);
    CHECK(result.code == 2);
    return result.err;
  };
  CHECK_THAT(refused({"-m", refiner, "-p", "a"}), ContainsSubstring("--refiner " + refiner));
  CHECK_THAT(refused({"-m", data("sd/tiny-sd15"), "--refiner", refiner, "-p", "a"}),
             ContainsSubstring("does not know the latents of tiny-sd15"));
  CHECK_THAT(refused({"-m", data("sd/tiny-sdxl"), "--refiner", data("sd/tiny-sdxl"), "-p", "a"}),
             ContainsSubstring("sdxl refines nothing"));
}

TEST_CASE("a refiner's single file: what it lacks is its folder's, the base's, the model's") {
  const auto planned = [](const std::string& refiner, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"-m", data("sd/tiny-sdxl"), "--refiner", refiner, "-p", "a"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return dry_run(arguments);
  };
  const std::string file = XDIT_SINGLE_FILES "/tiny-refiner.safetensors";
  const Result alone = planned(file);  // its heads are no published ones
  CHECK(alone.code == 4);
  CHECK_THAT(alone.err, ContainsSubstring("--base FOLDER with configs"));
  const std::vector<std::string> base{"--base", data("sd/tiny-refiner")};
  const Result based = planned(file, base);
  INFO(based.err);
  CHECK(based.code == 0);
  CHECK_THAT(based.out, ContainsSubstring("# refiner"));
  // Without a tokenizer in the base, and without a base in the file's own folder.
  const Folder folder;
  fs::copy(data("sd/tiny-refiner"), folder.path / "own", fs::copy_options::recursive);
  fs::remove_all(folder.path / "own/tokenizer_2");
  CHECK(planned(file, {"--base", folder.path / "own"}).code == 0);
  CHECK(planned(folder.path / "own").code == 0);
  fs::copy(file, folder.path / "own/file.safetensors");
  CHECK(planned(folder.path / "own/file.safetensors").code == 0);
  CHECK(planned(folder.path / "own/file.safetensors", {"--base", data("sd/tiny-sd15")}).code == 0);
}

}  // namespace xdit::cli
