package sender_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/miekg/dns"
)

// dnsServer is an authoritative server on loopback. It answers from its records; a name in special is answered by the
// function there. Like any authoritative server it leaves CNAMEs to be followed by who asks, unless it is recursive.
type dnsServer struct {
	addr      string
	records   []dns.RR
	recursive bool
	special   map[string]func(w dns.ResponseWriter, q *dns.Msg)
	asked     atomic.Int32
}

func startDNS(t *testing.T, s *dnsServer, lines string) *dnsServer {
	t.Helper()
	for line := range strings.SplitSeq(strings.TrimSpace(lines), "\n") {
		rr, err := dns.NewRR(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		if rr != nil {
			s.records = append(s.records, rr)
		}
	}
	tcp, udp := listenBoth(t)
	s.addr = tcp.Addr().String()
	for _, server := range []*dns.Server{{Listener: tcp, Handler: s}, {PacketConn: udp, Handler: s}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() { _ = server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = server.Shutdown() })
	}
	return s
}

// listenBoth listens on TCP and UDP with one port number.
func listenBoth(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	var err error
	for range 20 {
		tcp := listen(t, "127.0.0.1:0")
		var udp net.PacketConn
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			return tcp, udp
		}
		tcp.Close()
	}
	t.Fatal(err)
	return nil, nil
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (s *dnsServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.asked.Add(1)
	question := q.Question[0]
	if f, ok := s.special[question.Name]; ok {
		f(w, q)
		return
	}
	m := new(dns.Msg).SetReply(q)
	m.Authoritative, m.RecursionAvailable = !s.recursive, s.recursive
	name := question.Name
	for range 20 {
		target := s.answer(m, name, question.Qtype)
		if name = target; name == "" || !s.recursive {
			break
		}
	}
	size := dns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		size = int(opt.UDPSize())
	}
	if w.RemoteAddr().Network() == "udp" {
		m.Truncate(size)
	}
	_ = w.WriteMsg(m)
}

// answer adds what there is at a name, and returns the target of a CNAME.
func (s *dnsServer) answer(m *dns.Msg, name string, qtype uint16) (target string) {
	exists, found := false, false
	for _, rr := range s.records {
		exists = exists || dns.IsSubDomain(name, rr.Header().Name)
		if !strings.EqualFold(rr.Header().Name, name) {
			continue
		}
		cname, alias := rr.(*dns.CNAME)
		if alias || rr.Header().Rrtype == qtype {
			m.Answer = append(m.Answer, rr)
			found = true
		}
		if alias && qtype != dns.TypeCNAME {
			target = cname.Target
		}
	}
	if found {
		return target
	}
	if !exists {
		m.Rcode = dns.RcodeNameError
	}
	for _, rr := range s.records {
		if rr.Header().Rrtype == dns.TypeSOA && dns.IsSubDomain(rr.Header().Name, name) {
			m.Ns = append(m.Ns, rr)
		}
	}
	return ""
}

// answerCode is a special that answers with nothing but a code.
func answerCode(rcode int) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(q, rcode)) }
}

// silence is a special that does not answer.
func silence(dns.ResponseWriter, *dns.Msg) {}

// authority is a CA of the test's own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue makes a certificate that is valid from an hour ago until left from now.
func (a *authority) issue(t *testing.T, left time.Duration, names ...string) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: names, NotBefore: time.Now().Add(-20 * time.Hour), NotAfter: time.Now().Add(left),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// startHTTPS serves with the certificate, or sends an alert where it is nil.
func startHTTPS(t *testing.T, addr string, conf *tls.Config, handler http.Handler) string {
	t.Helper()
	l := listen(t, addr)
	server := &http.Server{
		Handler: handler, TLSConfig: conf.Clone(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() { _ = server.ServeTLS(l, "", "") }()
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

// serving is a TLS configuration of one certificate; without one the handshake ends in an alert.
func serving(cert *tls.Certificate) *tls.Config {
	return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }}
}

// startSMTP is a mail server; without a TLS configuration it offers no STARTTLS.
func startSMTP(t *testing.T, addr string, conf *tls.Config) string {
	t.Helper()
	l := listen(t, addr)
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return session{}, nil
	}))
	server.Domain, server.TLSConfig, server.ErrorLog = "mail.test", conf, log.New(io.Discard, "", 0)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

// session refuses mail; nobody sends any.
type session struct{}

var errNoMail = errors.New("this server takes no mail")

func (session) Reset()                               {}
func (session) Logout() error                        { return nil }
func (session) Mail(string, *smtp.MailOptions) error { return errNoMail }
func (session) Rcpt(string, *smtp.RcptOptions) error { return errNoMail }
func (session) Data(io.Reader) error                 { return errNoMail }

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
