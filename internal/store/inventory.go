package store

import "time"

// Inventory counts what a store holds.
type Inventory struct {
	Tenants    int64 `json:"tenants"`
	Endpoints  int64 `json:"endpoints"`
	Events     int64 `json:"events"`
	Deliveries int64 `json:"deliveries"`
	// Open are the deliveries that are not finished.
	Open int64 `json:"open"`
	// Bytes is the size of the file.
	Bytes int64 `json:"bytes"`
}

// Outlook is what would be sent if sending began now.
type Outlook struct {
	// Open are all deliveries that are not finished; Due those of them whose time
	// has come and whose endpoint and tenant are active.
	Open, Due int64
	// RestoredFrom is when the backup was taken that this store was made from; zero
	// when it was not, and once sending was resumed.
	RestoredFrom time.Time
}
