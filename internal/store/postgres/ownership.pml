/*
 * Who holds a row: the order of statements, answers and memory of the store on
 * PostgreSQL. tools/model searches all of it (make model).
 *
 * WHAT IS MODELLED. Two nodes, one delivery. The row is absent, waiting, parked,
 * final, or owned by a run. Each node has a run, a lease, the entry of its memory for
 * the delivery (a generation and a run), and the engine's items: one per holding, for
 * the engine may have an older one besides. Each process is named after the code it
 * stands for: publish, claim (ClaimDue, ClaimParked), engine (MayAttempt and the
 * attempt), record, park, retry, keep (lease.go), user (cancel, retry of what is
 * final), compare.
 *
 * A transaction locks the row, looks, sends its COMMIT, and is committed (or not); its
 * answer comes at any later time. An answer that is lost and found out by settle() is
 * the same as a late one, so only two outcomes are left: committed, or not. A statement
 * that was not committed is repeated only then: settle() ends the other side first.
 *
 * What may go wrong is bounded by MISHAPS, all kinds together: an attempt fails, a
 * COMMIT is not made, nobody waits for a claim any more, the engine gives back, a user
 * retries or cancels, a lease lapses. All else follows by itself, so every run of the
 * model ends (tools/model proves that, too), and whatever is still open then is open
 * for ever.
 *
 * WHAT IS HELD TO IT
 *   (a) when an attempt begins, its node's run owns the row, and no other attempt of
 *       it may begin or is under way in a living run                (mayBegin)
 *   (b) when nothing is under way any more, the delivery is final, and no memory has
 *       an entry of it                                              (quiet)
 *
 * VARIANTS, by -D
 *   (none)      the order as it should be
 *   TODAY       as it was: memory knows no generation, an entry is written after the
 *               answer to a claim, and every answer to what gives up removes it
 *   COMPARE     each node compares the rows of its run with its memory
 *   BLINDCOMPARE  as COMPARE, but memory is not looked at again under the row's lock
 *   NOLOOK      a statement that gives up does not look at the generation under the
 *               row's lock; only its answer does
 *   PRESENTRUN  as NOLOOK, and it names the node's present run, not its holding's
 *   DEAF        a user retries what was canceled before all nodes heard of that
 *   OWNER=0     (a) is not held to it        ENDS=0     (b) is not
 *   NOUSER      nobody retries or cancels    NOLAPSE    no lease lapses
 *   NOFAILURE   no attempt fails             NOGIVING   the engine gives nothing back
 *   MISHAPS=n   CLAIMS=n, that the first node may have under way at a time
 *
 * WHAT IS LEFT OUT. Time: a row that waits is due, and a lease is a flag that others
 * take a run only without. Groups: their rows share a fate, and nothing else. Lines of
 * ordered endpoints, rates, replays (they take rows as a claim does). A node that dies:
 * it is one whose lease lapses, less what it would say afterwards. What settle() does:
 * it is taken for right. Payloads, policy, health.
 *
 * BY HAND, the story that began this:
 *   V="-DTODAY -DMISHAPS=1 -DCLAIMS=1 -DOWNER=0 -DNOUSER -DNOLAPSE -DNOGIVING"
 *   spin $V -a ownership.pml && gcc -O1 -w -DSAFETY -DBFS -o pan pan.c && ./pan
 *   spin $V -t ownership.pml
 */

#ifndef MISHAPS
#define MISHAPS 3
#endif
#ifndef CLAIMS
#define CLAIMS 2
#endif
#ifndef OWNER
#define OWNER 1
#endif
#ifndef ENDS
#define ENDS 1
#endif
#ifdef PRESENTRUN
#define NOLOOK
#endif
#ifdef TODAY
#define NOLOOK
#define PRESENTRUN
#endif
#ifdef BLINDCOMPARE
#define COMPARE
#endif

/* The row of due. Less than absent and not waiting: the run that owns it. */
#define waiting 0
#define absent  20
#define parked  21
#define final   22
#define owned(r)     ((r) > waiting && (r) < absent)
#define claimable    (row == waiting || row == parked)
#ifdef DEAF
#define heard        true
#else
#define heard        (!node[0].notice && !node[1].notice)
#endif

byte row = absent;
byte tries;              /* that the row has; a result names those it was claimed with */
bool locked;             /* by a transaction */
bool canceled;           /* ghost: final because a user said so */
bool ownsTheRow = true, alone = true;   /* ghosts: see mayBegin */
byte mishaps = MISHAPS;

