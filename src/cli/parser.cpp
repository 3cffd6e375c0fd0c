#include "cli/parser.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>

#include "config/values.h"
#include "core/nearest.h"

namespace xdit::cli {
namespace {

// "--num-steps -n" -> {"--num-steps", "--num_steps", "-n"}
Arguments spellings(const std::string& names) {
  Arguments all;
  for (const std::string& name : config::split(names, ' ')) {
    if (name.empty()) continue;
    all.push_back(name);
    std::string underscored = name;
    std::replace(underscored.begin() + std::min<std::ptrdiff_t>(2, std::ssize(name)), underscored.end(), '-',
                 '_');
    if (underscored != name) all.push_back(underscored);
  }
  return all;
}

}  // namespace

Parser::Parser() {
  app_.set_help_flag();
  app_.allow_extras();
  help_ = app_.add_flag("--help,-h");
}

CLI::Option* Parser::value(const std::string& names) {
  return app_.add_option(fmt::format("{}", fmt::join(spellings(names), ",")))
      ->allow_extra_args(false)
      ->take_all();
}

CLI::Option* Parser::toggle(const std::string& names) {
  Arguments all = spellings(names);
  for (const std::string& name : config::split(names, ' '))
    if (name.starts_with("--"))
      for (const std::string& negative : spellings("--no-" + name.substr(2)))
        all.push_back(negative + "{false}");
  return app_.add_flag(fmt::format("{}", fmt::join(all, ",")))->take_all();
}

Arguments Parser::parse(const Arguments& arguments, std::size_t positionals) {
  try {
    app_.parse(Arguments(arguments.rbegin(), arguments.rend()));  // CLI11 takes them in reverse
  } catch (const CLI::ArgumentMismatch& error) {
    const std::string text = error.what();  // "--steps: 1 required ..."
    throw Error(ExitCode::kUsage, fmt::format("{} needs a value", text.substr(0, text.find(':'))), {},
                "xdit-gen --help");
  } catch (const CLI::ParseError& error) {
    throw Error(ExitCode::kUsage, error.what(), {}, "xdit-gen --help");
  }
  Arguments rest = app_.remaining();
  if (help()) return rest;
  std::vector<std::string> flags;
  for (const CLI::Option* option : app_.get_options())
    for (const std::string& name : option->get_lnames())
      if (name.find('_') == std::string::npos) flags.push_back("--" + name);
  for (const std::string& argument : rest) {
    if (argument.size() < 2 || !argument.starts_with('-')) continue;
    const std::string name = argument.substr(0, argument.find('='));
    const std::string near = nearest(name, flags);
    throw Error(ExitCode::kUsage, fmt::format("unknown flag {}", config::in_quotes(name)), {},
                near.empty() ? "xdit-gen --help" : near);
  }
  if (rest.size() > positionals)
    throw Error(ExitCode::kUsage, fmt::format("unexpected argument {}", config::in_quotes(rest[positionals])),
                {}, "quotes around text with spaces, as in -p \"a red fox\"; xdit-gen --help");
  return rest;
}

std::string last(const CLI::Option* option) {
  const std::vector<std::string>& results = option->results();
  return results.empty() ? "" : results.back();
}

}  // namespace xdit::cli
