#include "testing/oracle/seeds.h"

int main(int argc, char **argv) { return hak_oracle::RunTests(argc, argv); }