/* Runs: 1 and 2 are the first ones of the nodes. */
#define RUNS (3 + MISHAPS)
bool taken[RUNS];
byte runs = 2;

/* A node. gen 0: its memory has no entry. */
typedef Node {
	byte runid;          /* lease.run; 0 between a loss and the new run */
	bool lease;          /* it holds: others do not take the run */
	byte gen;            /* the entry in memory: the holding ... */
	byte owner;          /* ... and the run that took it */
	bool voided;           /* TODAY: lease.void */
	bool notice;         /* of a cancellation, not heard yet */
	byte cancels;        /* moves with each that was heard: engine.canceled */
}
Node node[2];

/* Holdings. A number is used again when nothing names it any more. */
#define HOLDINGS 8
mtype = { none, taking, queued, attempting, result, giving, held };
mtype = { ok, failed, localFault };
typedef Holding {
	mtype state = none;
	mtype outcome = none;
	bit  at;             /* the node */
	byte runid, tries;   /* it was claimed with */
	bool excused;        /* ghost: its attempt was under way when a user canceled it */
}
Holding h[HOLDINGS];     /* 0 is not used */

/* ---- memory ---- */

#ifdef TODAY
#define mine(n, g)      (node[n].gen != 0)
#define forget(n, g)    node[n].gen = 0; node[n].owner = 0
#else
#define mine(n, g)      (node[n].gen == g)
#define forget(n, g) \
	if \
	:: node[n].gen == g -> node[n].gen = 0; node[n].owner = 0 \
	:: else \
	fi
#endif
#define remember(n, g, r) node[n].gen = g; node[n].owner = r

/* MayAttempt: no, yes, or (neither) wait for the lease. */
#define refused(n, g)   (!mine(n, g) || node[n].runid != 0 && node[n].owner != node[n].runid)
#define allowed(n, g)   (mine(n, g) && node[n].runid != 0 && node[n].owner == node[n].runid && node[n].lease)

/* What a statement that gives up holding g may touch, looked at under the row's lock. */
#ifdef PRESENTRUN
#define runOf(n, g)     node[n].runid
#else
#define runOf(n, g)     h[g].runid
#endif
#ifdef NOLOOK
#define holds(n, g, r)  (owned(row) && row == r)
#else
#define holds(n, g, r)  (owned(row) && row == r && node[n].gen == g)
#endif

#define is(n, g, s)     (h[g].state == s && h[g].at == n)
#define some(n, s)      (is(n, 1, s) || is(n, 2, s) || is(n, 3, s) || is(n, 4, s) || is(n, 5, s) || is(n, 6, s) || is(n, 7, s))

inline pick(n, s) {      /* one of them; some(n, s) holds */
	if
	:: is(n, 1, s) -> g = 1
	:: is(n, 2, s) -> g = 2
	:: is(n, 3, s) -> g = 3
	:: is(n, 4, s) -> g = 4
	:: is(n, 5, s) -> g = 5
	:: is(n, 6, s) -> g = 6
	:: is(n, 7, s) -> g = 7
	fi
}

#define unused(k)       (h[k].state == none && node[0].gen != k && node[1].gen != k)

inline begin(n, r) {     /* a holding of run r */
	if
	:: unused(1) -> g = 1
	:: else -> if :: unused(2) -> g = 2
	:: else -> if :: unused(3) -> g = 3
	:: else -> if :: unused(4) -> g = 4
	:: else -> if :: unused(5) -> g = 5
	:: else -> if :: unused(6) -> g = 6
	:: else -> assert(unused(7)); g = 7   /* else: more HOLDINGS are needed */
	fi fi fi fi fi fi;
	h[g].state = taking; h[g].at = n; h[g].runid = r; h[g].tries = tries
}

inline drop(g) {
	h[g].state = none; h[g].outcome = none; h[g].at = 0; h[g].runid = 0; h[g].tries = 0; h[g].excused = false
}

/* What was taken is the engine's, unless a cancellation was heard meanwhile. */
inline handOver(n, g) {
	if
	:: cancels == node[n].cancels -> h[g].state = queued
	:: cancels != node[n].cancels -> h[g].state = giving
#ifndef TODAY
	:: mishaps > 0 -> mishaps--; h[g].state = giving;
		printf("        ... nobody waits for that\n")
#endif
	fi
}

