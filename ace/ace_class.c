#include "ace/ace_class.h"

// hak_ace_class_of_pages as a constant expression.
#define SHIFT(n) ((n) < 16 ? 0 : (n) < 32 ? 1 : (n) < 64 ? 2 : (n) < 128 ? 3 : (n) < 256 ? 4 : 5)
#define CLASS(n) (8 * SHIFT(n) + ((n) >> SHIFT(n)) - 8)
#define CLASSES_8(n)                                                                                        \
  CLASS(n), CLASS((n) + 1), CLASS((n) + 2), CLASS((n) + 3), CLASS((n) + 4), CLASS((n) + 5), CLASS((n) + 6), \
      CLASS((n) + 7)
#define CLASSES_64(n)                                                                              \
  CLASSES_8(n), CLASSES_8((n) + 8), CLASSES_8((n) + 16), CLASSES_8((n) + 24), CLASSES_8((n) + 32), \
      CLASSES_8((n) + 40), CLASSES_8((n) + 48), CLASSES_8((n) + 56)

// The bits c to c + HAK_ACE_MAX_CLASSES_ABOVE.
#define WINDOW(c) ((((uint64_t)2 << HAK_ACE_MAX_CLASSES_ABOVE) - 1) << (c))
#define WINDOW_8(c)                                                                                                \
  WINDOW(c), WINDOW((c) + 1), WINDOW((c) + 2), WINDOW((c) + 3), WINDOW((c) + 4), WINDOW((c) + 5), WINDOW((c) + 6), \
      WINDOW((c) + 7)

const struct hak_ace_class_tables hak_ace_class_tables = {
    .of_pages = {CLASSES_8(8), CLASSES_8(16), CLASSES_8(24), CLASSES_8(32), CLASSES_8(40), CLASSES_8(48), CLASSES_8(56),
                 CLASSES_64(64), CLASSES_64(128), CLASSES_64(192), CLASSES_64(256), CLASSES_64(320), CLASSES_64(384),
                 CLASSES_64(448)},
    .window = {WINDOW_8(0), WINDOW_8(8), WINDOW_8(16), WINDOW_8(24), WINDOW_8(32), WINDOW_8(40)},
};
