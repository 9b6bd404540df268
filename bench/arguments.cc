#include "bench/arguments.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/allocator.h"

namespace hak_bench {
namespace {

std::string Words(const Argument &argument) {
  std::string words;
  for (const char *choice : argument.choices) words += (words.empty() ? "" : ", ") + std::string(choice);
  return words;
}

}  // namespace

void Arguments::Refuse(const Argument &argument, const char *text, double min) const {
  fprintf(stderr, "%s: %s is '%s', must be a%s number from %.15g to %.15g\n", program_invocation_short_name,
          argument.name, text, argument.is_fractional ? "" : " whole", min, argument.max);
  exit(kExitBadArgument);
}

void Arguments::RequireAtLeast(size_t index, double min) const {
  char text[32];
  snprintf(text, sizeof(text), "%.15g", positional_[index].value);
  if (positional_[index].value < min) Refuse(positional_[index], text, min);
}

void Arguments::PrintHelp() const {
  printf("%s\n\nusage: %s [options]", purpose_, program_invocation_short_name);
  for (const Argument &argument : positional_) printf(" [%s]", argument.name);
  printf("\n\n");
  for (const Argument &argument : positional_) {
    if (argument.choices.empty()) {
      printf("  %-14s %s: %.15g to %.15g, default %.15g\n", argument.name, argument.meaning, argument.min, argument.max,
             argument.value);
    } else {
      printf("  %-14s %s: one of %s; default %s\n", argument.name, argument.meaning, Words(argument).c_str(),
             argument.choices[argument.Count()]);
    }
  }
  printf("\n  --allocator A  %s\n", kAllocatorHelp);
  if (!has_check_) return;
  printf("  --check        verify both ends of each block before it is freed (slower; not for comparing)\n");
}

void Arguments::ParseChoice(Argument *argument, const char *text) const {
  for (size_t i = 0; i < argument->choices.size(); ++i) {
    argument->value = static_cast<double>(i);
    if (strcmp(argument->choices[i], text) == 0) return;
  }
  fprintf(stderr, "%s: %s is '%s', must be one of %s\n", program_invocation_short_name, argument->name, text,
          Words(*argument).c_str());
  exit(kExitBadArgument);
}

void Arguments::ParseNumber(Argument *argument, const char *text) const {
  char *end = nullptr;
  const double value = strtod(text, &end);
  const bool is_number = end != text && *end == '\0';
  const bool is_in_range = value >= argument->min && value <= argument->max;  // false for NaN
  if (!is_number || !is_in_range || (!argument->is_fractional && value != floor(value))) {
    Refuse(*argument, text, argument->min);
  }
  argument->value = value;
}

void Arguments::ParsePositional(size_t index, const char *text) {
  if (index >= positional_.size()) {
    fprintf(stderr, "%s: '%s' is one argument too many; at most %zu are taken, see --help\n",
            program_invocation_short_name, text, positional_.size());
    exit(kExitBadArgument);
  }
  Argument *argument = &positional_[index];
  if (argument->choices.empty()) {
    ParseNumber(argument, text);
  } else {
    ParseChoice(argument, text);
  }
}

// Not getopt: it takes a negative number for an option and could not say which argument is out of range.
void Arguments::Parse(int argc, char **argv) {
  size_t n_positional = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string text = argv[i];
    if (text.compare(0, 2, "--") != 0) {
      ParsePositional(n_positional++, argv[i]);
    } else if (text == "--help") {
      PrintHelp();
      exit(0);
    } else if (text == "--check" && has_check_) {
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
}

}  // namespace hak_bench
