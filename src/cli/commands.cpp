#include "cli/commands.h"

namespace xdit::cli {

std::vector<Command> commands() {
  return {generate_command(), batch_command(),      sweep_command(),  bench_command(),   worker_command(),
          stop_command(),     plan_command(),       doctor_command(), inspect_command(), list_command(),
          verify_command(),   completion_command(), man_command()};
}

std::vector<Parser::Flag> flags_of(const Command& command) {
  Parser parser;
  command.add_flags(parser);
  return parser.flags();
}

}  // namespace xdit::cli
