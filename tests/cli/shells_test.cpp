// What shells and man read: made by the executable from the flags that it parses.
#include <array>
#include <cstdio>
#include <sstream>
#include <stdexcept>

#include "config/settings.h"
#include "tests/catch.h"
#include "tests/cli/process.h"

namespace xdit::cli {
namespace {

// What a command of sh says on stdout and stderr; its exit status as the last line.
std::string shell(const std::string& command) {
  std::FILE* pipe = ::popen(("(" + command + ") 2>&1; echo $?").c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("popen");
  std::string text;
  std::array<char, 4096> part{};
  while (const std::size_t got = std::fread(part.data(), 1, part.size(), pipe)) text.append(part.data(), got);
  ::pclose(pipe);
  return text;
}

bool has(const std::string& program) {
  return shell("command -v " + program).ends_with("\n0\n");
}

std::string printed(const Folder& folder, const std::vector<std::string>& arguments) {
  const Result result = xdit_gen(arguments);
  REQUIRE(result.code == 0);
  CHECK(result.err.empty());
  return folder.write("printed", result.out);
}

// What bash offers for the last of these words of a line, a word between '|'.
std::string offered(const std::string& script, const std::string& folder,
                    const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += " '" + word + "'";
  const std::string body = "source " + script + "; cd " + folder + "; COMP_WORDS=(xdit-gen" + line +
                           "); COMP_CWORD=" + std::to_string(words.size()) +
                           "; _xdit_gen; printf \"%s|\" \"${COMPREPLY[@]}\"";
  std::string text = shell("bash --norc -c \"" + [&] {
    std::string escaped;
    for (const char c : body) escaped += c == '"' || c == '$' ? std::string("\\") + c : std::string(1, c);
    return escaped;
  }() + "\"");
  REQUIRE(text.ends_with("0\n"));
  return text.substr(0, text.size() - 2);
}

// What a line becomes in zsh when Tab is pressed at its end: a shell at a terminal, whose Ctrl-T tells the
// line.
constexpr const char* kAtTerminal = R"(zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PROMPT=; autoload -U compinit; compinit -u -D; source $1"
zpty -w shell 'show() { print -r -- "=<$BUFFER>"; BUFFER=; }; zle -N show; bindkey "^T" show; print read""y'
zpty -r -m shell line '*ready*'
zpty -w -n shell "$2"$'\t\x14'
zpty -r -m shell line '*=<*>*'
print -r -- "${${line##*=<}%%>*}"
zpty -d shell
)";

}  // namespace

TEST_CASE("bash completes commands, flags, choices and files") {
  const Folder folder;
  const std::string script = printed(folder, {"completion", "bash"});
  CHECK_THAT(shell("bash --norc -c 'source " + script + "; complete -p xdit-gen'"),
             ContainsSubstring("complete -F _xdit_gen xdit-gen\n0\n"));
  const Folder files;
  static_cast<void>(files.write("run one.yaml", ""));
  static_cast<void>(files.write("run.png", ""));
  const auto offers = [&](const std::vector<std::string>& words) {
    return offered(script, files.path.string(), words);
  };
  CHECK_THAT(offers({""}), ContainsSubstring("generate|batch|sweep|") && ContainsSubstring("|verify|"));
  CHECK(offers({"ver"}) == "verify|");
  CHECK(offers({"--dry"}) == "--dry-run|");
  CHECK(offers({"generate", "--num"}) == "--num-inference-steps|");
  CHECK(offers({"--dtype", ""}) == "bf16|fp16|fp32|");
  CHECK(offers({"--load_format", "d"}) == "dummy|");
  CHECK(offers({"batch", "--dtype", "=", "fp"}) == "fp16|fp32|");
  CHECK(offers({"batch", "--format", "="}) == "text|jsonl|csv|yaml|");
  CHECK(offers({"sweep", "--format", ""}) == "md|csv|json|jsonl|");
  CHECK(offers({"--no-over"}) == "--no-overwrite|");
  CHECK(offers({"--steps", ""}) == "|");
  CHECK(offers({"--set", "sampling.ste"}) == "sampling.steps=|");
  CHECK(offers({"list", "m"}) == "models|");
  CHECK(offers({"list", "--dry"}) == "|");
  CHECK(offers({"sweep", "run"}) == "run one.yaml|run.png|");
  CHECK(offers({"-m", "run.p"}) == "run.png|");
  CHECK(offers({"completion", ""}) == "bash|zsh|fish|");
  const std::string all = offers({"--"});
  for (const config::Key& key : config::keys())
    if (!key.flag.empty()) CHECK_THAT("|" + all, ContainsSubstring("|" + std::string(key.flag) + "|"));
  if (has("shellcheck")) CHECK(shell("shellcheck " + script) == "0\n");
}

TEST_CASE("zsh and fish accept their scripts, which name every flag") {
  const Folder folder;
  for (const std::string& name : {std::string("zsh"), std::string("fish")}) {
    CAPTURE(name);
    const Result script = xdit_gen({"completion", name});
    REQUIRE(script.code == 0);
    for (const config::Key& key : config::keys()) {
      if (key.flag.empty()) continue;
      const std::string flag(key.flag);
      CHECK_THAT(script.out, ContainsSubstring(name == "zsh" ? flag : " -l " + flag.substr(2)));
    }
    if (has(name))
      CHECK(shell(name + " -n " + folder.write(name, script.out)) == "0\n");
    else
      WARN("no " + name + ": not tested");
  }
  CHECK(xdit_gen({"completion", "tcsh"}).code == 2);
  CHECK(xdit_gen({"completion"}).code == 2);
}

TEST_CASE("zsh and fish complete commands, flags and choices") {
  const Folder folder;
  if (has("zsh")) {
    const std::string script = printed(folder, {"completion", "zsh"});
    const std::string terminal = folder.write("terminal.zsh", kAtTerminal);
    for (const auto& [begun, whole] : {std::pair{"ver", "verify "},
                                       {"--dry", "--dry-run "},
                                       {"generate --dtype b", "generate --dtype bf16 "},
                                       {"list m", "list models "},
                                       {"--load-format=d", "--load-format=dummy "},
                                       {"sweep --format c", "sweep --format csv "},
                                       {"completion f", "completion fish "},
                                       {"--set sampling.ste", "--set sampling.steps="}})
      CHECK(shell("timeout 60 zsh -f " + terminal + " " + script + " 'xdit-gen " + begun + "'") ==
            "xdit-gen " + std::string(whole) + "\n0\n");
  } else {
    WARN("no zsh: not tested");
  }
  if (has("fish")) {
    const std::string script = printed(folder, {"completion", "fish"});
    const auto offers = [&](const std::string& line) {  // without what they mean
      return shell("fish --no-config -c 'source " + script + "; complete -C \"xdit-gen " + line +
                   "\" | cut -f 1'");
    };
    CHECK(offers("ver") == "verify\n0\n");
    CHECK(offers("--dry") == "--dry-run\n0\n");
    CHECK(offers("generate --dtype ") == "bf16\nfp16\nfp32\n0\n");
    CHECK(offers("--load-format d") == "dummy\n0\n");
    CHECK(offers("sweep --format ") == "csv\njson\njsonl\nmd\n0\n");
    CHECK(offers("list m") == "models\n0\n");
    CHECK(offers("completion ") == "bash\nfish\nzsh\n0\n");
    CHECK_THAT(offers(""), ContainsSubstring("generate\n") && ContainsSubstring("sweep\n"));
  } else {
    WARN("no fish: not tested");
  }
}

TEST_CASE("the manual page names every flag, key and exit code, and roff finds nothing to warn of") {
  const Folder folder;
  const std::string page = printed(folder, {"man"});
  if (has("groff")) {
    CHECK(shell("groff -ww -man -Tutf8 " + page + " >/dev/null") == "0\n");
    const std::string text = shell("groff -man -Tascii -P-cbou -rLL=400n " + page);
    for (const config::Key& key : config::keys()) {
      CHECK_THAT(text, ContainsSubstring(std::string(key.path)));
      CHECK_THAT(text, ContainsSubstring(std::string(key.flag)));
      CHECK_THAT(text, ContainsSubstring(std::string(key.meaning)));
    }
    for (const char* part : {"143", "xdit-gen sweep PROFILE", "--no-NAME", "\"dawn/{seed}.png\""})
      CHECK_THAT(text, ContainsSubstring(part));
  }
  if (has("man")) CHECK(shell("man --warnings=w -l " + page + " >/dev/null") == "0\n");
}

}  // namespace xdit::cli
