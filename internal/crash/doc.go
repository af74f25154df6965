// Package crash holds no code but tests. They do to the real binary, under load
// with retries, held and delayed deliveries waiting, what machines do to it, and
// count at the receivers that every event that was answered 202 arrives:
//
//   - SIGKILL at random moments; SIGTERM once, again and again, twice in a row;
//   - a power loss: a run is recorded system call by system call (strace), what no
//     sync covered is forgotten, kept in part or torn at a cut, the rest is opened;
//   - a full disk, and one whose writes, syncs and reads fail;
//   - damaged, foreign, newer and missing files.
//
// "make crash" makes twenty kills, "go test ./..." two; POSTHORN_TORTURE=long makes
// the others long.
package crash
