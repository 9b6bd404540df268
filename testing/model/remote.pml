// Remote frees, mail, change of owner, thread end and adoption: the protocol of heap/remote.c, heap/orphan.c and what
// heap/heap.c does for them. README.md says which code each part stands for.
//
// Two threads that own heaps, one after the other or at once, and one that has none allocate and free as they like, a
// few operations each. A set of blocks is a bit mask: how a list is linked is not modelled, but that its links are
// written before it is published is. `ghost` variables are no part of the protocol, they only tell what must hold.

#define SLABS 2
#define ALL 3  // the blocks of a slab: two
#define HEAPS 3
#define PUBLIC 0
#define NOTHING 7

// Scenarios: how many operations the owner of the slabs, a thread that comes later, and one without a heap perform.
// Scenario: -DOWNER=0 -DLATER=0 -DFREES=3
// Scenario: -DOWNER=1 -DLATER=1 -DFREES=1
// Scenario: -DOWNER=3 -DLATER=0 -DFREES=1

mtype = { POOL, CURRENT, ASLEEP, AWAKE };  // AWAKE: that or SPARSE

typedef Slab {
  // struct hak_slab_remote
  byte remote;     // `word`: the blocks
  bool in_mail;    // `word`: HAK_REMOTE_IN_MAIL
  byte owner;
  byte mail_next;
  // struct hak_slab
  mtype state;
  byte free;
  // ghost
  byte former;     // the owner before, which who reads `owner` without order may still see
  byte life;       // how often it was released
  byte live;       // blocks in the program's hands
  byte linked;     // blocks whose link is written
  bool mail_linked // mail_next is written
};

typedef Heap {
  byte mail;     // slab, or NOTHING
  bool orphan;   // no thread owns it
  bool husk;     // and it was dissolved
  byte current;  // slab, or NOTHING
};

Slab slab[SLABS];
Heap heap[HEAPS];
bool set_lock;
byte n_ended;
bool at_end;            // ghost: all that can be returned must be
bool draining[HEAPS];  // ghost

inline lock_set() { atomic { !set_lock -> set_lock = true } }
inline unlock_set() { set_lock = false }

// What a process keeps in registers. `h` is its heap, or NOTHING.
#define LOCALS                                                                   \
  byte h = NOTHING, m = NOTHING, x, s, life, got, to, p_slab, p_blocks, c, k, n, out_slab, out_blocks; \
  bool is_mine

// remote.c: publication and mail

// mail_push: links the slab, which is in mail, into its owner's mail, `to`.
inline mail_push(z) {
  atomic {
    assert(slab[z].life == life);  // no touch after release
    if
    :: to = slab[z].owner
    :: !at_end -> to = slab[z].former
    fi
  }
#ifdef BUG_MAIL_NEXT_AFTER_PUSH  // P5 without release
  atomic { x = heap[to].mail; slab[z].mail_linked = false; heap[to].mail = z }
  atomic { slab[z].mail_next = x; slab[z].mail_linked = true; x = 0 }
#else
  atomic {
    assert(slab[z].life == life);
    slab[z].mail_next = heap[to].mail;
    slab[z].mail_linked = true;
    heap[to].mail = z
  }
#endif
}

// hak_remote_publish
inline publish(z, blocks) {
#ifndef BUG_LINK_AFTER_PUBLISH  // P2 without release
  slab[z].linked = slab[z].linked | blocks;
#endif
  atomic {
    assert((slab[z].remote & blocks) == 0);
    slab[z].remote = slab[z].remote | blocks;
    life = slab[z].life;
    got = slab[z].in_mail;
#ifdef BUG_MAILS_WHAT_IS_IN_MAIL
    got = false;
#endif
    slab[z].in_mail = true
  }
#ifdef BUG_LINK_AFTER_PUBLISH
  slab[z].linked = slab[z].linked | blocks;
#endif
  if
  :: got
  :: else ->
     mail_push(z)
  fi;
  atomic { got = 0; to = 0; life = 0; blocks = 0; z = 0 }
}

