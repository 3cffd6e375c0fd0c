#include "cli/commands.h"

namespace xdit::cli {

std::vector<Command> commands() {
  return {generate_command(), batch_command(), worker_command(), stop_command(),
          inspect_command(),  list_command(),  verify_command()};
}

}  // namespace xdit::cli
