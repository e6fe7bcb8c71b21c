package sshca

import (
	"encoding/binary"
	"slices"
)

// A run is consecutive serials, both ends included.
type run struct{ lo, hi uint64 }

// addRun appends serials that begin at or after the last run's beginning, and
// melts what touches into one.
func addRun(runs []run, r run) []run {
	if n := len(runs); n > 0 && (runs[n-1].hi >= r.lo || runs[n-1].hi+1 == r.lo) {
		runs[n-1].hi = max(runs[n-1].hi, r.hi)
		return runs
	}
	return append(runs, r)
}

// Bytes that a section of serials takes (PROTOCOL.krl sections 2.1 to 2.3): one
// for its type and four for its length, then two serials; or one serial and the
// bitmap, an mpint with four bytes of length and at least one more.
const (
	sectionCost = 5
	rangeCost   = sectionCost + 8 + 8
	bitmapCost  = sectionCost + 8 + 4 + 1
)

// maxBitmap is how many bits OpenSSH reads in an mpint (SSHBUF_MAX_BIGNUM).
// ssh-keygen itself writes longer ones, which then neither it nor sshd reads.
const maxBitmap = 16384

// appendSerials appends the sections that revoke serials, none of which is 0, in
// the fewest bytes: lists, ranges and bitmaps as fits best.
func appendSerials(b []byte, serials []uint64) []byte {
	if !slices.IsSorted(serials) {
		serials = slices.Clone(serials)
		slices.Sort(serials)
	}
	var runs []run
	for _, n := range serials {
		runs = addRun(runs, run{n, n})
	}
	size, sections := pack(runs, false)
	// All serials of lists share one section, wherever they lie.
	if withList, other := pack(runs, true); withList+sectionCost < size {
		size, sections = withList+sectionCost, other
	}
	b = slices.Grow(b, size)
	list := 0
	for _, s := range sections {
		switch part := runs[s.from:s.to]; {
		case s.kind == krlRange:
			b = appendRange(b, part[0])
		case s.kind == krlBitmap:
			b = appendBitmap(b, part)
		default:
			list += int(part[0].hi - part[0].lo + 1)
		}
	}
	if list == 0 {
		return b
	}
	b = append(b, krlSerials)
	b = binary.BigEndian.AppendUint32(b, uint32(8*list))
	for _, s := range sections {
		if s.kind == krlSerials {
			for n := runs[s.from].lo; ; n++ { // hi may be the largest number there is
				b = binary.BigEndian.AppendUint64(b, n)
				if n == runs[s.from].hi {
					break
				}
			}
		}
	}
	return b
}

func appendRange(b []byte, r run) []byte {
	b = append(b, krlRange)
	b = binary.BigEndian.AppendUint32(b, 16)
	b = binary.BigEndian.AppendUint64(b, r.lo)
	return binary.BigEndian.AppendUint64(b, r.hi)
}

// appendBitmap writes bit N for serial lo + N, the highest first, as an mpint,
// whose first bit is 0 (RFC 4251 section 5).
func appendBitmap(b []byte, runs []run) []byte {
	lo := runs[0].lo
	length := int((runs[len(runs)-1].hi-lo+1)/8) + 1
	b = append(b, krlBitmap)
	b = binary.BigEndian.AppendUint32(b, uint32(8+4+length))
	b = binary.BigEndian.AppendUint64(b, lo)
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	bits := len(b)
	b = append(b, make([]byte, length)...)
	for _, r := range runs {
		for n := r.lo - lo; n <= r.hi-lo; n++ {
			b[bits+length-1-int(n/8)] |= 1 << (n % 8)
		}
	}
	return b
}

// section is one section over runs[from:to]; only a bitmap has several.
type section struct {
	kind     byte
	from, to int32
}

// pack finds the cheapest way to write runs, and its bytes, the header of the one
// list not counted. cost[i] is the least for the first i runs; the last of them
// stands in a list, in a range, or ends a bitmap that begins with any run near
// enough.
func pack(runs []run, lists bool) (size int, sections []section) {
	cost := make([]int, len(runs)+1)
	last := make([]section, len(runs)+1)
	var near window
	for i, r := range runs {
		to := int32(i + 1)
		cost[to], last[to] = cost[i]+rangeCost, section{krlRange, int32(i), to}
		if count := r.hi - r.lo + 1; lists && count <= 2 { // 3 serials take more than a range
			if c := cost[i] + 8*int(count); c < cost[to] {
				cost[to], last[to] = c, section{krlSerials, int32(i), to}
			}
		}
		near.add(int32(i), r.lo, cost[i])
		if c, from, ok := near.best(r.hi); ok && c < cost[to] {
			cost[to], last[to] = c, section{krlBitmap, from, to}
		}
	}
	for i := int32(len(runs)); i > 0; i = last[i].from {
		sections = append(sections, last[i])
	}
	slices.Reverse(sections)
	return cost[len(runs)], sections
}

// window finds the best run for a bitmap to begin with. A bitmap from serial lo
// to hi takes bitmapCost + (hi-lo+1)/8 bytes, rounded down; with m = lo-1 that
// is hi/8 - m/8, and one less if m has the larger remainder. So runs with one
// remainder keep their order as hi grows, and of each remainder the best that is
// still near enough stands first (a sliding minimum): 8 looks a run in all.
type window [8]struct {
	queue []candidate
	first int
}

type candidate struct {
	run  int32
	m    uint64
	cost int64 // bytes before it, less m/8
}

func (w *window) add(run int32, lo uint64, before int) {
	m := lo - 1
	c := candidate{run, m, int64(before) - int64(m/8)}
	q := &w[m%8]
	for len(q.queue) > q.first && q.queue[len(q.queue)-1].cost >= c.cost {
		q.queue = q.queue[:len(q.queue)-1]
	}
	q.queue = append(q.queue, c)
}

func (w *window) best(hi uint64) (cost int, from int32, ok bool) {
	for remainder := range w {
		q := &w[remainder]
		for q.first < len(q.queue) && hi-q.queue[q.first].m > maxBitmap {
			q.first++
		}
		if q.first == len(q.queue) {
			continue
		}
		c := int(q.queue[q.first].cost+int64(hi/8)) + bitmapCost
		if hi%8 < uint64(remainder) {
			c--
		}
		if !ok || c < cost {
			cost, from, ok = c, q.queue[q.first].run, true
		}
	}
	return cost, from, ok
}
