package schedule

// node is one level of waiting: its children take turns. A line's class is a
// tree of directories, clients and turns; a turn leaves when it is served, so
// that a client's turns are first come, first served.
type node struct {
	parent      *node
	next, prev  *node            // siblings
	first, last *node            // children, the next to be served first
	byName      map[string]*node // children; nil for a client, whose children are turns
	name        string
	turns       int   // in this subtree
	turn        *Turn // a leaf's
}

// child returns the child of that name, and makes it if need be; the caller
// puts a turn below it.
func (n *node) child(name string) *node {
	if c := n.byName[name]; c != nil {
		return c
	}
	c := &node{name: name}
	if n.byName == nil {
		n.byName = make(map[string]*node)
	}
	n.byName[name] = c
	n.link(c)
	return c
}

// append adds a leaf.
func (n *node) append(leaf *node) {
	n.link(leaf)
	leaf.turns = 1
	for p := n; p != nil; p = p.parent {
		p.turns++
	}
}

// pop takes out the turn that is next; its client and directory go to the end
// of their rounds. The root must have one.
func (n *node) pop() *Turn {
	leaf := n
	for leaf.first != nil {
		leaf = leaf.first
	}
	for p := leaf.parent; p != n; p = p.parent {
		up := p.parent
		up.unlink(p)
		up.link(p)
	}
	leaf.leave()
	return leaf.turn
}

// leave takes a leaf out, and the client and directory that have nothing else.
func (n *node) leave() {
	for p := n.parent; p != nil; p = p.parent {
		p.turns--
	}
	up := n.parent
	up.unlink(n)
	for empty := up; empty.turns == 0 && empty.parent != nil; empty = up {
		up = empty.parent
		up.unlink(empty)
		delete(up.byName, empty.name)
	}
}

// rank returns how many turns of this tree are served before t: rounds are
// taken in order, so that before a child's turn number r, those in front of it
// in the round have had r+1 turns and those behind it r, as far as they have
// as many.
func (n *node) rank(t *Turn) int {
	at, r := &t.node, 0
	if at.parent == nil { // not waiting: the place that it would get
		at, r = n, len(n.byName)
		if dir := n.byName[t.Directory]; dir != nil {
			at, r = dir, len(dir.byName)
			if client := dir.byName[t.Client]; client != nil {
				at, r = client, client.turns
			}
		}
	}
	for ; at != n; at = at.parent {
		own, each := r, r+1
		for s := at.parent.first; s != nil; s = s.next {
			if s == at {
				if each = own; own == 0 {
					break
				}
				continue
			}
			r += min(s.turns, each)
		}
	}
	return r
}

// link puts a child at the end of the round.
func (n *node) link(c *node) {
	c.parent, c.prev, c.next = n, n.last, nil
	if n.last == nil {
		n.first = c
	} else {
		n.last.next = c
	}
	n.last = c
}

func (n *node) unlink(c *node) {
	if c.prev == nil {
		n.first = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		n.last = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.parent, c.prev, c.next = nil, nil, nil
}
