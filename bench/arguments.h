// The command line of a bench: perhaps a word, numbers by position, --allocator, --check and --help.
#ifndef HAKMEM_BENCH_ARGUMENTS_H_
#define HAKMEM_BENCH_ARGUMENTS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace hak_bench {

constexpr int kExitBadArgument = 2;

// One number on the command line. `value` is the default until Arguments::Parse has replaced it.
struct Argument {
  const char *name;
  const char *meaning;
  double value;
  double min;
  double max;
  bool is_fractional = false;

  uint64_t Count() const { return static_cast<uint64_t>(value); }
};

// A word that must come before the numbers, one of `values`.
struct Word {
  const char *name;
  std::vector<const char *> values;
};

class Arguments {
 public:
  // `purpose` is the first line of --help.
  Arguments(const char *purpose, std::vector<Argument> numbers) : Arguments(purpose, {}, std::move(numbers)) {}
  Arguments(const char *purpose, Word word, std::vector<Argument> numbers)
      : purpose_(purpose), word_(std::move(word)), numbers_(std::move(numbers)) {}

  // Takes the command line apart. Missing numbers keep their defaults. A bad one ends the process with status 2 and a
  // line on stderr that names it and what is accepted; --help prints and ends it with status 0.
  void Parse(int argc, char **argv);

  // Ends the process with status 2 unless the number at `index` is at least `min`: for limits that depend on others.
  void RequireAtLeast(size_t index, double min) const;

  const Argument &operator[](size_t index) const { return numbers_[index]; }
  const std::string &word() const { return word_value_; }
  const std::string &allocator() const { return allocator_; }
  // Whether the marks of each block shall be verified before it is freed.
  bool check() const { return check_; }

 private:
  bool LacksWord() const { return !word_.values.empty() && word_value_.empty(); }
  std::string KnownWords() const;
  void ParseWord(const char *text);
  void ParseNumber(size_t index, const char *text);
  [[noreturn]] void Refuse(const Argument &argument, const char *text, double min) const;
  void PrintHelp() const;

  const char *purpose_;
  Word word_;
  std::string word_value_;
  std::vector<Argument> numbers_;
  std::string allocator_ = "hakmem";
  bool check_ = false;
};

}  // namespace hak_bench

#endif  // HAKMEM_BENCH_ARGUMENTS_H_
