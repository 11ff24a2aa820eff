package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
)

const (
	reachTimeout = 5 * time.Second // one port of one address
	maxReached   = 8               // addresses of a name that are looked at
)

// errOthers is that somebody answers, but not us.
var errOthers = errors.New("another server answers")

// reach says whether a name's port 80, or 443, is answered by a node of ours, in the way that an authority finds out: an
// answer to a challenge that nobody else knows is put into the store, where each node finds it, and asked for at every
// address. Some may be out of reach, as authorities try another one then; all that answer must be ours. It returns the
// first of the ways that works.
func (g *Gate) reach(ctx context.Context, name string, addrs []netip.Addr, ways []string) (string, error) {
	r := &Refusal{
		Check: CheckReach, Host: name,
		Advice: "have these ports lead to this service, with nothing between that answers in its place",
	}
	var reasons []string
	for _, way := range ways {
		port, knock := g.HTTPPort, g.knockHTTP
		if way == tlsALPN01 {
			port, knock = g.HTTPSPort, g.knockTLS
		}
		reason, err := g.everywhere(ctx, name, addrs[:min(len(addrs), maxReached)], port, knock)
		switch {
		case err != nil:
			return "", err
		case reason == nil:
			return way, nil
		}
		r.Proven = r.Proven || errors.Is(reason, errOthers)
		reasons = append(reasons, fmt.Sprintf("no %s: %v", way, reason))
	}
	r.Reason = strings.Join(reasons, "; ")
	return "", r
}

// knock prepares one way to be validated, and returns how to try it at one address, and how to end it.
type knock func(ctx context.Context, name string) (try func(ctx context.Context, addr string) error, end func(), err error)

// everywhere knocks at a port of all addresses. A reason says why it is not ours; an error that it was not tried.
func (g *Gate) everywhere(ctx context.Context, name string, addrs []netip.Addr, port int, at knock) (reason, err error) {
	try, end, err := at(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("put the answer to a probe into the store: %w", err)
	}
	defer end()
	results := make([]error, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, reachTimeout)
			defer cancel()
			results[i] = try(ctx, net.JoinHostPort(addr.String(), strconv.Itoa(port)))
		})
	}
	wg.Wait()
	others := slices.IndexFunc(results, func(err error) bool { return errors.Is(err, errOthers) })
	if others < 0 && slices.Contains(results, nil) {
		return nil, nil
	}
	i := max(others, 0)
	return fmt.Errorf("%s: %w", net.JoinHostPort(addrs[i].String(), strconv.Itoa(port)), results[i]), nil
}

// knockHTTP is HTTP-01 (RFC 8555, Section 8.3).
func (g *Gate) knockHTTP(ctx context.Context, name string) (func(context.Context, string) error, func(), error) {
	token, answer := "stspub-"+rand.Text(), []byte(rand.Text())
	end, err := g.put(ctx, token+"+http-01", answer)
	return func(ctx context.Context, addr string) error {
		transport := &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return g.Client.Connect(ctx, addr) },
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 64 << 10,
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+name+"/.well-known/acme-challenge/"+token, http.NoBody)
		if err != nil {
			return err
		}
		req.Header.Set("User-Agent", "stspub")
		res, err := transport.RoundTrip(req)
		if err != nil {
			return unreached(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		if err != nil || res.StatusCode != http.StatusOK || !bytes.Equal(body, answer) {
			return fmt.Errorf("%w, with status %d", errOthers, res.StatusCode)
		}
		return nil
	}, end, err
}

// knockTLS is TLS-ALPN-01 (RFC 8737). The handshake proves that the server has the key of the certificate, which is in
// the store for as long as this lasts.
func (g *Gate) knockTLS(ctx context.Context, name string) (func(context.Context, string) error, func(), error) {
	leaf, encoded, err := probeCertificate(name)
	if err != nil {
		return nil, nil, err
	}
	end, err := g.put(ctx, name+"+token", encoded)
	return func(ctx context.Context, addr string) error {
		conn, err := g.Client.Connect(ctx, addr)
		if err != nil {
			return unreached(err)
		}
		secure := tls.Client(conn, &tls.Config{
			ServerName: name, NextProtos: []string{acme.ALPNProto}, MinVersion: tls.VersionTLS12,
			InsecureSkipVerify: true, // it is compared below
		})
		defer secure.Close()
		if err := secure.HandshakeContext(ctx); err != nil {
			var op *net.OpError
			if errors.As(err, &op) && op.Op == "remote error" { // an alert
				return fmt.Errorf("%w, and ends the TLS handshake: %w", errOthers, err)
			}
			return fmt.Errorf("TLS handshake: %w", err)
		}
		if !bytes.Equal(secure.ConnectionState().PeerCertificates[0].Raw, leaf) {
			return fmt.Errorf("%w, with a certificate of its own", errOthers)
		}
		return nil
	}, end, err
}

// unreached drops what the caller says anyway.
func unreached(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return op.Err
	}
	return err
}

// put has every node answer with a value, until end is called.
func (g *Gate) put(ctx context.Context, key string, value []byte) (end func(), err error) {
	key = challengePrefix + key
	if err := g.Values.SetValue(ctx, key, value); err != nil {
		return nil, err
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
		defer cancel()
		_ = g.Values.DeleteValue(ctx, key) // what stays is some bytes that nobody asks for
	}, nil
}

// probeCertificate makes a certificate for a minute, and its form in the store.
func probeCertificate(name string) (leaf, encoded []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), DNSNames: []string{name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), // nodes' clocks may differ
	}
	if leaf, err = x509.CreateCertificate(rand.Reader, t, t, key.Public(), key); err != nil {
		return nil, nil, fmt.Errorf("make certificate: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, errors.New("encode key: not a key that SEC 1 knows")
	}
	return leaf, slices.Concat(
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf}),
	), nil
}