#define other(g, k)     (g != k && (h[k].state == queued && allowed(h[k].at, k) \
	|| h[k].state == attempting && !h[k].excused && h[k].runid == node[h[k].at].runid && node[h[k].at].lease))

inline mayBegin(n, g) {  /* property (a), at the moment when it matters */
	if
	:: owned(row) -> printf("node %d: an attempt by holding %d begins; the row is of run %d\n", n, g, row)
	:: else -> printf("node %d: an attempt by holding %d begins; the row is nobody's\n", n, g)
	fi;
#if OWNER
	ownsTheRow = row == node[n].owner || row == final && canceled;
	alone = !other(g, 1) && !other(g, 2) && !other(g, 3) && !other(g, 4) && !other(g, 5) && !other(g, 6) && !other(g, 7);
	assert(ownsTheRow);
	assert(alone)
#endif
}

/* ---- what takes a row ---- */

/* publisher, batch.go: one statement. Its ids are known before. */
proctype publish(bit n) {
	byte g, r;
	byte cancels;
	atomic {
		node[n].runid != 0;
		r = node[n].runid; cancels = node[n].cancels;
		begin(n, r);
#ifndef TODAY
		remember(n, g, r)
#endif
	}
	if
	:: atomic { !taken[r] -> row = r; printf("node %d: publish is committed: holding %d, the row is of run %d\n", n, g, r) }
	:: atomic { taken[r] -> forget(n, g); drop(g); goto done }
	:: atomic { mishaps > 0 -> mishaps--; forget(n, g); drop(g); goto done }
	fi;
	atomic {                         /* the answer, or what settle found */
		printf("node %d: publish is answered: holding %d\n", n, g);
#ifdef TODAY
		remember(n, g, r); node[n].voided = false;
#endif
		handOver(n, g);
done:
		g = 0; r = 0; cancels = 0
	}
}

/* ClaimDue and ClaimParked, claim.go. */
proctype claim(bit n) {
	byte g, r;
	byte cancels;
end:
	do
	:: atomic {                  /* before it hears that its run was taken: a mishap, else this has no end */
		node[n].runid != 0 && claimable && (!taken[node[n].runid] || mishaps > 0) ->
		if
		:: taken[node[n].runid] -> mishaps--
		:: else
		fi;
		r = node[n].runid; cancels = node[n].cancels
		};
		if
		:: atomic {              /* FOR UPDATE SKIP LOCKED; RETURNING tells the ids */
			claimable && !locked ->
			locked = true;
			begin(n, r);
#ifndef TODAY
			remember(n, g, r)    /* before the COMMIT leaves */
#endif
			}
			if
			:: atomic { row = r; locked = false; printf("node %d: claim is committed: holding %d, the row is of run %d\n", n, g, r) };
				atomic {         /* the answer, or what settle found */
					printf("node %d: claim is answered: holding %d is in memory\n", n, g);
#ifdef TODAY
					remember(n, g, r); node[n].voided = false;
#endif
					handOver(n, g);
					g = 0; r = 0; cancels = 0
				}
			:: atomic {
				mishaps > 0 -> mishaps--; locked = false;
#ifndef TODAY
				forget(n, g);
#endif
				drop(g);
				g = 0; r = 0; cancels = 0
				}
			fi
		:: atomic { !claimable -> r = 0; cancels = 0 }
		fi
	od
}

/* ---- the engine: one item ---- */

proctype engine(byte g) {
end:
	do
	:: atomic { h[g].state == queued && refused(h[g].at, g) ->
		printf("node %d: no attempt by holding %d: not in memory\n", h[g].at, g);
#ifdef TODAY
		node[h[g].at].gen = 0; node[h[g].at].owner = 0; node[h[g].at].voided = true;
		h[g].outcome = localFault; h[g].state = result   /* Record takes the void for Lost */
#else
		forget(h[g].at, g);
		drop(g)                                     /* Lost */
#endif
		}
	:: atomic { h[g].state == queued && allowed(h[g].at, g) -> mayBegin(h[g].at, g); h[g].state = attempting }
#ifndef NOGIVING
	:: atomic { h[g].state == queued && mishaps > 0 -> mishaps--; h[g].state = giving;    /* giveBack */
		printf("node %d: the engine gives holding %d back\n", h[g].at, g)
		}
#endif
	:: atomic { h[g].state == attempting -> h[g].excused = false; h[g].outcome = ok; h[g].state = result;
		printf("node %d: the attempt by holding %d succeeds\n", h[g].at, g)
		}
#ifndef NOFAILURE
	:: atomic { h[g].state == attempting && mishaps > 0 -> mishaps--; h[g].excused = false; h[g].outcome = failed; h[g].state = result;
		printf("node %d: the attempt by holding %d fails\n", h[g].at, g)
		}
	:: atomic { h[g].state == attempting && mishaps > 0 -> mishaps--; h[g].excused = false; h[g].outcome = localFault; h[g].state = result;
		printf("node %d: the attempt by holding %d fails, by our own fault\n", h[g].at, g)
		}
#endif
	od
}

