package labtest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// StartRawDNS answers questions over UDP and TCP with whatever answer returns, byte for byte but for the id, which is that
// of the question. No bytes are silence, and over UDP what follows the first 64,000 is left out. It returns where it
// listens, an "ADDR:PORT" on loopback.
func StartRawDNS(t testing.TB, answer func(question []byte, tcp bool) []byte) string {
	t.Helper()
	var tcp net.Listener
	var udp net.PacketConn
	var err error
	for range 20 {
		if tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			break
		}
		tcp.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	withID := func(question []byte, tcp bool) []byte {
		if len(question) < 2 {
			return nil
		}
		out := append([]byte(nil), answer(question, tcp)...)
		copy(out, question[:2])
		return out
	}
	var served sync.WaitGroup
	served.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			if out := withID(buf[:n], false); len(out) > 0 {
				_, _ = udp.WriteTo(out[:min(len(out), 64_000)], from) // who asked may be gone
			}
		}
	})
	served.Go(func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			served.Go(func() { rawTCP(conn, withID) })
		}
	})
	t.Cleanup(func() {
		if err := errors.Join(tcp.Close(), udp.Close()); err != nil {
			t.Error(err)
		}
		served.Wait()
	})
	return tcp.Addr().String()
}

// rawTCP answers one connection, whose questions and answers have their length before them (RFC 1035, Section 4.2.2).
func rawTCP(conn net.Conn, answer func([]byte, bool) []byte) {
	defer conn.Close()
	for {
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return
		}
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, question); err != nil {
			return
		}
		out := answer(question, true)
		if len(out) == 0 || len(out) > 1<<16-1 {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}
