package access

import "time"

// Patient has tokens wait for their provider until it answers: what is tested is not the
// time, and processors may be busy.
func (o *OIDC) Patient() {
	for _, p := range o.providers {
		p.patience = time.Hour
	}
}