/* ---- what gives a row up ---- */

/* recorder, record.go: one goroutine. */
proctype record(bit n) {
	byte g, r;
	bool lost;
end:
	do
	:: atomic {
		some(n, result) ->
		pick(n, result);
again:
		r = runOf(n, g);
#ifdef TODAY
		if
		:: node[n].voided -> node[n].voided = false; drop(g); goto next   /* takeVoid */
		:: else
		fi
#endif
		}
		atomic {                     /* read, and apply: the row is locked */
			!locked ->
			if
			:: row == final || row == absent || tries != h[g].tries || owned(row) && !holds(n, g, r) ->
				lost = true;
				printf("node %d: the result of holding %d is Lost\n", n, g)
			:: else -> locked = true
			fi
		}
		if
		:: lost
		:: atomic {                  /* COMMIT */
			!lost ->
			if
			:: h[g].outcome == ok -> row = final; canceled = false; printf("node %d: the result of holding %d is committed: the row is final\n", n, g)
			:: h[g].outcome == failed -> row = waiting; tries++; printf("node %d: the result of holding %d is committed: the row waits\n", n, g)
			:: h[g].outcome == localFault -> row = waiting; printf("node %d: the result of holding %d is committed: the row waits\n", n, g)
			fi;
			locked = false
			}
		:: atomic { !lost && mishaps > 0 -> mishaps--; locked = false; goto again }
		fi;
		atomic {                     /* the answer, or what settle found */
			printf("node %d: the result of holding %d is answered\n", n, g);
			forget(n, g); drop(g);
next:
			g = 0; r = 0; lost = false
		}
	od
}

/* parker, backlog.go, and Park, claim.go; and what gives a claim back that nobody waits for. */
proctype park(bit n) {
	byte g, r;
	bool hit;
end:
	do
	:: atomic {
		some(n, giving) ->
		pick(n, giving);
again:
		r = runOf(n, g);
		if
		:: r == 0 -> goto answer     /* others have it */
		:: else
		fi
		}
		atomic { !locked -> locked = true; hit = holds(n, g, r) };
		if
		:: atomic {
			if
			:: hit -> row = parked; hit = false; printf("node %d: Park of holding %d is committed: the row is parked\n", n, g)
			:: else
			fi;
			locked = false
			}
		:: atomic { mishaps > 0 -> mishaps--; locked = false; hit = false; goto again }
		fi;
answer:
		atomic {
			printf("node %d: Park of holding %d is answered\n", n, g);
			forget(n, g); drop(g);
			g = 0; r = 0
		}
	od
}

/* Recall, lane/redeliver.go, and Retry, redeliver.go, of what a node holds. */
proctype retry(bit n) {
	byte g, r;
end:
	do
	:: atomic {
		mishaps > 0 && some(n, queued) -> mishaps--;
		pick(n, queued);
		h[g].state = held;
		printf("node %d: Retry recalls holding %d\n", n, g)
		};
		atomic {
			r = runOf(n, g);
			if
			:: r == 0 -> goto refuse
			:: else
			fi
		}
		atomic {
			!locked && (row != final || heard) ->
			if
			:: owned(row) && !holds(n, g, r) -> goto refuse     /* ErrInFlight */
			:: else -> locked = true
			fi
		}
		if
		:: atomic { row = waiting; canceled = false; locked = false; printf("node %d: Retry of holding %d is committed: the row waits\n", n, g) };
			atomic {
				printf("node %d: Retry of holding %d is answered\n", n, g);
				forget(n, g); drop(g);
				goto next
			}
		:: atomic { mishaps > 0 -> mishaps--; locked = false; goto refuse }
		fi;
refuse:
		atomic {
			h[g].state = giving;                                /* GiveBack */
next:
			g = 0; r = 0
		}
	od
}

