package doctor

import (
	"crypto/x509"
	"time"
)

// renewBefore is how long before its end a certificate should have been renewed.
const renewBefore = 7 * 24 * time.Hour

// EndsSoon reports whether a certificate that is good now should have been renewed:
// within its last week, or the last third of a shorter life.
func EndsSoon(c *x509.Certificate, now time.Time) bool {
	return c.NotAfter.Sub(now) < min(renewBefore, c.NotAfter.Sub(c.NotBefore)/3)
}
