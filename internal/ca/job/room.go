package job

import "sync"

// Room bounds how many are inside at once under one key. It is safe for
// concurrent use.
type Room struct {
	most   int
	mu     sync.Mutex
	inside map[string]int
}

// NewRoom makes a room for so many under each key.
func NewRoom(most int) *Room { return &Room{most: most, inside: make(map[string]int)} }

// Enter lets one more in and says whether there was room; if so, Leave must
// follow.
func (r *Room) Enter(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inside[key] >= r.most {
		return false
	}
	r.inside[key]++
	return true
}

// Leave lets one out that entered under the key.
func (r *Room) Leave(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inside[key]--; r.inside[key] == 0 {
		delete(r.inside, key)
	}
}

// Count is how many are inside under the key.
func (r *Room) Count(key string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inside[key]
}
