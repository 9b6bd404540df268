#include "bench/arguments.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/allocator.h"

namespace hak_bench {

void Arguments::Refuse(const Argument &argument, const char *text, double min) const {
  fprintf(stderr, "%s: %s is '%s', must be a%s number from %.15g to %.15g\n", program_invocation_short_name,
          argument.name, text, argument.is_fractional ? "" : " whole", min, argument.max);
  exit(kExitBadArgument);
}

void Arguments::RequireAtLeast(size_t index, double min) const {
  char text[32];
  snprintf(text, sizeof(text), "%.15g", numbers_[index].value);
  if (numbers_[index].value < min) Refuse(numbers_[index], text, min);
}

std::string Arguments::KnownWords() const {
  std::string words;
  for (const char *value : word_.values) words += (words.empty() ? "" : ", ") + std::string(value);
  return words;
}

void Arguments::PrintHelp() const {
  printf("%s\n\nusage: %s [options]", purpose_, program_invocation_short_name);
  if (!word_.values.empty()) printf(" %s", word_.name);
  for (const Argument &argument : numbers_) printf(" [%s]", argument.name);
  printf("\n\n");
  if (!word_.values.empty()) printf("  %-14s one of %s\n", word_.name, KnownWords().c_str());
  for (const Argument &argument : numbers_) {
    printf("  %-14s %s: %.15g to %.15g, default %.15g\n", argument.name, argument.meaning, argument.min, argument.max,
           argument.value);
  }
  printf("\n  --allocator A  %s\n", kAllocatorHelp);
  printf("  --check        verify both ends of each block before it is freed (slower; not for comparing)\n");
}

void Arguments::ParseWord(const char *text) {
  for (const char *value : word_.values) {
    if (strcmp(text, value) == 0) word_value_ = text;
  }
  if (LacksWord()) {
    fprintf(stderr, "%s: %s is '%s', must be one of %s\n", program_invocation_short_name, word_.name, text,
            KnownWords().c_str());
    exit(kExitBadArgument);
  }
}

void Arguments::ParseNumber(size_t index, const char *text) {
  if (index >= numbers_.size()) {
    fprintf(stderr, "%s: '%s' is one argument too many; at most %zu are taken, see --help\n",
            program_invocation_short_name, text, numbers_.size());
    exit(kExitBadArgument);
  }
  Argument &argument = numbers_[index];
  char *end = nullptr;
  const double value = strtod(text, &end);
  const bool is_number = end != text && *end == '\0';
  const bool is_in_range = value >= argument.min && value <= argument.max;  // false for NaN
  if (!is_number || !is_in_range || (!argument.is_fractional && value != floor(value))) {
    Refuse(argument, text, argument.min);
  }
  argument.value = value;
}

// Not getopt: it takes a negative number for an option and could not say which argument is out of range.
void Arguments::Parse(int argc, char **argv) {
  size_t n_numbers = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string text = argv[i];
    if (text.compare(0, 2, "--") != 0 && LacksWord()) {
      ParseWord(argv[i]);
    } else if (text.compare(0, 2, "--") != 0) {
      ParseNumber(n_numbers++, argv[i]);
    } else if (text == "--help") {
      PrintHelp();
      exit(0);
    } else if (text == "--check") {
      check_ = true;
    } else if (text == "--allocator" && i + 1 < argc) {
      allocator_ = argv[++i];
    } else if (text.compare(0, 12, "--allocator=") == 0) {
      allocator_ = text.substr(12);
    } else {
      fprintf(stderr, "%s: '%s' is unknown or lacks its value; see --help\n", program_invocation_short_name, argv[i]);
      exit(kExitBadArgument);
    }
  }
  if (LacksWord()) ParseWord("");
}

}  // namespace hak_bench
