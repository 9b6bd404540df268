#include "bench/slot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

namespace hak_bench {

void OutOfMemory(size_t size) {
  fprintf(stderr, "%s: no memory for a block of %zu B\n", program_invocation_short_name, size);
  exit(1);
}

void Corrupted(const Slot &slot) {
  fprintf(stderr, "%s: the block of %zu B at %p was overwritten: its ends are 0x%02x and 0x%02x, not 0x%02x\n",
          program_invocation_short_name, slot.size, static_cast<void *>(slot.block), slot.block[0],
          slot.block[slot.size - 1], slot.Mark());
  exit(1);
}

}  // namespace hak_bench
