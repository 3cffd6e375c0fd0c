#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <new>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/help.h"
#include "config/values.h"
#include "core/nearest.h"
#include "core/stop.h"
#include "launch/clock.h"

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

// No file that is opened later becomes stdin, stdout or stderr where the caller closed it: what is printed
// would go there. Writing to a stdout that was closed stays an error.
void fill_standard_descriptors() {
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(standard, F_GETFD) < 0)                  // NOLINT(*-vararg)
      static_cast<void>(::open("/dev/null", O_RDONLY));  // NOLINT(*-vararg): takes the lowest that is free
}

Error unknown_command(const std::string& name, const std::vector<Command>& all) {
  std::vector<std::string> names(all.size());
  std::transform(all.begin(), all.end(), names.begin(), [](const Command& c) { return std::string(c.name); });
  const std::string near = nearest(name, names);
  return {ExitCode::kUsage,
          fmt::format("unknown command {}", config::in_quotes(name)),
          {},
          near.empty() ? fmt::format("xdit-gen -p \"{}\", or --help", name) : "xdit-gen " + near};
}

ExitCode run(Arguments arguments, double started_s) {
  if (arguments == Arguments{"help", "all"}) {
    print(help_of(generate_command()) + "\n" + settings_help());
    return ExitCode::kOk;
  }
  if (arguments.size() == 2 && arguments.front() == "help") arguments = {arguments.back(), "--help"};
  const std::string first = arguments.empty() ? "" : arguments.front();
  if (first == "--help" || first == "-h" || first == "help") {
    print(short_help());
    return ExitCode::kOk;
  }
  if (first == "--version") {
    print(fmt::format("xdit-gen {}\n", XDIT_VERSION));
    return ExitCode::kOk;
  }
  const std::vector<Command> all = commands();
  auto command = all.begin();
  if (!first.empty() && !first.starts_with('-')) {
    command = std::find_if(all.begin(), all.end(), [&](const Command& c) { return c.name == first; });
    if (command == all.end()) throw unknown_command(first, all);
    arguments.erase(arguments.begin());
  }
  Parser parser;
  command->add_flags(parser);
  const Arguments rest = parser.parse(arguments, command->positionals);
  if (parser.on("--help")) {
    print(command == all.begin() ? short_help() : help_of(*command));
    return ExitCode::kOk;
  }
  return command->run(
      {.flags = parser, .rest = rest, .environment = environ, .stop = stop_token, .started_s = started_s});
}

int report(ExitCode code, const std::string& text) {
  std::fputs(fmt::format("xdit-gen: error: {}\n", printable(text)).c_str(), stderr);
  return static_cast<int>(code);
}

}  // namespace
}  // namespace xdit::cli

int main(int argc, char** argv) {
  using namespace xdit;
  const double started_s = launch::now_s();
  try {
    cli::fill_standard_descriptors();
    cli::stop_on_signals();
    return static_cast<int>(cli::run({argv + std::min(argc, 1), argv + argc}, started_s));
  } catch (const Error& error) {
    return cli::report(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return cli::report(ExitCode::kMemory, "out of memory\n  try: a smaller --size, or --dtype bf16");
  } catch (const std::exception& error) {
    return cli::report(ExitCode::kInternal, fmt::format("internal error: {}", error.what()));
  }
}
