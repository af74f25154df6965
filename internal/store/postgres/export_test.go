package postgres

// Blind has the store remove from memory whatever it holds of a delivery, as it did
// before holds had generations.
func (s *Store) Blind() {
	s.holdings.mu.Lock()
	defer s.holdings.mu.Unlock()
	s.holdings.blind = true
}
