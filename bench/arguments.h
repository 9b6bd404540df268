// The command line of a bench: numbers and words by position, --allocator, --check and --help.
#ifndef HAKMEM_BENCH_ARGUMENTS_H_
#define HAKMEM_BENCH_ARGUMENTS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace hak_bench {

constexpr int kExitBadArgument = 2;

// One argument on the command line, a number or one word of `choices`, then `value` is the word's index in them. It is
// the default until Arguments::Parse has replaced it.
struct Argument {
  const char *name;
  const char *meaning;
  double value;
  double min;
  double max;
  bool is_fractional = false;
  std::vector<const char *> choices = {};

  uint64_t Count() const { return static_cast<uint64_t>(value); }
};

// An argument that is one of `choices`; the first is the default.
inline Argument Choice(const char *name, const char *meaning, std::vector<const char *> choices) {
  return {name, meaning, 0, 0, static_cast<double>(choices.size() - 1), false, std::move(choices)};
}

class Arguments {
 public:
  // `purpose` is the first line of --help. A program that cannot verify its blocks refuses --check.
  Arguments(const char *purpose, std::vector<Argument> positional, bool has_check = false)
      : purpose_(purpose), positional_(std::move(positional)), has_check_(has_check) {}

  // Takes the command line apart. Missing arguments keep their defaults. A bad one ends the process with status 2 and a
  // line on stderr that names it and the accepted range; --help prints and ends it with status 0.
  void Parse(int argc, char **argv);

  // Ends the process with status 2 unless the number at `index` is at least `min`: for limits that depend on others.
  void RequireAtLeast(size_t index, double min) const;

  const Argument &operator[](size_t index) const { return positional_[index]; }
  const std::string &allocator() const { return allocator_; }
  // Whether the marks of each block shall be verified before it is freed.
  bool check() const { return check_; }

 private:
  void ParsePositional(size_t index, const char *text);
  void ParseChoice(Argument *argument, const char *text) const;
  void ParseNumber(Argument *argument, const char *text) const;
  [[noreturn]] void Refuse(const Argument &argument, const char *text, double min) const;
  void PrintHelp() const;

  const char *purpose_;
  std::vector<Argument> positional_;
  bool has_check_;
  std::string allocator_ = "hakmem";
  bool check_ = false;
};

}  // namespace hak_bench

#endif  // HAKMEM_BENCH_ARGUMENTS_H_
