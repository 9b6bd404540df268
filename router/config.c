#include "router/config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "base/compiler.h"
#include "heap/heap.h"
#include "platform/memory.h"
#include "platform/report.h"
#include "superslab/layout.h"
#include "superslab/pool.h"

enum type {
  NUMBER,  // decimal, from `min` to `max`
  WORD,    // one of words[0 .. max]; the value is its place
  LIMIT,   // bytes, and soft or hard
};

struct option {
  const char *name;
  enum type type;
  size_t offset;  // of the field in struct hak_config
  unsigned min, max, standard;
  const char *words[3];
  bool at_run_time;
};

#define FIELD(name) offsetof(struct hak_config, name)

static const struct option options[] = {
    {"HAKMEM_TINY_USE_SUPERSLAB", NUMBER, FIELD(tiny_use_superslab), .max = 1, .standard = 1},
    {"HAKMEM_ACE_ENABLED", NUMBER, FIELD(ace_enabled), .max = 1, .standard = 1},
    {"HAKMEM_TINY_MEM_DIET", NUMBER, FIELD(tiny_mem_diet), .max = 1},
    {"HAKMEM_TINY_REFILL_COUNT_HOT", NUMBER, FIELD(tiny_refill_count_hot), .min = HAK_REFILL_COUNT_MIN,
     .max = HAK_REFILL_COUNT_MAX, .standard = HAK_REFILL_COUNT_DEFAULT},
    {"HAKMEM_PURGE_DELAY_MS", NUMBER, FIELD(purge_delay_ms), .max = HAK_CONFIG_PURGE_DELAY_MAX_MS,
     .standard = HAK_POOL_PURGE_DELAY_MS, .at_run_time = true},
    {"HAKMEM_BACKGROUND_PURGE", NUMBER, FIELD(background_purge), .max = 1, .at_run_time = true},
    {"HAKMEM_THP", WORD, FIELD(thp), .max = HAK_THP_ALWAYS, .words = {"auto", "never", "always"}, .at_run_time = true},
    {"HAKMEM_LIMIT", LIMIT, FIELD(limit), .at_run_time = true},
    {"HAKMEM_ALLOW_MALLOC_FALLBACK", NUMBER, FIELD(allow_malloc_fallback), .max = 1},
    {"HAKMEM_FOREIGN_FREE", WORD, FIELD(foreign_free_libc), .max = 1, .words = {"abort", "libc"}, .at_run_time = true},
#if HAK_CONFIG_HARDENED
    {"HAKMEM_WIPE", NUMBER, FIELD(wipe), .max = 1},
#endif
    {"HAKMEM_VERBOSE", NUMBER, FIELD(verbose), .max = 1, .standard = HAK_CONFIG_CHECKED, .at_run_time = true},
};

static const struct option *find(const char *name) {
  for (size_t i = 0; i < sizeof options / sizeof options[0]; ++i) {
    if (strcmp(options[i].name, name) == 0) return &options[i];
  }
  return NULL;
}

// Values

struct value {
  size_t number;
  unsigned soft;  // LIMIT
};

// Reads decimal digits, of which there is one at least, and moves *text behind them. False also for what exceeds `max`.
static bool parse_digits(const char **text, size_t max, size_t *number) {
  const char *c = *text;
  *number = 0;
  // Anything past the largest accepted value is as wrong as a letter, so the sum cannot wrap.
  while (*c >= '0' && *c <= '9' && *number <= max) *number = *number * 10 + (size_t)(*c++ - '0');
  bool found = c != *text && *number <= max;
  *text = c;
  return found;
}

#define LIMIT_MAX ((size_t)1 << HAK_ADDRESS_BITS)

// How many bytes the letter after a number stands for, as a logarithm; -1 if it is none.
static int unit_shift(char letter) {
  switch (letter | 0x20) {
    case 'k':
      return 10;
    case 'm':
      return 20;
    case 'g':
      return 30;
    case 't':
      return 40;
    default:
      return -1;
  }
}

// "0", or bytes ("1048576", "512m", "2g") or a part of the memory that there is ("80%"), and then ":hard", ":soft" or
// nothing, which means the same as ":hard".
static bool parse_limit(const char *text, struct value *value) {
  if (!parse_digits(&text, LIMIT_MAX, &value->number)) return false;
  if (*text == '%') {
    if (value->number == 0 || value->number > 100) return false;
    size_t part = hak_memory_bytes("") / 100 * value->number;
    value->number = hak_min(hak_max(part, HAK_CONFIG_LIMIT_MIN_BYTES), LIMIT_MAX);
    ++text;
  } else if (unit_shift(*text) >= 0) {
    if (value->number > LIMIT_MAX >> unit_shift(*text)) return false;
    value->number <<= unit_shift(*text++);
  }
  value->soft = strcmp(text, ":soft") == 0;
  if (*text != '\0' && !value->soft && strcmp(text, ":hard") != 0) return false;
  return value->number == 0 || value->number >= HAK_CONFIG_LIMIT_MIN_BYTES;
}

