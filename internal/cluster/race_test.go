//go:build race

package cluster

// raceDetector: the tests run several times slower.
const raceDetector = true
