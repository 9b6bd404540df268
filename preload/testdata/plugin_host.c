// A C program without a C++ runtime. It opens the plugin named by its argument with RTLD_LOCAL and calls it.
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  if (dlsym(RTLD_DEFAULT, "_ZSt17__throw_bad_allocv") != NULL) {
    fprintf(stderr, "the host has a C++ runtime already, so this proves nothing\n");
    return 2;
  }
  void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (plugin == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 2;
  }
  int (*run)(void) = (int (*)(void))dlsym(plugin, "plugin_run");
  return run == NULL ? 2 : run();
}
