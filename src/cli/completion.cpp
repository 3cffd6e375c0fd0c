#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "cli/commands.h"
#include "cli/console.h"
#include "config/settings.h"
#include "config/values.h"

namespace xdit::cli {
namespace {

using Flags = std::vector<Parser::Flag>;

constexpr std::string_view kShells = "bash|zsh|fish";

/// What follows a flag, or a command.
struct Value {
  bool any = false;     ///< something does
  bool files = false;   ///< names of files
  Arguments choices{};  ///< or one of these
};

Value value_of(const std::string& stands_for) {
  constexpr std::array kFiles{"PATH", "FILE", "PNG", "PROFILE", "A B"};
  Value value{.any = !stands_for.empty(),
              .files = std::find(kFiles.begin(), kFiles.end(), stands_for) != kFiles.end()};
  if (stands_for.find('|') != std::string::npos) value.choices = config::split(stands_for, '|');
  if (stands_for == "KEY=VALUE")
    for (const config::Key& key : config::keys()) value.choices.push_back(std::string(key.path) + "=");
  return value;
}

Value value_of(const Command& command) {
  return value_of(std::string(command.arguments));
}

// A word of any of these shells within single quotes.
std::string in_single_quotes(std::string_view text, std::string_view quote) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string(quote) : std::string(1, c);
  return quoted + "'";
}

bool is_long(const std::string& name) {
  return name.starts_with("--");
}

Arguments long_names(const Flags& flags, std::string_view prefix) {
  Arguments all;
  for (const Parser::Flag& flag : flags)
    for (const std::string& name : flag.names)
      if (is_long(name) && (prefix.empty() || (flag.value.empty() && name != "--help")))
        all.push_back(prefix.empty() ? name : fmt::format("{}{}", prefix, name.substr(2)));
  return all;
}

std::string bash_case(const Parser::Flag& flag) {
  const Value value = value_of(flag.value);
  if (!value.any) return {};
  std::string action = "return";
  if (value.files) action = "files=1";
  if (!value.choices.empty()) action = fmt::format("words='{}'", fmt::join(value.choices, " "));
  if (flag.value == "KEY=VALUE") action += " space=-o\\ nospace";
  return fmt::format("        {}) {} ;;\n", fmt::join(flag.names, " | "), action);
}

std::string bash(const std::vector<Command>& all) {
  Arguments names;
  for (const Command& command : all) names.emplace_back(command.name);
  std::string script = fmt::format(R"(# bash completion of xdit-gen, made by: xdit-gen completion bash
# shellcheck shell=bash
_xdit_gen() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} flag=${{COMP_WORDS[COMP_CWORD - 1]}} command={}
  local flags='' negatives='' words='' files='' place='' space=''
  COMPREPLY=()
  if [[ $cur == = ]]; then # --dtype=
    cur=''
  elif [[ $flag == = ]]; then # --dtype=b
    flag=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi
  [[ $flag == --* ]] && flag=${{flag//_/-}}
  if ((COMP_CWORD > 1)); then
    case ${{COMP_WORDS[1]}} in
      {}) command=${{COMP_WORDS[1]}} ;;
    esac
  fi
  case $command in
)",
                                   names.front(), fmt::join(names, " | "));
  for (const Command& command : all) {
    const Flags flags = flags_of(command);
    const Value value = value_of(command);
    script += fmt::format("    {})\n      flags='{}'\n      negatives='{}'\n", command.name,
                          fmt::join(long_names(flags, ""), " "), fmt::join(long_names(flags, "--no-"), " "));
    if (value.files) script += "      place=files\n";
    if (!value.choices.empty()) script += fmt::format("      place='{}'\n", fmt::join(value.choices, " "));
    script += "      case $flag in\n";
    for (const Parser::Flag& flag : flags) script += bash_case(flag);
    script += "      esac\n      ;;\n";
  }
  return script + fmt::format(R"(  esac
  if [[ -z $files$words ]]; then
    if [[ $cur == --no-* ]]; then
      words=$negatives
    elif [[ $cur == -* ]]; then
      words=$flags
    elif ((COMP_CWORD == 1)); then
      words='{}'
    elif [[ $place == files ]]; then
      files=1
    else
      words=$place
    fi
  fi
  if [[ -n $files ]]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
  else
    # shellcheck disable=SC2086
    [[ -n $space ]] && compopt $space 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
  fi
}}
complete -F _xdit_gen xdit-gen
)",
                              fmt::join(names, " "));
}

// Text in the brackets of zsh's _arguments.
std::string zsh_text(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') safe += '\\';
    safe += c;
  }
  return safe;
}

std::string zsh_action(const std::string& stands_for) {
  const Value value = value_of(stands_for);
  if (value.files) return ":" + zsh_text(stands_for) + ":_files";
  if (stands_for == "KEY=VALUE")
    return fmt::format(":KEY=VALUE:compadd -S \"\" -- {}", fmt::join(value.choices, " "));
  if (!value.choices.empty()) return fmt::format(":NAME:({})", fmt::join(value.choices, " "));
  return value.any ? ":" + zsh_text(stands_for) + ": " : "";
}

std::string zsh_flag(const Parser::Flag& flag) {
  std::string lines;
  for (const std::string& name : flag.names) {
    std::string spec = (flag.value.empty() ? "" : "*") + name;
    if (!flag.value.empty()) spec += is_long(name) ? "=" : "+";
    spec += fmt::format("[{}]{}", zsh_text(flag.meaning), zsh_action(flag.value));
    lines += fmt::format(" \\\n    {}", in_single_quotes(spec, R"('\'')"));
    if (flag.value.empty() && is_long(name) && name != "--help")
      lines += fmt::format(" \\\n    '!--no-{}'", name.substr(2));
  }
  return lines;
}

std::string zsh(const std::vector<Command>& all) {
  std::string script =
      "#compdef xdit-gen\n# zsh completion of xdit-gen, made by: xdit-gen completion zsh\n\n";
  std::string described;
  std::string cases;
  for (const Command& command : all) {
    script += fmt::format("_xdit-gen-{}() {{\n  _arguments -S", command.name);
    for (const Parser::Flag& flag : flags_of(command)) script += zsh_flag(flag);
    if (command.positionals > 0)
      script += fmt::format(" \\\n    '*{}'", zsh_action(std::string(command.arguments)));
    script += "\n}\n\n";
    described += fmt::format(
        "    {}\n", in_single_quotes(fmt::format("{}:{}", command.name, command.meaning), R"('\'')"));
    cases += fmt::format("{}{}", cases.empty() ? "" : "|", command.name);
  }
  return script + fmt::format(R"(_xdit-gen() {{
  local -a commands=(
{})
  local command={}
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe command commands
    return
  fi
  case $words[2] in
    {})
      command=$words[2]
      shift words
      (( CURRENT-- ))
      ;;
  esac
  _xdit-gen-$command
}}

if [[ $funcstack[1] == _xdit-gen ]]; then
  _xdit-gen "$@"
else
  compdef _xdit-gen xdit-gen
fi
)",
                              described, all.front().name, cases);
}

std::string fish(const std::vector<Command>& all) {
  const auto quoted = [](std::string_view text) { return in_single_quotes(text, R"(\')"); };
  std::string script =
      "# fish completion of xdit-gen, made by: xdit-gen completion fish\ncomplete -c xdit-gen -f\n";
  Arguments others;
  for (auto command = all.begin() + 1; command != all.end(); ++command) others.emplace_back(command->name);
  for (const Command& command : all) {
    script += fmt::format("\ncomplete -c xdit-gen -n __fish_use_subcommand -a {} -d {}\n", command.name,
                          quoted(command.meaning));
    const std::string here =
        quoted(command.name == all.front().name
                   ? fmt::format("not __fish_seen_subcommand_from {}", fmt::join(others, " "))
                   : fmt::format("__fish_seen_subcommand_from {}", command.name));
    const Value place = value_of(command);
    if (place.files) script += fmt::format("complete -c xdit-gen -n {} -F\n", here);
    if (!place.choices.empty())
      script += fmt::format("complete -c xdit-gen -n {} -a {}\n", here,
                            quoted(fmt::format("{}", fmt::join(place.choices, " "))));
    for (const Parser::Flag& flag : flags_of(command)) {
      script += fmt::format("complete -c xdit-gen -n {}", here);
      for (const std::string& name : flag.names)
        script += is_long(name) ? " -l " + name.substr(2) : " -s " + name.substr(1);
      const Value value = value_of(flag.value);
      if (value.any) script += value.files ? " -r -F" : " -x";
      if (!value.choices.empty())
        script += fmt::format(" -a {}", quoted(fmt::format("{}", fmt::join(value.choices, " "))));
      script += fmt::format(" -d {}\n", quoted(flag.meaning));
    }
  }
  return script;
}

ExitCode completion(const Call& call) {
  constexpr std::array kScripts{bash, zsh, fish};  // in the order of kShells
  const std::string shell = call.rest.empty() ? "" : call.rest.front();
  print(kScripts.at(choice(shell, kShells, "xdit-gen completion"))(commands()));
  return ExitCode::kOk;
}

}  // namespace

Command completion_command() {
  return {.name = "completion",
          .arguments = kShells,
          .positionals = 1,
          .meaning = "a script that completes the line in a shell",
          .examples = R"(source <(xdit-gen completion bash)
xdit-gen completion fish > ~/.config/fish/completions/xdit-gen.fish
)",
          .add_flags = [](Parser& /*parser*/) {},
          .run = completion};
}

}  // namespace xdit::cli
