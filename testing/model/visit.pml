// The visit protocol of heap/visit.c: one owner of a heap, two visitors, store buffers between them. See README.md.
//
// Memory: `seen` is what everybody sees. A store goes into the storing process's buffer and becomes visible later, in
// any order but for two rules: stores to one variable stay in order, and a release store waits until it is the oldest.
// Loads happen in program order and find the process's own stores. Taking or giving back the lock empties the buffer.

// How often the owner works on its heap before its thread ends.
// Scenario: -DENTRIES=2

#define INSIDE 0
#define OWNER_ID 1
#define WORK 2  // what the owner and visitors do with the heap: each adds 1
#define VARIABLES 3

#define ID 1
#define NO_OWNER 2

#define OWNER 0
#define VISITORS 2
#define PROCESSES 3

#define BUFFERED 4  // stores that one process's buffer holds at most

byte seen[VARIABLES];

typedef Store { byte variable; byte value; bool release };
typedef Buffer { byte n; Store entry[BUFFERED] };
Buffer buffer[PROCESSES];

bool visit_lock;
byte n_works;         // ghost: how often WORK was counted up
bool owner_at_work;   // ghost
bool visitor_at_work; // ghost
bool ended;           // ghost: the owner's thread

// Makes store `k` of process `p` visible.
inline flush_store(p, k) {
  seen[buffer[p].entry[k].variable] = buffer[p].entry[k].value;
  i = k;
  do
  :: i + 1 < buffer[p].n ->
     buffer[p].entry[i].variable = buffer[p].entry[i + 1].variable;
     buffer[p].entry[i].value = buffer[p].entry[i + 1].value;
     buffer[p].entry[i].release = buffer[p].entry[i + 1].release;
     i++
  :: else -> break
  od;
  buffer[p].n--;
  buffer[p].entry[buffer[p].n].variable = 0;
  buffer[p].entry[buffer[p].n].value = 0;
  buffer[p].entry[buffer[p].n].release = false;
  i = 0
}

inline flush_all(p) {
  do
  :: buffer[p].n > 0 -> flush_store(p, 0)
  :: else -> break
  od
}

inline store(p, what, v, is_release) {
  d_step {
    buffer[p].n < BUFFERED ->
    buffer[p].entry[buffer[p].n].variable = what;
    buffer[p].entry[buffer[p].n].value = v;
    buffer[p].entry[buffer[p].n].release = is_release;
    buffer[p].n++
  }
}

inline load(p, what, into) {
  d_step {
    into = seen[what];
    i = 0;
    do
    :: i < buffer[p].n ->
       if
       :: buffer[p].entry[i].variable == what -> into = buffer[p].entry[i].value
       :: else
       fi;
       i++
    :: else -> break
    od;
    i = 0
  }
}

// Stores of process `p` become visible whenever they like.
proctype Memory(byte p) {
  byte i;
  end:
  do
  :: atomic { buffer[p].n > 0 -> flush_store(p, 0) }
  :: atomic {
       buffer[p].n > 1 && !buffer[p].entry[1].release && buffer[p].entry[1].variable != buffer[p].entry[0].variable ->
       flush_store(p, 1)
     }
  od
}

inline lock(p) { atomic { !visit_lock -> visit_lock = true; flush_all(p) } }
inline unlock(p) { atomic { flush_all(p); visit_lock = false } }

// Every process passes a full barrier.
inline barrier() {
#ifndef BUG_NO_BARRIER
  atomic { flush_all(0); flush_all(1); flush_all(2) }
#else
  skip
#endif
}

inline work(p) {
  assert(!(owner_at_work && visitor_at_work));
  load(p, WORK, value);
  assert(value == n_works);
  atomic { store(p, WORK, value + 1, false); n_works++; value = 0 }
}

// hak_heap_enter
inline enter() {
  do
  ::
#ifdef BUG_NO_COMPILER_BARRIER
     load(OWNER, OWNER_ID, value);
     store(OWNER, INSIDE, 1, false);
#else
     store(OWNER, INSIDE, 1, false);
     load(OWNER, OWNER_ID, value);
#endif
     if
     :: value != NO_OWNER -> break
#ifdef BUG_OWNER_DOES_NOT_WAIT
     :: value == NO_OWNER -> break
#endif
     :: else
     fi;
     leave();
     // wait_for_visitor
     lock(OWNER);
     store(OWNER, OWNER_ID, ID, false);
     unlock(OWNER)
  od;
  value = 0
}

// hak_heap_leave
inline leave() {
#ifdef BUG_LEAVE_WITHOUT_RELEASE
  store(OWNER, INSIDE, 0, false)
#else
  store(OWNER, INSIDE, 0, true)
#endif
}

proctype Owner() {
  byte i, value, n;
  do
  :: n < ENTRIES ->
     enter();
     owner_at_work = true;
     work(OWNER);
     owner_at_work = false;
     leave();
     n++
  :: else -> break
  od;
  // hak_heap_detach
#ifndef BUG_DETACH_WITHOUT_LOCK
  lock(OWNER);
#endif
  owner_at_work = true;
  work(OWNER);
  owner_at_work = false;
  atomic { ended = true; store(OWNER, OWNER_ID, NO_OWNER, false) }
#ifndef BUG_DETACH_WITHOUT_LOCK
  unlock(OWNER)
#endif
}

// hak_heap_set_tick and _trim, which leave out an owner that is inside, or hak_heap_set_before_fork, which waits for it
// and is followed by the child's look at all heaps.
proctype Visitor(byte p) {
  byte i, value;
  bool can_visit;
#ifndef BUG_VISIT_WITHOUT_LOCK
  lock(p);
#endif
  if
  :: ended  // no longer in the list of attached heaps
  :: else ->
     // keep_out_locked
#ifdef BUG_BARRIER_BEFORE_OWNER_ID
     barrier();
     store(p, OWNER_ID, NO_OWNER, false);
     can_visit = true;
#else
     store(p, OWNER_ID, NO_OWNER, false);
     if
     :: barrier(); can_visit = true
#ifdef BUG_VISIT_THOUGH_BARRIER_FAILED
     :: can_visit = true
#else
     :: can_visit = false
#endif
     fi;
#endif
     if
     :: can_visit ->
        do
        :: load(p, INSIDE, value);  // is_outside
           if
#ifdef BUG_VISIT_WHO_IS_INSIDE
           :: true ->
#else
           :: value == 0 ->
#endif
              value = 0;
              visitor_at_work = true;
              work(p);
              visitor_at_work = false;
              break
           :: value == 1 -> value = 0; break  // left out
           :: value == 1 -> value = 0         // fork: sched_yield
           fi
        od
     :: else
     fi;
     // readmit
#ifdef BUG_READMIT_WITHOUT_RELEASE
     store(p, OWNER_ID, ID, false)
#else
     store(p, OWNER_ID, ID, true)
#endif
  fi;
#ifndef BUG_VISIT_WITHOUT_LOCK
  unlock(p)
#endif
}

init {
  byte p;
  atomic {
    seen[OWNER_ID] = ID;
    for (p : 0 .. PROCESSES - 1) { run Memory(p) }
    run Owner();
    for (p : 1 .. VISITORS) { run Visitor(p) }
  }
}
