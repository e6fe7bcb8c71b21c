package schedule

// Turn is one that waits, or will. The caller owns it and sets the exported
// fields before Push; they don't change while it waits.
type Turn struct {
	Class Class
	// Directory and Client say who asks, for fairness: the requests of one
	// client of one directory wait behind each other, not before others'.
	Directory, Client string
	// Urgency counts for renewals only; see the function.
	Urgency int
	// Value is the caller's own.
	Value any

	node node
}

// Line is the waiting of one key. It is not safe for concurrent use. Push, Pop
// and Remove take constant time.
type Line struct {
	waiting [Classes][urgencies]node // a tree each: directories, clients, turns
	kinds   fair                     // certificates, OCSP, CRLs
	certs   fair                     // new ones and renewals
}

// The parts of the key. Certificates of both classes are one part.
const (
	certificates = iota
	ocspAnswers
	revocationLists
	kinds
)

func kindOf(c Class) int {
	switch c {
	case OCSP:
		return ocspAnswers
	case CRL:
		return revocationLists
	}
	return certificates
}

// New makes an empty line. Shares that don't pass Check are the caller's
// mistake, and the defaults are used.
func New(s Shares) *Line {
	if s.Check() != nil {
		s = DefaultShares()
	}
	return &Line{
		kinds: fair{weight: []float64{s[Issuance] + s[Renewal], s[OCSP], s[CRL]}, finish: make([]float64, kinds)},
		certs: fair{weight: []float64{s[Issuance], s[Renewal]}, finish: make([]float64, 2)},
	}
}

// Push lets t wait. One that waits already stays where it is. The class must
// be one of the four.
func (l *Line) Push(t *Turn) {
	if t.node.parent != nil {
		return
	}
	if kind := kindOf(t.Class); l.ofKind(kind) == 0 {
		l.kinds.wake(kind)
	}
	if t.Class <= Renewal && l.Len(t.Class) == 0 {
		l.certs.wake(int(t.Class))
	}
	t.node.turn = t
	l.tree(t).child(t.Directory).child(t.Client).append(&t.node)
}

// tree is where a turn waits.
func (l *Line) tree(t *Turn) *node { return &l.waiting[t.Class][level(t)] }

// level is the urgency that counts.
func level(t *Turn) int {
	if t.Class != Renewal {
		return urgent // the class has one level, the first
	}
	return min(max(t.Urgency, urgent), relaxed)
}

// Pop takes out the one whose turn it is; nil if nobody waits.
func (l *Line) Pop() *Turn {
	kind := l.kinds.next(l.ofKind)
	if kind < 0 {
		return nil
	}
	l.kinds.serve(kind)
	class := OCSP
	switch kind {
	case certificates:
		class = Class(l.certs.next(func(i int) int { return l.Len(Class(i)) }))
		l.certs.serve(int(class))
	case revocationLists:
		class = CRL
	}
	for u := range l.waiting[class] {
		if root := &l.waiting[class][u]; root.turns > 0 {
			return root.pop()
		}
	}
	return nil // not reached: the class has a turn
}

// Remove takes out one that no longer wants its turn, as if it had never come.
// One that doesn't wait is left alone.
func (l *Line) Remove(t *Turn) {
	if t.node.parent != nil {
		t.node.leave()
	}
}

// Len returns how many of a class wait.
func (l *Line) Len(c Class) int {
	n := 0
	for u := range l.waiting[c] {
		n += l.waiting[c][u].turns
	}
	return n
}

// Ahead returns how many are served before t, one that waits or one that would
// be pushed now, if nobody else comes or goes; rounding can make it wrong by
// one per class. It takes time in proportion to the clients that wait in t's
// directory, the directories, and t's client's own turns before it.
func (l *Line) Ahead(t *Turn) int {
	rank := l.tree(t).rank(t)
	for u := range level(t) {
		rank += l.waiting[t.Class][u].turns
	}
	kind := kindOf(t.Class)
	if kind == certificates {
		rank += l.certs.before(int(t.Class), rank, func(i int) int { return l.Len(Class(i)) })
	}
	return rank + l.kinds.before(kind, rank, l.ofKind)
}

// ofKind returns how many wait for one part of the key.
func (l *Line) ofKind(kind int) int {
	switch kind {
	case ocspAnswers:
		return l.Len(OCSP)
	case revocationLists:
		return l.Len(CRL)
	}
	return l.Len(Issuance) + l.Len(Renewal)
}
