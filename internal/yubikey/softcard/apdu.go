package softcard

import "encoding/binary"

// command is an APDU from the host (ISO/IEC 7816-4 section 5.1).
type command struct {
	chained     bool // more of it follows (CLA bit 5)
	ins, p1, p2 byte
	data        []byte
	expect      int // the longest response in one piece
	wellFormed  bool
}

// parse reads a short or an extended APDU.
func parse(b []byte) command {
	if len(b) < 4 || b[0]&^0x10 != 0 {
		return command{}
	}
	c := command{chained: b[0]&0x10 != 0, ins: b[1], p1: b[2], p2: b[3], expect: 256}
	body := b[4:]
	switch {
	case len(body) <= 1: // no data, Le or none; go-piv sends Lc 0 and no Le, which reads the same
		c.wellFormed = true
	case body[0] != 0: // short: Lc, data, perhaps Le
		n := int(body[0])
		c.wellFormed = len(body) == 1+n || len(body) == 2+n
		if c.wellFormed {
			c.data = body[1 : 1+n]
		}
	default:
		c.extended(body[1:])
	}
	return c
}

// extended reads what follows the zero byte of an extended body: Le alone, or
// Lc, data and perhaps Le.
func (c *command) extended(body []byte) {
	c.expect = 65536
	if len(body) == 2 {
		c.wellFormed = true
		return
	}
	if len(body) < 2 {
		return
	}
	n := int(binary.BigEndian.Uint16(body))
	c.wellFormed = len(body) == 2+n || len(body) == 4+n
	if c.wellFormed {
		c.data = body[2 : 2+n]
	}
}

// The status words that the card answers with.
const (
	swOK              = 0x9000
	swMore            = 0x6100 // and how many bytes, 0 for 256 or more
	swWrongPIN        = 0x63c0 // and how many tries are left
	swLength          = 0x6700
	swSecurity        = 0x6982 // no PIN, no touch, no management key
	swBlocked         = 0x6983
	swConditions      = 0x6985
	swData            = 0x6a80
	swNotFound        = 0x6a82
	swMemory          = 0x6a84
	swParameters      = 0x6a86
	swNoReference     = 0x6a88
	swInstruction     = 0x6d00
	swLastOfChainMiss = 0x6883
)

// tlv encodes a BER-TLV with a tag of one or two bytes.
func tlv(tag uint16, value ...byte) []byte {
	var b []byte
	if tag > 0xff {
		b = append(b, byte(tag>>8))
	}
	b = append(b, byte(tag))
	switch n := len(value); {
	case n < 0x80:
		b = append(b, byte(n))
	case n < 0x100:
		b = append(b, 0x81, byte(n))
	default:
		b = append(b, 0x82, byte(n>>8), byte(n))
	}
	return append(b, value...)
}

// next takes the first TLV off b. Tags have one byte here: the longer ones
// come as contents only.
func next(b []byte) (tag byte, value, rest []byte, ok bool) {
	if len(b) < 2 {
		return 0, nil, nil, false
	}
	tag, n, b := b[0], int(b[1]), b[2:]
	if n >= 0x80 {
		size := n & 0x7f
		if size < 1 || size > 2 || len(b) < size {
			return 0, nil, nil, false
		}
		n = 0
		for _, c := range b[:size] {
			n = n<<8 | int(c)
		}
		b = b[size:]
	}
	if len(b) < n {
		return 0, nil, nil, false
	}
	return tag, b[:n], b[n:], true
}

// fields reads a sequence of TLVs, each tag at most once.
func fields(b []byte) (map[byte][]byte, bool) {
	all := map[byte][]byte{}
	for len(b) > 0 {
		tag, value, rest, ok := next(b)
		if _, twice := all[tag]; !ok || twice {
			return nil, false
		}
		all[tag], b = value, rest
	}
	return all, true
}

// template reads fields inside one outer TLV, as 7C … or AC ….
func template(outer byte, b []byte) (map[byte][]byte, bool) {
	tag, value, rest, ok := next(b)
	if !ok || tag != outer || len(rest) != 0 {
		return nil, false
	}
	return fields(value)
}
