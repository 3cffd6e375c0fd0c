#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <new>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/generate_options.h"
#include "config/values.h"
#include "core/nearest.h"
#include "core/stop.h"

namespace xdit::cli {
namespace {

// A signal handler reaches nothing but static storage.
StopToken stop_token;

void stop_on_signals() {
  struct sigaction action {};
  action.sa_handler = [](int signal) { stop_token.request(signal); };
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // a second signal ends the process at once
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);  // a closed stdout is an error with an exit code
  std::signal(SIGXFSZ, SIG_IGN);  // so is a file-size limit
}

ExitCode run(Arguments arguments) {
  const std::string first = arguments.empty() ? "" : arguments.front();
  if (first == "--help" || first == "-h" || first == "help") {
    print(short_help());
    return ExitCode::kOk;
  }
  if (first == "--version") {
    print(fmt::format("xdit-gen {}\n", XDIT_VERSION));
    return ExitCode::kOk;
  }
  const bool is_command = !first.empty() && !first.starts_with('-');
  if (is_command) arguments.erase(arguments.begin());
  if (first == "inspect") return inspect(arguments);
  if (first == "list") return list(arguments);
  if (is_command && first != "generate") {
    const std::array<std::string, 3> commands{"generate", "inspect", "list"};
    const std::string near = nearest(first, commands);
    throw Error(ExitCode::kUsage, fmt::format("unknown command {}", config::in_quotes(first)), {},
                near.empty() ? fmt::format("xdit-gen -p \"{}\", or --help", first) : "xdit-gen " + near);
  }
  return generate(arguments, environ, stop_token);
}

int report(ExitCode code, const std::string& text) {
  std::fputs(fmt::format("xdit-gen: error: {}\n", printable(text)).c_str(), stderr);
  return static_cast<int>(code);
}

}  // namespace
}  // namespace xdit::cli

int main(int argc, char** argv) {
  using namespace xdit;
  try {
    cli::stop_on_signals();
    return static_cast<int>(cli::run({argv + std::min(argc, 1), argv + argc}));
  } catch (const Error& error) {
    return cli::report(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return cli::report(ExitCode::kMemory, "out of memory\n  try: a smaller --size, or --dtype bf16");
  } catch (const std::exception& error) {
    return cli::report(ExitCode::kInternal, fmt::format("internal error: {}", error.what()));
  }
}
