package dnsupdate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/miekg/dns"
)

// exchangeTimeout bounds the questions or the update of one connection.
const exchangeTimeout = 10 * time.Second

// reply is what became of one message.
type reply struct {
	msg *dns.Msg
	err error // msg is nil, or not signed rightly
}

// one sends one message.
func (r *rfc2136) one(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	a := r.exchange(ctx, []*dns.Msg{m})[0]
	return a.msg, a.err
}

// exchange sends messages over one TCP connection, each signed, without waiting for the answers in between. For the rate
// limit that is one request. A message that would change the zone is refused in a dry run.
func (r *rfc2136) exchange(ctx context.Context, ms []*dns.Msg) []reply {
	replies := make([]reply, len(ms))
	if len(ms) == 0 {
		return replies
	}
	if err := r.converse(ctx, ms, replies); err != nil {
		for i := range replies {
			if replies[i].msg == nil && replies[i].err == nil {
				replies[i].err = err
			}
		}
	}
	return replies
}

// converse fills in the replies until something goes wrong.
func (r *rfc2136) converse(ctx context.Context, ms []*dns.Msg, replies []reply) error {
	for _, m := range ms {
		if r.guard.dryRun && m.Opcode == dns.OpcodeUpdate && len(m.Ns) > 0 {
			return faultf(KindDryRun, "%w", ErrDryRun)
		}
	}
	if err := r.guard.permit(ctx); err != nil {
		return err
	}
	first := uint16(rand.N(1 << 15)) // the ids count up from here
	wires, macs, err := r.sign(ms, first)
	if err != nil {
		return faultf(KindInternal, "write message: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	conn, err := r.guard.dial(ctx, "tcp", r.server)
	if err != nil {
		return faultf(KindUnavailable, "ask server %s: %w", r.server, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	stream := &dns.Conn{Conn: conn}
	go send(stream, wires) // ends with the connection
	for range ms {
		wire, err := stream.ReadMsgHeader(nil)
		if err == nil {
			err = r.receive(wire, first, macs, replies)
		}
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return faultf(KindUnavailable, "ask server %s: %w", r.server, err)
		}
	}
	return nil
}

// sign packs messages, and returns the signatures that their answers have to refer to.
func (r *rfc2136) sign(ms []*dns.Msg, first uint16) (wires [][]byte, macs []string, err error) {
	wires, macs = make([][]byte, len(ms)), make([]string, len(ms))
	for i, m := range ms {
		m.Id = first + uint16(i)
		if r.key == "" {
			wires[i], err = m.Pack()
		} else {
			m.SetTsig(r.key, r.algorithm, 300, time.Now().Unix())
			wires[i], macs[i], err = dns.TsigGenerate(m, r.secret, "", false)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return wires, macs, nil
}

// send stops at the first error, which whoever reads the answers gets as well.
func send(stream *dns.Conn, wires [][]byte) {
	for _, wire := range wires {
		if _, err := stream.Write(wire); err != nil {
			return
		}
	}
}

// receive files an answer under its question. Servers may answer in any order, RFC 7766, Section 7.
func (r *rfc2136) receive(wire []byte, first uint16, macs []string, replies []reply) error {
	answer := new(dns.Msg)
	err := answer.Unpack(wire)
	i := int(answer.Id) - int(first)
	if i < 0 || i >= len(replies) || replies[i].msg != nil {
		return fmt.Errorf("answer to another question: %w", dns.ErrId)
	}
	if tsig := answer.IsTsig(); err == nil && tsig != nil {
		err = dns.ErrSecret
		if dns.CanonicalName(tsig.Hdr.Name) == r.key {
			err = dns.TsigVerify(wire, r.secret, macs[i], false)
		}
	}
	replies[i] = reply{answer, r.signatureFault(answer, err)}
	return nil
}