/* CancelDelivery, and Retry of what is final; on any node. */
proctype user() {
end:
	do
	:: atomic { mishaps > 0 && !locked && row != final && row != absent ->
		mishaps--; row = final; canceled = true; printf("user: cancels\n");
		node[0].notice = true; node[1].notice = true
		}
	:: atomic { mishaps > 0 && !locked && row == final && heard ->
		mishaps--; row = waiting; canceled = false; printf("user: retries what is final: the row waits\n")
		}
	od
}

/* ---- the lease ---- */

proctype keep(bit n) {
	byte g;
end:
	do
#ifndef NOLAPSE
	:: atomic { mishaps > 0 && node[n].lease -> mishaps--; node[n].lease = false; printf("node %d: its lease lapses\n", n) }
#endif
	/* renew */
	:: atomic { !node[n].lease && node[n].runid != 0 && !taken[node[n].runid] -> node[n].lease = true; printf("node %d: its lease is renewed\n", n) }
	:: atomic { node[n].runid != 0 && taken[node[n].runid] -> node[n].runid = 0 }
	:: atomic { node[n].runid == 0 -> runs++; node[n].runid = runs; node[n].lease = true; printf("node %d: begins run %d\n", n, runs) }
	/* take */
	:: atomic { !node[1 - n].lease && node[1 - n].runid != 0 && !taken[node[1 - n].runid] -> taken[node[1 - n].runid] = true; printf("node %d: takes run %d\n", n, node[1 - n].runid) }
	/* takeOrphans, letWait */
	:: atomic { !locked && owned(row) && taken[row] -> row = waiting; printf("node %d: what the taken run owned waits\n", n) }
	/* NoticeCanceled: takeBack */
	:: atomic { node[n].notice ->
		printf("node %d: hears of the cancellation\n", n);
		node[n].notice = false; node[n].cancels++;
		for (g : 1 .. HOLDINGS - 1) {
			if
			:: is(n, g, queued) -> h[g].state = giving
			:: is(n, g, attempting) -> h[g].excused = true   /* it ends as it ends */
			:: else
			fi
		}
		g = 0
		}
	od
}

#ifdef COMPARE
/* Under TODAY it is safe only if two looks are further apart than answers take: a row
   has no entry until its claim is answered. */
#ifdef TODAY
#define missing(n)      (node[n].gen == 0 && !some(n, taking) && !some(n, queued) && !some(n, result))
#else
#define missing(n)      (node[n].gen == 0)
#endif
#ifdef BLINDCOMPARE
#define stillMissing(n) true
#else
#define stillMissing(n) missing(n)
#endif

/* The comparison: rows of this node's run that its memory has no entry of, seen so at
   two looks in a row, are given back. */
proctype compare(bit n) {
	byte r;
	bool vain = true;                    /* it may look in vain once, else this has no end */
end:
	do
	:: atomic {                          /* the first look: the rows ... */
		node[n].runid != 0 && row == node[n].runid && (missing(n) || vain) ->
		if
		:: missing(n)
		:: else -> vain = false
		fi;
		r = row
		};
		if
		:: missing(n) ->                 /* ... then memory */
			if
			:: row == r ->               /* the second */
				if
				:: missing(n) ->
					atomic {
						!locked ->
						if
						:: row == r && stillMissing(n) -> row = waiting; printf("node %d: the comparison gives the row back\n", n)
						:: else
						fi;
						r = 0
					}
				:: atomic { !missing(n) -> r = 0 }
				fi
			:: atomic { row != r -> r = 0 }
			fi
		:: atomic { !missing(n) -> r = 0 }
		fi
	od
}
#endif

/* Property (b): nothing can happen any more. */
proctype quiet() {
end:
	timeout ->
#if ENDS
	assert(row == final || row == absent);
	assert(node[0].gen == 0 && node[1].gen == 0)
#else
	skip
#endif
}

init {
	byte i;
	atomic {
		node[0].runid = 1; node[0].lease = true;
		node[1].runid = 2; node[1].lease = true;
		run publish(0);
		for (i : 1 .. HOLDINGS - 1) { run engine(i) }
		run claim(0); run claim(1);
#if CLAIMS > 1
		run claim(0);
#endif
		run record(0); run record(1);
		run park(0); run park(1);
		run keep(0); run keep(1);
#ifndef NOUSER
		run retry(0); run retry(1);
		run user();
#endif
#ifdef COMPARE
		run compare(0); run compare(1);
#endif
		run quiet();
		i = 0
	}
}
