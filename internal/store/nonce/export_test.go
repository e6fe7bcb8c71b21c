package nonce

// HandOut pretends that so many more nonces were handed out.
func (n *Set) HandOut(more uint64) {
	e := (*n.epochs.Load())[0]
	for range more >> segmentBits {
		n.memory.handedOut(e.next.Add(1<<segmentBits) &^ (1<<segmentBits - 1))
	}
}

// Memory is how many bytes the used nonces take.
func (n *Set) Memory() int {
	n.memory.mu.Lock()
	defer n.memory.mu.Unlock()
	return len(n.memory.segments) << segmentBits / 8
}
