// Preloaded before an allocator into a real program that compare measures: tells, for every process, whose malloc it
// got and its peak RSS. Lines are appended to the file that HAK_BENCH_WITNESS names:
//
//   start PID FILE       the library that `malloc` is taken from
//   end PID BYTES KIB    what glibc's own allocator has from the system, which is 0 on another one; the largest RSS
//
// A process that ends by _exit or a signal leaves no second line.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Without stdio's files, which would allocate in the program that is measured.
static void append(const char *line) {
  const char *path = getenv("HAK_BENCH_WITNESS");
  const int file = path != NULL ? open(path, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
  if (file < 0) return;
  if (write(file, line, strlen(line)) < 0) abort();
  close(file);
}

// Where the program's calls of malloc lead. A program that is not position-independent has a jump of its own under that
// name, which leads to the next definition: for this library, preloaded before the allocator, the allocator's.
__attribute__((constructor)) static void tell_start(void) {
  char line[4200];
  Dl_info info;
  const ElfW(Sym) *symbol = NULL;
  void *address = dlsym(RTLD_DEFAULT, "malloc");
  const bool is_found = dladdr1(address, &info, (void **)&symbol, RTLD_DL_SYMENT) != 0;
  if (is_found && symbol != NULL && symbol->st_shndx == SHN_UNDEF) dladdr(dlsym(RTLD_NEXT, "malloc"), &info);
  snprintf(line, sizeof(line), "start %d %s\n", (int)getpid(), is_found ? info.dli_fname : "unknown");
  append(line);
}

// Bytes of glibc itself: other allocators define mallinfo2 as well. 0 where glibc is older than 2.33, which has none.
static size_t glibc_bytes(void) {
  void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
  if (libc == NULL) return 0;
  struct mallinfo2 (*function)(void) = (struct mallinfo2(*)(void))dlsym(libc, "mallinfo2");
  if (function == NULL) return 0;
  const struct mallinfo2 info = function();
  return info.arena + info.hblkhd;
}

static long peak_rss_kib(void) {
  char status[4096];
  const int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  const ssize_t length = file < 0 ? 0 : read(file, status, sizeof(status) - 1);
  if (file >= 0) close(file);
  status[length > 0 ? length : 0] = '\0';
  const char *peak = strstr(status, "VmHWM:");
  return peak != NULL ? strtol(peak + strlen("VmHWM:"), NULL, 10) : 0;
}

__attribute__((destructor)) static void tell_end(void) {
  char line[100];
  const long peak_kib = peak_rss_kib();
  snprintf(line, sizeof(line), "end %d %zu %ld\n", (int)getpid(), glibc_bytes(), peak_kib);
  append(line);
}
