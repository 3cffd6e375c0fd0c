#include <cstdlib>
#include <optional>

#include "tests/catch.h"
#include "tests/weights/support.h"
#include "weights/model_files.h"

namespace xdit::weights::test {
namespace {

/// Environment variables that come back when the test ends.
struct Environment {
  std::vector<std::pair<std::string, std::optional<std::string>>> before;
  Environment() {
    for (const char* name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) {
      const char* const value = std::getenv(name);
      before.emplace_back(name, value == nullptr ? std::nullopt : std::optional<std::string>(value));
      unsetenv(name);
    }
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  ~Environment() {
    for (const auto& [name, value] : before)
      value ? setenv(name.c_str(), value->c_str(), 1) : unsetenv(name.c_str());
  }
};

/// models--owner--name as huggingface_hub lays it out: every file of a snapshot is a link to a blob.
void add_snapshot(const fs::path& cache, const std::string& commit, const fs::path& model) {
  const fs::path home = cache / "models--owner--FLUX.1-tiny";
  int blob = 0;
  for (const auto& entry : fs::recursive_directory_iterator(model)) {
    if (!entry.is_regular_file()) continue;
    const fs::path inside = fs::relative(entry.path(), model);
    const std::string name = commit + std::to_string(blob++);
    fs::create_directories(home / "blobs");
    fs::copy_file(entry.path(), home / "blobs" / name);
    const fs::path link = home / "snapshots" / commit / inside;
    fs::create_directories(link.parent_path());
    fs::create_symlink(fs::relative(home / "blobs" / name, link.parent_path()), link);
  }
}

TEST_CASE("a path that exists is taken as it is") {
  const TemporaryFolder folder;
  CHECK(find_model(folder.path.string()) == folder.path);
  write(folder.path / "FLUX.1-dev/model_index.json", "");
  const std::string error = error_of([&] { (void)find_model((folder.path / "FLUX.1-dve").string()); });
  CHECK_THAT(error, ContainsSubstring("did you mean " + (folder.path / "FLUX.1-dev").string()));
}

TEST_CASE("owner/name is a snapshot of the Hugging Face cache, opened through its links") {
  const Environment environment;
  const TemporaryFolder folder;
  setenv("HF_HUB_CACHE", folder.path.c_str(), 1);
  add_snapshot(folder.path, "0123abc", data_folder() / "tiny-dev");
  const fs::path model = folder.path / "models--owner--FLUX.1-tiny";
  CHECK(find_model("owner/FLUX.1-tiny") == model / "snapshots/0123abc");
  const ModelFiles files = open_model(find_model("owner/FLUX.1-tiny"));
  CHECK(files.name == "FLUX.1-tiny");
  CHECK(files.components.at("transformer").table.files.size() == 3);
  CHECK(model_hash(files) == model_hash(open_model(data_folder() / "tiny-dev")));

  add_snapshot(folder.path, "4567def", data_folder() / "tiny-schnell");
  CHECK_THAT(error_of([] { (void)find_model("owner/FLUX.1-tiny"); }), ContainsSubstring("several snapshots"));
  write(model / "refs/main", "4567def\n");
  CHECK(find_model("owner/FLUX.1-tiny") == model / "snapshots/4567def");
  write(model / "refs/main", "../../../..");
  CHECK_THAT(error_of([] { (void)find_model("owner/FLUX.1-tiny"); }), ContainsSubstring("several snapshots"));
  fs::remove_all(model / "snapshots");
  CHECK_THAT(error_of([] { (void)find_model("owner/FLUX.1-tiny"); }), ContainsSubstring("hf download"));
}

TEST_CASE("a blob that did not arrive is a download to finish") {
  const Environment environment;
  const TemporaryFolder folder;
  setenv("HF_HUB_CACHE", folder.path.c_str(), 1);
  add_snapshot(folder.path, "0123abc", data_folder() / "tiny-dev");
  const fs::path model = find_model("owner/FLUX.1-tiny");
  fs::remove(fs::canonical(model / "transformer/diffusion_pytorch_model-00002-of-00003.safetensors"));
  CHECK_THAT(error_of([&] { (void)open_model(model); }), ContainsSubstring("finish the download"));
}

TEST_CASE("the cache is where huggingface_hub looks") {
  const Environment environment;
  const TemporaryFolder folder;
  const auto make = [&](const fs::path& hub) {
    fs::create_directories(folder.path / hub / "models--o--n/snapshots/1");
    return folder.path / hub / "models--o--n/snapshots/1";
  };
  const fs::path home = make("home/.cache/huggingface/hub");
  const fs::path xdg = make("xdg/huggingface/hub");
  const fs::path hf_home = make("hf/hub");
  const fs::path hub = make("hub");
  setenv("HOME", (folder.path / "home").c_str(), 1);
  CHECK(find_model("o/n") == home);
  setenv("XDG_CACHE_HOME", (folder.path / "xdg").c_str(), 1);
  CHECK(find_model("o/n") == xdg);
  setenv("HF_HOME", (folder.path / "hf").c_str(), 1);
  CHECK(find_model("o/n") == hf_home);
  setenv("HF_HUB_CACHE", (folder.path / "hub").c_str(), 1);
  CHECK(find_model("o/n") == hub);
}

TEST_CASE("a model that is not there says what to download and what is there") {
  const Environment environment;
  const TemporaryFolder folder;
  setenv("HF_HUB_CACHE", folder.path.c_str(), 1);
  CHECK_THAT(error_of([] { (void)find_model("owner/FLUX.1-dev"); }), ContainsSubstring("which holds none"));
  fs::create_directories(folder.path / "models--owner--FLUX.1-dev");
  fs::create_directories(folder.path / "datasets--owner--pictures");
  const std::string error = error_of([] { (void)find_model("owner/FLUX.1-dex"); });
  CHECK_THAT(error, ContainsSubstring("hf download owner/FLUX.1-dex"));
  CHECK_THAT(error, ContainsSubstring("did you mean owner/FLUX.1-dev?"));
  CHECK(error.find("pictures") == std::string::npos);
}

TEST_CASE("what is no owner/name never reaches the cache") {
  const Environment environment;
  const TemporaryFolder folder;
  setenv("HF_HUB_CACHE", (folder.path / "hub").c_str(), 1);
  fs::create_directories(folder.path / "hub/models--a--b/snapshots/1");
  for (const std::string name : {"", "a", "a/", "/b", "a/b/c", "../a", "a/..", "./b", "a b/c", "a\n/b"}) {
    CAPTURE(name);
    CHECK_THAT(error_of([&] { (void)find_model(name); }), ContainsSubstring("no such file or folder"));
  }
}

}  // namespace
}  // namespace xdit::weights::test
