package certs

// Items is how many names the scheduler has an object for.
func (k *Keeper) Items() int {
	k.schedule.mu.Lock()
	defer k.schedule.mu.Unlock()
	return len(k.schedule.items)
}
