package softcard

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// What the virtual reader sends instead of an APDU: one byte.
const (
	vpcdOff   = 0
	vpcdOn    = 1
	vpcdReset = 2
	vpcdATR   = 4
)

// Serve is the card in a virtual reader: it speaks the protocol of vpcd
// (vsmartcard) on a connection to it until that or ctx ends, which is the card
// being pulled. It closes the connection. The error is nil when ctx ended or
// the reader hung up.
//
// Messages are two bytes of length and so many bytes.
func (c *Card) Serve(ctx context.Context, conn *net.TCPConn) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("softcard: %w", err)
	}
	for {
		message, err := receive(conn, raw)
		if err == io.EOF || ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("softcard: reading from the virtual reader: %w", err)
		}
		answer := c.answer(ctx, message)
		if ctx.Err() != nil {
			return nil // pulled at work
		}
		if answer == nil {
			continue
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil && ctx.Err() == nil {
			return fmt.Errorf("softcard: answering the virtual reader: %w", err)
		}
	}
}

// receive reads a message. vpcd sends length and body in two writes; without
// quick acknowledgement each command would take 40 ms, and the kernel takes
// the option back by itself.
func receive(conn *net.TCPConn, raw syscall.RawConn) ([]byte, error) {
	quick := func() {
		raw.Control(func(fd uintptr) {
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) // only speed
		})
	}
	var head [2]byte
	quick()
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[:]))
	quick()
	_, err := io.ReadFull(conn, body)
	return body, err
}

// answer returns what the reader is told; nil is nothing.
func (c *Card) answer(ctx context.Context, message []byte) []byte {
	if len(message) != 1 {
		response, takes := c.Transmit(message)
		select {
		case <-ctx.Done():
		case <-time.After(takes):
		}
		return response
	}
	switch message[0] {
	case vpcdOff, vpcdOn, vpcdReset:
		c.Reset()
	case vpcdATR:
		return c.ATR()
	}
	return nil
}
