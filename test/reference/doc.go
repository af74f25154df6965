// Package reference holds the service to its documented API: the examples of
// the reference are run as they stand, with the real curl against the real
// binary, and receivers check what arrives with a library that is not ours. It
// holds no code but tests.
package reference
