#pragma once
#include <string_view>
#include <vector>

#include "cli/parser.h"
#include "core/error.h"
#include "core/stop.h"

namespace xdit::cli {

/// What a command is called with.
struct Call {
  const Parser& flags;  ///< parsed
  const Arguments& rest;
  const char* const* environment;  ///< NAME=value, null-terminated
  const StopToken& stop;
  double started_s = 0;  ///< of the process, on launch::now_s's clock
};

/// A command of the line. Its help, the completions of shells and the man page are made of this.
struct Command {
  std::string_view name;
  std::string_view arguments;  ///< besides flags, as the help shows them: "FILE"; choices "a|b" are completed
  std::size_t positionals;     ///< how many of these at most
  std::string_view meaning;
  std::string_view examples;  ///< whole lines
  void (*add_flags)(Parser& parser);
  ExitCode (*run)(const Call& call);
};

Command generate_command();  ///< makes pictures; stops between steps when asked to
Command bench_command();     ///< figures of repeated runs on stdout; their pictures stay
Command batch_command();     ///< pictures of a file of prompts; kPartial when some could not be made
Command sweep_command();     ///< a run a point of a profile; kPartial when some failed or pictures differ
Command worker_command();    ///< jobs on stdin, results on stdout, weights stay
Command stop_command();
Command plan_command();  ///< what generate would do, predicted for this machine or another
Command completion_command();
Command doctor_command();   ///< kDevice when no GPU can be used
Command inspect_command();  ///< kModel for a model that lacks something
Command list_command();
Command man_command();
Command verify_command();  ///< kPartial when the files are not equal

/// All of them; the first one works without its name.
[[nodiscard]] std::vector<Command> commands();
[[nodiscard]] std::vector<Parser::Flag> flags_of(const Command& command);

}  // namespace xdit::cli
