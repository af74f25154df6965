//go:build race

package proof

// RaceDetector tells that the tests run under it: several times slower, and with
// several times the memory.
const RaceDetector = true
