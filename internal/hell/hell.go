// Package hell holds what tests send webhooks to: receivers that lie, stall,
// flood and break off, certificates that are wrong, name servers that change
// their mind, and URLs that lead where they should not. The tests of one attempt
// (internal/send) and those of the whole service (internal/app) go through the
// same tables. Only tests import it.
package hell
