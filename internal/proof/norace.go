//go:build !race

package proof

// RaceDetector tells that the tests run under it.
const RaceDetector = false
