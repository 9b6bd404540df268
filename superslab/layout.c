#include "superslab/layout.h"

// The eight classes of a doubling, counted from 0, and `n` kinds from `first` on whose blocks are as long.
#define KINDS(first, n, doubling) [(first)...(first) + (n)-1] = (HAK_SLAB_SHIFT + (doubling))
#define CLASSES(doubling) KINDS(HAK_KIND_MID_FIRST + 8 * (doubling), 8, doubling)
#define PLAIN(i, n, doubling) KINDS(HAK_KIND_MID_LAST_CLASS + (i), n, doubling)

const uint8_t hak_kind_32_blocks_shifts[HAK_KINDS] = {
    CLASSES(0),     CLASSES(1),     CLASSES(2),     CLASSES(3),      CLASSES(4),
    PLAIN(1, 1, 1), PLAIN(2, 4, 2), PLAIN(6, 8, 3), PLAIN(14, 8, 4),
};
