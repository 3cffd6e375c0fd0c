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
  toggle("--help -h", "this help");
}

void Parser::value(const std::string& names, const std::string& stands_for, const std::string& meaning) {
  app_.add_option(fmt::format("{}", fmt::join(spellings(names), ",")))
      ->type_name(stands_for)
      ->description(meaning)
      ->allow_extra_args(false)
      ->take_all();
}

void Parser::toggle(const std::string& names, const std::string& meaning) {
  Arguments all = spellings(names);
  for (const std::string& name : config::split(names, ' '))
    if (name.starts_with("--"))
      for (const std::string& negative : spellings("--no-" + name.substr(2)))
        all.push_back(negative + "{false}");
  app_.add_flag(fmt::format("{}", fmt::join(all, ",")))->type_name("")->description(meaning)->take_all();
}

std::vector<Parser::Flag> Parser::flags() const {
  std::vector<Flag> all;
  for (const CLI::Option* option : app_.get_options()) {
    Flag& flag = all.emplace_back(
        Flag{.names = {}, .value = option->get_type_name(), .meaning = option->get_description()});
    const Arguments& negatives = option->get_fnames();
    for (const std::string& name : option->get_lnames())
      if (name.find('_') == std::string::npos &&
          std::find(negatives.begin(), negatives.end(), name) == negatives.end())
        flag.names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) flag.names.push_back("-" + name);
  }
  return all;
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
  if (on("--help")) return rest;
  Arguments known;
  for (const Flag& flag : flags()) known.insert(known.end(), flag.names.begin(), flag.names.end());
  for (const std::string& argument : rest) {
    if (argument.size() < 2 || !argument.starts_with('-')) continue;
    const std::string name = argument.substr(0, argument.find('='));
    const std::string near = nearest(name, known);
    throw Error(ExitCode::kUsage, fmt::format("unknown flag {}", config::in_quotes(name)), {},
                near.empty() ? "xdit-gen --help" : near);
  }
  if (rest.size() > positionals)
    throw Error(ExitCode::kUsage, fmt::format("unexpected argument {}", config::in_quotes(rest[positionals])),
                {}, "quotes around text with spaces, as in -p \"a red fox\"; xdit-gen --help");
  return rest;
}

std::size_t choice(const std::string& value, std::string_view known, const std::string& where) {
  const Arguments all = config::split(known, '|');
  const auto found = std::find(all.begin(), all.end(), value);
  const std::string near = nearest(value, all);
  if (found == all.end())
    throw Error(ExitCode::kUsage,
                fmt::format("expected one of {}, found {}", known, config::in_quotes(value)), where,
                fmt::format("{} {}", where, near.empty() ? all.front() : near));
  return static_cast<std::size_t>(found - all.begin());
}

const Arguments& Parser::values(const std::string& name) const {
  return app_.get_option(name)->results();
}

std::string Parser::last(const std::string& name) const {
  const Arguments& all = values(name);
  return all.empty() ? "" : all.back();
}

}  // namespace xdit::cli
