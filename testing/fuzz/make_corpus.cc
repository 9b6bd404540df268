// Writes the seed corpus: into the i-th file named as argument, the random program of seed i behind a header that lets
// nothing, or one kind of call, or all memory beyond a few MiB fail.
#include <cstdint>
#include <fstream>
#include <vector>

#include "testing/oracle/program.h"

int main(int argc, char **argv) {
  for (int i = 1; i < argc; ++i) {
    const unsigned char n = static_cast<unsigned char>(i);
    const unsigned char all = n % 2 == 0 ? 0x80 : 0;
    const unsigned char limit_mib = n % 5 == 0 ? 4 * n : 0;
    const unsigned char header[] = {static_cast<unsigned char>(n % 8), static_cast<unsigned char>(n / 8 % 4 | all), n,
                                    limit_mib};
    const std::vector<uint64_t> words = hak_oracle::RandomWords(n, 20 * n);
    std::ofstream file(argv[i], std::ios::binary);
    file.write(reinterpret_cast<const char *>(header), sizeof header);
    file.write(reinterpret_cast<const char *>(words.data()),
               static_cast<std::streamsize>(words.size() * sizeof(uint64_t)));
    if (!file.flush()) return 1;
  }
  return 0;
}
