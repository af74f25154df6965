package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// The keys of a command's annotations.
const (
	callsKey = "calls" // operations of the API that it makes
	likeKey  = "like"  // operations that it does on the store itself
	listSep  = ", "    // between operations
	readVerb = "GET "  // what begins an operation that changes nothing
)

// calls notes which operations of the API a command makes, as the API's description
// names them: "POST /events". The reference shows them, a test holds them to what the
// command really sends, and one that changes something says whom it talks to.
func calls(operations ...string) map[string]string {
	return map[string]string{callsKey: strings.Join(operations, listSep)}
}

// like notes which operations a command does on the store, where the API is not needed.
func like(operations ...string) map[string]string {
	return map[string]string{likeKey: strings.Join(operations, listSep)}
}

// noted returns what calls or like noted; nil if nothing.
func noted(c *cobra.Command, key string) []string {
	if c.Annotations[key] == "" {
		return nil
	}
	return strings.Split(c.Annotations[key], listSep)
}

// changes reports whether a command may change something on a server.
func changes(c *cobra.Command) bool {
	for _, op := range noted(c, callsKey) {
		if !strings.HasPrefix(op, readVerb) {
			return true
		}
	}
	return false
}