static bool parse_word(const struct option *option, const char *text, struct value *value) {
  for (value->number = 0; value->number <= option->max; ++value->number) {
    if (strcmp(option->words[value->number], text) == 0) return true;
  }
  return false;
}

static bool parse(const struct option *option, const char *text, struct value *value) {
  value->soft = 0;
  if (option->type == LIMIT) return parse_limit(text, value);
  if (option->type == WORD) return parse_word(option, text, value);
  return parse_digits(&text, option->max, &value->number) && *text == '\0' && value->number >= option->min;
}

// The value comes last, since a long line is cut.
static void report(const struct option *option, const char *text) {
  switch (option->type) {
    case NUMBER:
      hak_report("%s must be a number from %u to %u; using the default %u instead of %s", option->name, option->min,
                 option->max, option->standard, text);
      break;
    case WORD:
      hak_report("%s must be %s%s%s or %s; using the default %s instead of %s", option->name, option->words[0],
                 option->max == 2 ? ", " : "", option->max == 2 ? option->words[1] : "", option->words[option->max],
                 option->words[option->standard], text);
      break;
    case LIMIT:
      hak_report(
          "%s must be 0 (no limit), bytes from 1m up (1048576, 512m, 2g) or 1%% to 100%% of memory, followed by "
          ":hard, :soft or nothing; using the default 0 instead of %s",
          option->name, text);
  }
}

// Fields

static unsigned *field(const struct hak_config *config, const struct option *option) {
  return (unsigned *)((uintptr_t)config + option->offset);
}

static void store(struct hak_config *config, const struct option *option, const struct value *value) {
  if (option->type == LIMIT) {
    hak_store_relaxed(&config->limit.bytes, value->number);
    hak_store_relaxed(&config->limit.soft, value->soft);
  } else {
    hak_store_relaxed(field(config, option), (unsigned)value->number);
  }
}

static struct value load(const struct hak_config *config, const struct option *option) {
  if (option->type == LIMIT) {
    return (struct value){hak_load_relaxed(&config->limit.bytes), hak_load_relaxed(&config->limit.soft)};
  }
  return (struct value){.number = hak_load_relaxed(field(config, option))};
}

struct hak_config hak_config_read(const char *(*get)(const char *name)) {
  struct hak_config config = {.wipe = 0};
  for (size_t i = 0; i < sizeof options / sizeof options[0]; ++i) {
    const struct option *option = &options[i];
    const char *text = get(option->name);
    struct value value = {.number = option->standard};
    if (text != NULL && !parse(option, text, &value)) {
      report(option, text);
      value = (struct value){.number = option->standard};
    }
    store(&config, option, &value);
  }
  const char *wipe = get("HAKMEM_WIPE");
  if (!HAK_CONFIG_HARDENED && wipe != NULL && strcmp(wipe, "0") != 0) {
    hak_report("HAKMEM_WIPE has an effect in libhakmem-hardened.so only; nothing is wiped");
  }
  return config;
}

int hak_config_parse(struct hak_config *config, const char *name, const char *value) {
  const struct option *option = find(name);
  struct value parsed;
  if (option == NULL || !parse(option, value, &parsed)) return EINVAL;
  if (!option->at_run_time) return EPERM;
  store(config, option, &parsed);
  return 0;
}

void hak_config_copy(struct hak_config *config, const struct hak_config *from, const char *name) {
  const struct option *option = find(name);
  if (option == NULL) return;
  struct value value = load(from, option);
  store(config, option, &value);
}

void hak_config_take_late(struct hak_config *config, const struct hak_config *late) {
  for (size_t i = 0; i < sizeof options / sizeof options[0]; ++i) {
    const struct option *option = &options[i];
    struct value value = load(late, option);
    if (option->at_run_time) {
      store(config, option, &value);
    } else if (value.number != load(config, option).number) {
      hak_report("%s has no effect: a library has called malloc before the program had its environment", option->name);
    }
  }
}

long long hak_config_get(const struct hak_config *config, const char *name) {
  const struct option *option = find(name);
  return option == NULL ? -1 : (long long)load(config, option).number;
}
