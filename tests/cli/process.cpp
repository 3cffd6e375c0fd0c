#include "tests/cli/process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace xdit::cli {
namespace {

namespace fs = std::filesystem;

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> all;
  all.reserve(texts.size() + 1);
  for (const std::string& text : texts) all.push_back(const_cast<char*>(text.c_str()));
  all.push_back(nullptr);
  return all;
}

}  // namespace

fs::path Folder::make() {
  std::string name = (fs::temp_directory_path() / "xdit-cli-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
  return name;
}

Folder::~Folder() {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

std::string Folder::write(const std::string& name, const std::string& text) const {
  std::ofstream(path / name, std::ios::binary) << text;
  return (path / name).string();
}

pid_t start(const std::vector<std::string>& arguments, const std::vector<std::string>& environment, int input,
            int output, int error) {
  std::vector<std::string> command{XDIT_GEN};
  command.insert(command.end(), arguments.begin(), arguments.end());
  std::vector<std::string> variables{"HOME=/nonexistent", "PATH=/usr/bin:/bin", "CUDA_VISIBLE_DEVICES="};
  variables.insert(variables.end(), environment.begin(), environment.end());
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input, 0);
  posix_spawn_file_actions_adddup2(&actions, output, 1);
  posix_spawn_file_actions_adddup2(&actions, error, 2);
  pid_t process = 0;
  const int failed = ::posix_spawn(&process, XDIT_GEN, &actions, nullptr, pointers(command).data(),
                                   pointers(variables).data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) throw std::runtime_error("cannot start " XDIT_GEN);
  return process;
}

int wait_for(pid_t process) {
  int status = 0;
  if (::waitpid(process, &status, 0) != process) throw std::runtime_error("waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

Result xdit_gen(const std::vector<std::string>& arguments, const Run& run) {
  const Folder folder;
  const std::string out = run.output.empty() ? (folder.path / "out").string() : run.output;
  const int input = ::open(folder.write("in", run.input).c_str(), O_RDONLY | O_CLOEXEC);
  const int output = ::open(out.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  const int error = ::open((folder.path / "err").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  const int code = wait_for(start(arguments, run.environment, input, output, error));
  for (const int descriptor : {input, output, error}) ::close(descriptor);
  return {code, contents(folder.path / "out"), contents(folder.path / "err")};
}

Result dry_run(std::vector<std::string> arguments, const Run& run) {
  for (const char* more : {"--dry-run", "--device", "cpu"}) arguments.emplace_back(more);
  return xdit_gen(arguments, run);
}

std::string data(const std::string& name) {
  return std::string(XDIT_TEST_DATA "/") + name;
}

}  // namespace xdit::cli
