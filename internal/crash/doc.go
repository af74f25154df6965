// Package crash holds no code but tests: it kills the real binary by SIGKILL at
// random moments under load, with retries, held and delayed deliveries waiting,
// and counts at the receivers that every event that was answered 202 arrives.
// "make crash" makes twenty kills, "go test ./..." two.
package crash