// hak_mail_drain
inline drain(y) {
  atomic {
    assert(!draining[y]);
    draining[y] = true;
    m = heap[y].mail;
    heap[y].mail = NOTHING
  }
  do
  :: atomic {
       m != NOTHING ->
       s = m;
       assert(slab[s].mail_linked && slab[s].in_mail);
       m = slab[s].mail_next;
       life = slab[s].life;
       if
#ifndef BUG_COLLECTS_WHAT_IT_DOES_NOT_OWN
       :: slab[s].owner != y -> is_mine = false
#endif
       :: else -> is_mine = true; collect(y)
       fi
     }
#ifdef BUG_MAIL_NEXT_AFTER_COLLECT  // C2 without release
     m = slab[s].mail_next;
#endif
     if
     :: is_mine && slab[s].state == AWAKE && slab[s].free == ALL -> emptied(s)
#ifndef BUG_NO_FORWARDING
     :: !is_mine -> mail_push(s)
#endif
     :: else
     fi
  :: atomic { m == NOTHING -> draining[y] = false; s = 0; life = 0; to = 0; is_mine = false; break }
  od
}

// collect, with append_free, hak_slab_credit and wake
inline collect(y) {
  got = slab[s].remote;
  assert((slab[s].linked & got) == got && (slab[s].free & got) == 0);
  assert(slab[s].state != POOL && slab[s].owner == y);  // whose thread alone touches what is private
  slab[s].remote = 0;
  slab[s].in_mail = false;
  slab[s].linked = slab[s].linked & ~got;
  slab[s].free = slab[s].free | got;
  if
  :: slab[s].state == ASLEEP && got != 0 ->
     slab[s].state = AWAKE;
     if
     :: heap[y].orphan -> change_owner(s, PUBLIC)
     :: else
     fi
  :: else
  fi;
  got = 0
}

// heap.c

// hak_slab_emptied, release_unused_of: a slab may be kept.
inline emptied(z) {
  if
  :: true ->
     if
#ifdef BUG_RELEASES_WHAT_IS_IN_MAIL
     :: true -> release(z)
#else
     :: slab[z].remote == 0 && !slab[z].in_mail -> release(z)
     :: else
#endif
     fi
  :: !at_end -> skip
  fi
}

// release_slab, hak_pool_release
inline release(z) {
  atomic {
    assert(slab[z].live == 0 && slab[z].free == ALL);
    slab[z].state = POOL;
    slab[z].free = 0;
    slab[z].life++
  }
}

// fresh_slab, hak_pool_acquire
inline fresh_slab() {
  atomic {
    c = 0;
    do
    :: c < SLABS && slab[c].state != POOL -> c++
    :: else -> break
    od;
    if
    :: c < SLABS ->
       slab[c].remote = 0;
       slab[c].in_mail = false;
       slab[c].linked = 0;
       slab[c].owner = h;
       slab[c].former = h;
       slab[c].mail_next = NOTHING;
       slab[c].free = ALL;
       slab[c].state = CURRENT
    :: else -> c = NOTHING
    fi
  }
}

// hak_slab_change_owner
inline change_owner(z, y) {
  slab[z].former = slab[z].owner;
  slab[z].owner = y
}

// An awake slab that `y` owns: `c`, or NOTHING.
inline find_awake(y) {
  c = 0;
  do
  :: c < SLABS && !(slab[c].state == AWAKE && slab[c].owner == y) -> c++
  :: else -> break
  od;
  if
  :: c == SLABS -> c = NOTHING
  :: else
  fi
}

// take_remote
inline take_remote(z) {
  atomic {
    got = slab[z].remote;
    assert((slab[z].linked & got) == got);
    slab[z].remote = 0;
    slab[z].linked = slab[z].linked & ~got;
#ifdef BUG_TAKE_REMOTE_CLEARS_IN_MAIL
    slab[z].in_mail = false;
#endif
    assert((slab[z].free & got) == 0);
    slab[z].free = slab[z].free | got;
    got = 0
  }
}

