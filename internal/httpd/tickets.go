package httpd

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/store"
)

const (
	// keyTickets is where the keys of session tickets are in the store, so that all nodes, and the next process, take up
	// each other's sessions.
	keyTickets = "tls/tickets"
	// ticketDay is how long tickets are made with one key.
	ticketDay = 24 * time.Hour
	// ticketKeys are kept: the one that tickets are made with, and those before it, which only open. So a ticket lasts for
	// two days at least, and its secrecy is lost for three at most. RFC 8446, Section 4.6.1 allows seven.
	ticketKeys = 3
	// ticketEvery is how often the keys are looked at, and ticketLead how old a key is before tickets are made with it: by
	// then every node has seen it.
	ticketEvery = 15 * time.Minute
	ticketLead  = time.Hour
)

// Values is the part of the store that [Public] needs; [store.Store] has it.
type Values interface {
	Value(ctx context.Context, key string) ([]byte, error)
	SetValue(ctx context.Context, key string, value []byte) error
	EnsureValue(ctx context.Context, key string, value []byte) ([]byte, error)
}

// ticketKey is one key. It is written as JSON.
type ticketKey struct {
	Made time.Time `json:"made"`
	Key  [32]byte  `json:"key"`
}

// tickets keeps the keys of session tickets, of TLS 1.2 and 1.3.
type tickets struct {
	values Values
	config *tls.Config
	serves func(name string) bool
	log    *slog.Logger
}

// newTickets has config make and take tickets, once run. Before, and without values, it makes none.
//
// A ticket is only good for the name that it was made for, as RFC 6066, Section 3 demands, and while there is a certificate
// for it: a session that is taken up needs none by itself.
func newTickets(config *tls.Config, values Values, serves func(name string) bool, log *slog.Logger) *tickets {
	t := &tickets{values: values, config: config, serves: serves, log: log}
	config.SessionTicketsDisabled = values == nil
	config.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		ss.Extra = append(ss.Extra, ticketName(cs.ServerName))
		return config.EncryptTicket(cs, ss)
	}
	config.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		ss, err := config.DecryptTicket(identity, cs)
		if err != nil || ss == nil || !serves(cs.ServerName) ||
			!slices.ContainsFunc(ss.Extra, func(e []byte) bool { return string(e) == string(ticketName(cs.ServerName)) }) {
			return nil, nil //nolint:nilerr,nilnil // a full handshake follows
		}
		return ss, nil
	}
	return t
}

// ticketName is what a ticket holds of its name. Others than we may put something into a ticket, each with a mark before it.
func ticketName(serverName string) []byte {
	return []byte("stspub:" + strings.ToLower(strings.TrimSuffix(serverName, ".")))
}

// load takes the keys from the store, and puts a new one there when it is time. With the store out of reach the node goes
// on with the keys that it has, or makes one for itself.
func (t *tickets) load(ctx context.Context, now time.Time) error {
	keys, err := t.read(ctx)
	if err == nil && due(keys, now) {
		fresh := ticketKey{Made: now.UTC()}
		_, _ = rand.Read(fresh.Key[:]) // never fails
		if keys == nil {               // tickets are made with it at once, so that of nodes that start together only one may make it
			keys, err = t.found(ctx, fresh)
		} else { // of nodes that do this at the same time all keys but one are lost, before a ticket was made with them
			keys = append([]ticketKey{fresh}, keys[:min(len(keys), ticketKeys)]...)
			err = t.write(ctx, keys)
		}
	}
	if err != nil {
		return err
	}
	t.config.SetSessionTicketKeys(order(keys, now))
	return nil
}

// found returns the first keys of all: those with fresh, or what another node was quicker to keep.
func (t *tickets) found(ctx context.Context, fresh ticketKey) ([]ticketKey, error) {
	value, err := json.Marshal([]ticketKey{fresh})
	if err == nil {
		value, err = t.values.EnsureValue(ctx, keyTickets, value)
	}
	if err != nil {
		return nil, fmt.Errorf("keep the keys of session tickets: %w", err)
	}
	if keys := readKeys(value); keys != nil {
		return keys, nil
	}
	// What is there cannot be read.
	keys := []ticketKey{fresh}
	return keys, t.write(ctx, keys)
}

// due says whether a new key is to be made: the newest is as old as that it has been in use for a day soon. Keys from the
// future, when the clock was wrong, are not waited for.
func due(keys []ticketKey, now time.Time) bool {
	return len(keys) == 0 || now.Sub(keys[0].Made) >= ticketDay || keys[0].Made.Sub(now) > ticketLead
}

// order puts the key first that tickets are made with: the newest that every node knows.
func order(keys []ticketKey, now time.Time) [][32]byte {
	i := slices.IndexFunc(keys, func(k ticketKey) bool { return now.Sub(k.Made) >= ticketLead })
	if i < 0 {
		i = len(keys) - 1
	}
	ordered := [][32]byte{keys[i].Key}
	for j, k := range keys {
		if j != i {
			ordered = append(ordered, k.Key)
		}
	}
	return ordered
}

func (t *tickets) read(ctx context.Context) ([]ticketKey, error) {
	value, err := t.values.Value(ctx, keyTickets)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the keys of session tickets: %w", err)
	}
	return readKeys(value), nil
}

// readKeys returns nil for what is no list of keys, and in its place new ones are made.
func readKeys(value []byte) []ticketKey {
	var keys []ticketKey
	if json.Unmarshal(value, &keys) != nil || len(keys) == 0 || len(keys) > ticketKeys+1 { // the cause could quote a key
		return nil
	}
	return keys
}

func (t *tickets) write(ctx context.Context, keys []ticketKey) error {
	value, err := json.Marshal(keys)
	if err == nil {
		err = t.values.SetValue(ctx, keyTickets, value)
	}
	if err != nil {
		return fmt.Errorf("keep the keys of session tickets: %w", err)
	}
	return nil
}

// run looks at the keys until ctx ends.
func (t *tickets) run(ctx context.Context) {
	if t.values == nil {
		return
	}
	tick := time.NewTicker(ticketEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if err := t.load(ctx, now); err != nil && ctx.Err() == nil {
				t.log.Warn("keys of session tickets not looked at", "err", err)
			}
		}
	}
}

// begin makes a key that only this process knows, and then takes those of the store, if it can.
func (t *tickets) begin(ctx context.Context) {
	if t.values == nil {
		return
	}
	var own [32]byte
	_, _ = rand.Read(own[:]) // never fails
	t.config.SetSessionTicketKeys([][32]byte{own})
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // nobody waits for a store to be served
	defer cancel()
	if err := t.load(ctx, time.Now()); err != nil {
		t.log.Warn("sessions of other nodes and of the last run are not taken up", "err", err)
	}
}
