#include "platform/lock.h"

HAK_HIDDEN __thread bool hak_lock_all_held HAK_TLS_MODEL;
