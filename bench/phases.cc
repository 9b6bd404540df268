// The load of a compiler: each phase builds a tree of small nodes, lists of children that grow, and names, annotates
// it, and drops it as a whole. Some names outlive their phase, as interned symbols do, and lie between what is freed.
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/measure.h"
#include "bench/slot.h"

namespace hak_bench {
namespace {

enum { kPhases, kNodes, kThreads, kSeed };

constexpr size_t kShortestName = 4;

struct Node {
  uint32_t kind;
  uint32_t n_children;
  char *name;
  Node **children;
  void *annotation;
};

// The names that stay for some phases: a ring, whose oldest is dropped when a new one comes.
class Symbols {
 public:
  ~Symbols() {
    for (char *name : names_) Free(name);
  }
  void Keep(char *name) {
    Free(names_[next_ % kNames]);
    names_[next_++ % kNames] = name;
  }

 private:
  static constexpr size_t kNames = 20000;
  std::vector<char *> names_ = std::vector<char *>(kNames, nullptr);
  size_t next_ = 0;
};

class Compiler {
 public:
  explicit Compiler(uint64_t seed) : random_(seed) {}

  void Run(uint64_t n_nodes) {
    Node *root = Build(n_nodes);
    Annotate(root);
    Drop(root);
  }

 private:
  // A tree of `n_nodes`: its root, and up to four trees that share the rest.
  Node *Build(uint64_t n_nodes) {
    auto *node = reinterpret_cast<Node *>(AllocateUsed(sizeof(Node)));
    const uint64_t bits = random_.Next();
    *node = Node{static_cast<uint32_t>(bits), 0, nullptr, nullptr, nullptr};
    if (bits >> 63 == 1) node->name = MakeName(kShortestName + Below(static_cast<uint32_t>(bits), 40));
    for (uint64_t left = n_nodes - 1; left > 0;) {
      const bool is_last = node->n_children == 3;
      const uint64_t share = is_last ? left : 1 + Below(random_.Next() >> 32, static_cast<uint32_t>(left));
      AddChild(node, Build(share));
      left -= share;
    }
    return node;
  }

  static char *MakeName(size_t length) {
    auto *name = reinterpret_cast<char *>(AllocateUsed(length + 1));
    memset(name, 'n', length);
    name[length] = '\0';
    return name;
  }

  static void AddChild(Node *node, Node *child) {
    const size_t size = (node->n_children + 1) * sizeof(Node *);
    node->children = static_cast<Node **>(realloc(node->children, size));
    if (node->children == nullptr) OutOfMemory(size);
    node->children[node->n_children++] = child;
  }

  void Annotate(Node *node) {
    for (uint32_t i = 0; i < node->n_children; ++i) Annotate(node->children[i]);
    // A pass replaces what the last one has found: blocks of a few sizes, freed and allocated in the tree's order.
    for (int pass = 0; pass < 3; ++pass) {
      Free(node->annotation);
      node->annotation = AllocateUsed(16 + 16 * ((node->kind >> (4 * pass)) % 16));
    }
  }

  void Drop(Node *node) {
    for (uint32_t i = 0; i < node->n_children; ++i) Drop(node->children[i]);
    if (node->name != nullptr && node->kind % 16 == 0) {
      symbols_.Keep(node->name);
    } else {
      Free(node->name);
    }
    free(node->children);
    Free(node->annotation);
    Free(node);
  }

  Random random_;
  Symbols symbols_;
};

int Main(int argc, char **argv) {
  Arguments arguments("Builds trees, annotates and drops them, as the phases of a compiler do.",
                      {{"phases", "trees of each thread, one after the other", 20, 1, 1e12},
                       {"nodes", "nodes of each tree", 200e3, 1, 1e9},
                       {"threads", "threads at a time", 1, 1, 4096},
                       {"seed", "seed of the random numbers", 12345, 0, 4294967295}});
  arguments.Parse(argc, argv);
  const std::string allocator = UseAllocator(arguments.allocator(), argv, {kShortestName + 1, sizeof(Node), 256});

  const uint64_t n_phases = arguments[kPhases].Count();
  const uint64_t n_nodes = arguments[kNodes].Count();
  const uint64_t n_threads = arguments[kThreads].Count();
  Measurement measurement;
  RunInThreads(n_threads, [&](uint64_t thread) {
    Compiler compiler(arguments[kSeed].Count() + thread * 0x100000000u);
    for (uint64_t i = 0; i < n_phases; ++i) compiler.Run(n_nodes);
  });
  measurement.Stop();
  measurement.Print(allocator, n_threads * n_phases * n_nodes);
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }
