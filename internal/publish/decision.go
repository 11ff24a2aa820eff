package publish

import (
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// Want is what is desired of a domain, and what the decision has to know beside its state.
type Want struct {
	Name      policygen.Name
	Policy    string // the text to serve; for a draining domain the one with mode none
	Drain     bool
	Adopt     bool // a foreign STSv1 record may be replaced
	Alias     bool // the record lies in our alias zone, and the customer's _mta-sts is a CNAME to it
	Manual    bool // the customer writes the record
	Wildcard  bool // this is a shared record, not a domain
	Announced bool // a record of ours may stand in DNS
	Stale     bool // State.Intended was committed by an earlier process
	Unseen    bool // its record is still to be compared with the store, as after every start
	Restored  bool // the store was found to be an old copy since the domain came: senders may hold what it does not know
	Record    string
	Home      string // where Record belongs, while it stands where it did with another tenant; else empty

	Shared   *Shared       // the shared record of the domain's MX set; nil: it has none
	Attached int           // domains that need a shared record which drains
	Parting  int           // domains that leave a shared record just now, and whose own is not seen yet
	Staging  int           // domains attached to a shared record whose roll-out is over, and whose own is not
	Waiting  int           // domains that could be attached to a shared record if its id were newer; counted when that is old
	Rollout  time.Duration // Policy is in mode testing for so long before it is promoted; zero: it is what it is to be

	Settle  time.Duration // after a changed body was seen live
	TTL     time.Duration // of the record
	MaxAge  time.Duration // the largest max_age ever served for the domain, mode none left out
	FreshID string        // an id that nobody ever saw, for the case that one is needed

	HoldStart string // why no drain may begin; empty: it may
	HoldEnd   string // why nothing may be deleted; empty: it may. Alone it passes by itself.
}

// Shared is what a domain has to know of the shared record of its MX set.
type Shared struct {
	Text  string    // what all that are attached serve
	Next  string    // what they are to serve; another than Text while that publication has not begun
	ID    string    // as verified; empty: none yet
	Clean bool      // ID stands for Text
	Made  time.Time // when ID was made
	Home  bool      // the domain's own record lies below it

	Pinned bool // an operator keeps the MX set in mode testing
}

// Seen is what was looked at in this pass. A nil part was not looked at.
type Seen struct {
	Prior      *Prior
	Host       *Host
	Cert       *Cert
	Body       *Body
	TXT        *TXT
	MX         *MX
	Delegation *Delegation
	Ready      *Ready
	Quota      *Quota
}

// Prior is what stood in DNS when the domain came.
type Prior struct {
	Existed bool // a policy host or an _mta-sts record existed, or may have
	Record  bool // an _mta-sts record did, so senders look for a policy
}

// Host is where the policy host points.
type Host struct {
	Ours   bool          // the CNAME is our target, or every address is ours
	Proven bool          // every authoritative server says that it is not ours
	TTL    time.Duration // how long caches may hold another place, where it points or where we were; zero: none
	Reason string        // why it is not ours
}

// Cert is the certificate of the policy host.
type Cert struct {
	Valid    bool
	Reason   string    // why it is not
	Fault    bool      // the CA refused
	NotAfter time.Time // its end
	Problem  string    // why the last order failed, also of a valid one; empty: it did not
	Late     bool      // it is valid, and should have been renewed long ago
	Queue    string    // its place in the queue of orders, and when its turn is; empty: it waits for none
}

// Body is the policy as it is seen at every node and by its public name.
type Body struct {
	Live    bool          // it is State.Served, byte for byte
	LiveFor time.Duration // since when without interruption, by the monotonic clock
	Reason  string
	Behind  bool     // some node is to take State.Served yet
	Passed  []string // nodes that are waited for no more, and may serve another text
}

// MX is the domain's MX in DNS against Want.Policy.
type MX struct {
	Known     bool
	Uncovered []string // hosts that no pattern of the policy matches
	Reason    string   // why it is not known
}

// TXT is what the authoritative servers answer for the record.
type TXT struct {
	Zone    string
	Servers []Server
	Ours    []string // those STSv1 values seen whose id was ever intended here
	// Shared are the values that the shared record makes up at this name. They are not in Servers.
	Shared []string
}

// Server is the answer of one authoritative server.
type Server struct {
	Name   string
	Err    string   // it did not answer; the rest is empty
	CNAME  string   // the name is a CNAME to this
	STS    []string // TXT values that begin with v=STSv1
	Others int      // other TXT at the name
	Bare   bool     // other TXT stand where the shared record would answer: a tombstone
	TTL    time.Duration
}

// Delegation is where the customer's _mta-sts leads.
type Delegation struct {
	Ours   bool
	Home   bool // it leads to Want.Home already
	Failed bool // no name server answered
	Reason string
}

// Look is something to be looked at before a decision is possible.
type Look int

// What there is to look at. The zero Look is nothing.
const (
	LookPrior Look = iota + 1
	LookHost
	LookCert
	LookBody
	LookTXT
	LookMX
	LookDelegation
	LookReady // for the policy in mode enforce
	LookQuota
)

// Effect is something to be done in the world.
type Effect int

// What there is to do. State is committed before.
const (
	DoNothing Effect = iota
	DoServe          // serve State.Served from now on
	DoWrite          // Add comes, Remove goes, in one step
	DoDelete         // Remove goes
	DoForget         // stop serving, delete the certificate and the domain
)

// Decision is the next thing to do for one domain: look at Look, or else commit State, then do Do, and decide again
// unless Wait is set.
type Decision struct {
	Look   Look
	State  store.State
	Do     Effect
	Add    string
	Remove []string
	// Limited says that the write may be refused because the tenant has used up those of a day.
	Limited bool
	Why     string        // what was found, when the record is to be written or replaced
	Wait    bool          // nothing more can be done now
	After   time.Duration // when Wait: decide again then; zero: growing pauses
}
