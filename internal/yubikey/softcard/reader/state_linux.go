package reader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// The part of pcscd's protocol that tells what is in the readers (pcsc-lite's
// winscard_msg.h and eventhandler.h, protocol version 4): the request is a
// length and a command, the answer an array of sixteen readers. Numbers are in
// the machine's byte order.
const (
	getReadersState = 0x12
	maxReaders      = 16
	present         = 0x0004 // SCARD_PRESENT
	powered         = 0x0010 // SCARD_POWERED
)

// readerState is pcscd's word on one reader.
type readerState struct {
	Name         [128]byte
	EventCounter uint32
	State        uint32
	Sharing      int32
	ATR          [36]byte // 33 and what aligns the next
	ATRLength    uint32
	Protocol     uint32
}

// state asks pcscd for a reader's state.
func (r *Reader) state(reader int) (uint32, error) {
	conn, err := net.DialTimeout("unix", r.socket, patience)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if err := binary.Write(conn, binary.NativeEndian, [2]uint32{0, getReadersState}); err != nil {
		return 0, err
	}
	var all [maxReaders]readerState
	b := make([]byte, binary.Size(all))
	if _, err := io.ReadFull(conn, b); err != nil {
		return 0, err
	}
	if _, err := binary.Decode(b, binary.NativeEndian, &all); err != nil {
		return 0, err
	}
	want := fmt.Appendf(nil, "%s 00 00", name(reader))
	for _, s := range all {
		if before, _, ok := bytes.Cut(s.Name[:], []byte{0}); ok && bytes.Equal(before, want) {
			return s.State, nil
		}
	}
	return 0, errors.New("pcscd doesn't know the reader")
}

// await returns when pcscd has seen that a card is in the reader, and powered,
// or that none is. It looks every 400 ms, and only then is what programs are
// told true.
func (r *Reader) await(reader int, card bool) error {
	deadline := time.Now().Add(patience)
	for {
		state, err := r.state(reader)
		switch {
		case err != nil:
			return fmt.Errorf("reader %d: asking pcscd: %w", reader, err)
		case card && state&present != 0 && state&powered != 0, !card && state&present == 0:
			return nil
		}
		if err := r.pause(deadline); err != nil {
			return fmt.Errorf("reader %d: %w", reader, err)
		}
	}
}