// hak_cache_pop, after refill if there is nothing in the list: cache->list and slab->free are one set here.
inline malloc() {
  c = heap[h].current;
  if
  :: c == NOTHING || slab[c].free == 0 -> refill()
  :: else
  fi;
  atomic {
    c = heap[h].current;
    if
    :: c != NOTHING && slab[c].free != 0 ->
       got = slab[c].free & 1;
       if
       :: got == 0 -> got = 2
       :: else
       fi;
       assert((slab[c].live & got) == 0);  // not handed out twice
       slab[c].free = slab[c].free & ~got;
       slab[c].live = slab[c].live | got;
       got = 0
    :: else  // memory has run out
    fi;
    c = 0
  }
}

inline refill() {
  if
  :: c != NOTHING -> take_remote(c)
  :: else
  fi;
  if
  :: c == NOTHING || slab[c].free == 0 ->
     flush();
     drain(h);
     c = heap[h].current;
     if
     :: c != NOTHING && slab[c].free == 0 -> take_remote(c)
     :: else
     fi;
     if
     :: c == NOTHING || slab[c].free == 0 -> next_slab()
     :: else
     fi
  :: else
  fi
}

inline next_slab() {
  atomic { find_awake(h) }
  if
  :: c == NOTHING -> public_take()
  :: else
  fi;
  if
  :: c == NOTHING -> fresh_slab()
  :: else
  fi;
  // make_current
  atomic {
    if
    :: c != NOTHING ->
       if
       :: heap[h].current != NOTHING -> slab[heap[h].current].state = ASLEEP
       :: else
       fi;
       slab[c].state = CURRENT;
       heap[h].current = c
    :: else
    fi
  }
}

// hak_public_take; what it collects and dissolves on demand, Collector does whenever it likes.
inline public_take() {
  lock_set();
  atomic {
    find_awake(PUBLIC);
    if
    :: c != NOTHING -> change_owner(c, h); slab[c].state = CURRENT
    :: else
    fi
  }
  unlock_set()
}

// hak_outbox_flush
inline flush() {
  if
  :: atomic { out_blocks != 0 -> p_slab = out_slab; p_blocks = out_blocks; out_blocks = 0; out_slab = 0 }
     publish(p_slab, p_blocks)
  :: out_blocks == 0
  fi
}

// hak_heap_free, of a live block, whichever; hak_slab_push and hak_slab_countdown_slow, or hak_outbox_add.
inline free_block() {
  atomic {
    if
    :: (slab[0].live & 1) != 0 -> p_slab = 0; p_blocks = 1
    :: (slab[0].live & 2) != 0 -> p_slab = 0; p_blocks = 2
    :: (slab[1].live & 1) != 0 -> p_slab = 1; p_blocks = 1
    :: (slab[1].live & 2) != 0 -> p_slab = 1; p_blocks = 2
    :: slab[0].live == 0 && slab[1].live == 0
    fi;
    slab[p_slab].live = slab[p_slab].live & ~p_blocks;
    if
    :: p_blocks == 0
    :: p_blocks != 0 && slab[p_slab].owner == h ->
       assert((slab[p_slab].free & p_blocks) == 0);
       slab[p_slab].free = slab[p_slab].free | p_blocks;
       p_blocks = 0;
       if
       :: slab[p_slab].state == ASLEEP -> slab[p_slab].state = AWAKE
       :: else
       fi
    :: p_blocks != 0 && slab[p_slab].owner != h && h != NOTHING ->
       // What the outbox's slot holds is published if it is of another slab.
       got = out_blocks;
       x = out_slab;
       out_blocks = p_blocks;
       out_slab = p_slab;
       p_blocks = 0;
       if
       :: got != 0 && x == p_slab -> out_blocks = out_blocks | got
       :: got != 0 && x != p_slab -> p_blocks = got; p_slab = x
       :: else
       fi;
       got = 0;
       x = 0
    :: else
    fi
  }
  if
  :: p_blocks != 0 -> publish(p_slab, p_blocks)
  :: p_blocks == 0 && slab[p_slab].owner == h && slab[p_slab].state == AWAKE && slab[p_slab].free == ALL ->
     emptied(p_slab)
  :: else
  fi;
  p_slab = 0
}

// orphan.c

// hak_heap_attach: a heap that nobody owns, whichever.
inline attach() {
  lock_set();
  atomic {
    if
    :: heap[1].orphan -> h = 1
    :: heap[2].orphan -> h = 2
    fi;
    heap[h].orphan = false;
    heap[h].husk = false
  }
  unlock_set()
}

