#include "router/config.h"

#include <stddef.h>
#include <string.h>

#include "base/compiler.h"
#include "heap/heap.h"
#include "platform/report.h"

struct variable {
  const char *name;
  unsigned min, max, standard;
};

static unsigned read_number(const char *(*get)(const char *name), struct variable variable) {
  const char *text = get(variable.name);
  if (text == NULL) return variable.standard;
  unsigned value = 0;
  const char *c = text;
  // Anything past the largest accepted value is as wrong as a letter, so the sum cannot wrap.
  while (*c >= '0' && *c <= '9' && value <= variable.max) value = value * 10 + (unsigned)(*c++ - '0');
  if (c == text || *c != '\0' || value < variable.min || value > variable.max) {
    // The value comes last, since a long line is cut.
    hak_report("%s must be a number from %u to %u; using the default %u instead of %s", variable.name, variable.min,
               variable.max, variable.standard, text);
    return variable.standard;
  }
  return value;
}

static bool read_foreign_free(const char *(*get)(const char *name)) {
  const char *text = get("HAKMEM_FOREIGN_FREE");
  if (text == NULL || strcmp(text, "abort") == 0) return false;
  if (strcmp(text, "libc") == 0) return true;
  hak_report("HAKMEM_FOREIGN_FREE must be abort or libc; using the default abort instead of %s", text);
  return false;
}

struct hak_config hak_config_read(const char *(*get)(const char *name)) {
  return (struct hak_config){
      .tiny_use_superslab = read_number(get, (struct variable){"HAKMEM_TINY_USE_SUPERSLAB", 0, 1, 1}),
      .ace_enabled = read_number(get, (struct variable){"HAKMEM_ACE_ENABLED", 0, 1, 1}),
      .tiny_mem_diet = read_number(get, (struct variable){"HAKMEM_TINY_MEM_DIET", 0, 1, 0}),
      .tiny_refill_count_hot = read_number(get, (struct variable){"HAKMEM_TINY_REFILL_COUNT_HOT", HAK_REFILL_COUNT_MIN,
                                                                  HAK_REFILL_COUNT_MAX, HAK_REFILL_COUNT_DEFAULT}),
      .purge_delay_ms = read_number(
          get, (struct variable){"HAKMEM_PURGE_DELAY_MS", 0, HAK_CONFIG_PURGE_DELAY_MAX_MS, HAK_POOL_PURGE_DELAY_MS}),
      .background_purge = read_number(get, (struct variable){"HAKMEM_BACKGROUND_PURGE", 0, 1, 0}),
      .allow_malloc_fallback = read_number(get, (struct variable){"HAKMEM_ALLOW_MALLOC_FALLBACK", 0, 1, 0}),
      .foreign_free_libc = read_foreign_free(get),
      .wipe = HAK_CONFIG_HARDENED ? read_number(get, (struct variable){"HAKMEM_WIPE", 0, 1, 0}) : 0,
      .verbose = read_number(get, (struct variable){"HAKMEM_VERBOSE", 0, 1, HAK_CONFIG_CHECKED}),
  };
}