// hak_heap_detach
inline detach() {
#ifndef BUG_NO_FLUSH_AT_THREAD_END
  flush();
#else
  out_blocks = 0; out_slab = 0;
#endif
  lock_set();
  heap[h].orphan = true;
  h = NOTHING;
  unlock_set()
}

// collect_mail_locked and dissolve_locked, by whoever does it: hak_threadless_mailed, hak_public_take, the end of
// another thread, a tick, a trim. When it happens is a matter of cost, so here it may at any time.
inline collect_all() {
#ifndef BUG_COLLECTS_WITHOUT_LOCK
  lock_set();
#endif
  k = HEAPS;
  do
  :: atomic {
       k > 0 ->
       k--;
       if
       :: heap[k].orphan && !heap[k].husk -> dissolve(k)
       :: heap[k].orphan && !heap[k].husk && !at_end
       :: else
       fi
     }
     if
     :: heap[k].orphan ->
        drain(k);
        c = 0;
        do
        :: atomic {
             c < SLABS && slab[c].state == AWAKE && slab[c].owner == k && heap[k].husk ->
             if
             :: k != PUBLIC -> change_owner(c, PUBLIC)
             :: else
             fi
           }
           if
           :: slab[c].free == ALL -> emptied(c)
           :: else
           fi;
           c++
        :: atomic { c < SLABS && !(slab[c].state == AWAKE && slab[c].owner == k && heap[k].husk) -> c++ }
        :: atomic { c == SLABS -> c = 0; break }
        od
     :: else
     fi
  :: k == 0 -> break
  od;
#ifndef BUG_COLLECTS_WITHOUT_LOCK
  unlock_set()
#endif
}

// Makes a husk of an orphan; the rest is done by collect_all.
inline dissolve(y) {
  // hak_bin_return_current
  atomic {
    heap[y].husk = true;
    if
    :: heap[y].current != NOTHING ->
       if
       :: slab[heap[y].current].free == 0 -> slab[heap[y].current].state = ASLEEP
       :: else -> slab[heap[y].current].state = AWAKE
       fi;
       heap[y].current = NOTHING
    :: else
    fi
  }
}

// A thread that has a heap.
proctype Thread(byte first; byte operations) {
  LOCALS;
  h = first;
  if
  :: h == NOTHING -> attach()
  :: else
  fi;
  do
  :: n < operations ->
     if
     :: malloc()
     :: free_block()
     fi;
     n++
  :: else -> break
  od;
  detach();
  n_ended++
}

// One that has none: before its first malloc, or after its end.
proctype Bare() {
  LOCALS;
  do
  :: n < FREES -> free_block(); n++
  :: else -> break
  od;
  n_ended++
}

proctype Collector(byte times) {
  LOCALS;
  do
  :: n < times -> n++; collect_all()
  :: else -> break
  od;
  n_ended++
}

init {
  LOCALS;
  // Heap 1 has handed out all blocks of both slabs.
  atomic {
    heap[PUBLIC].mail = NOTHING; heap[PUBLIC].orphan = true; heap[PUBLIC].husk = true; heap[PUBLIC].current = NOTHING;
    heap[1].mail = NOTHING; heap[1].current = 1;
    heap[2].mail = NOTHING; heap[2].orphan = true; heap[2].husk = true; heap[2].current = NOTHING;
    slab[0].state = ASLEEP; slab[0].owner = 1; slab[0].former = 1; slab[0].live = ALL; slab[0].mail_next = NOTHING;
    slab[1].state = CURRENT; slab[1].owner = 1; slab[1].former = 1; slab[1].live = ALL; slab[1].mail_next = NOTHING;
    run Thread(1, OWNER);
    run Thread(NOTHING, LATER);
    run Bare();
    run Collector(1)
  }
  n_ended == 4;
  // All is freed, and all that waits is collected: twice, since mail of a former owner is sent on.
  at_end = true;
  do
  :: slab[0].live != 0 || slab[1].live != 0 -> free_block()
  :: else -> break
  od;
  run Collector(2);
  n_ended == 5;
  assert(slab[0].state == POOL && slab[1].state == POOL)
}
