package publish

import (
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// Status is what an operator is told of one domain. It is the answer of the admin API.
type Status struct {
	Name    policygen.Name `json:"name"`
	Unicode string         `json:"unicode,omitempty"` // the name as people write it, where that differs
	Tenant  string         `json:"tenant"`
	MXSet   string         `json:"mxset"`
	Publish string         `json:"publish"`
	Account string         `json:"account"`
	Owner   string         `json:"owner"`
	ETag    string         `json:"etag,omitempty"` // of what is declared; see [Change]

	Step     string          `json:"step"`             // dns, cert, body, settle, txt, verify, delegation, live; drain, adopt, …
	Reason   string          `json:"reason,omitempty"` // what it waits for
	Fault    bool            `json:"fault"`            // Reason needs a human
	Findings []store.Finding `json:"findings,omitempty"`
	Since    time.Time       `json:"since"`
	Due      time.Time       `json:"due"` // when it is looked at next
	Checked  time.Time       `json:"checked,omitzero"`
	Draining bool            `json:"draining"`
	Horizon  time.Time       `json:"horizon,omitzero"` // when a draining domain's last policy has expired everywhere

	Stage    string    `json:"stage,omitempty"`   // "testing until …" while a roll-out lasts
	Detached time.Time `json:"detached,omitzero"` // since when a domain of a shared record has its own

	Policy      string   `json:"policy"`       // as served
	ID          string   `json:"id,omitempty"` // as verified
	Intended    string   `json:"intended,omitempty"`
	Record      string   `json:"record,omitempty"`
	Records     []string `json:"records"`           // what the customer puts into DNS, as zone-file lines; see [Records]
	TLSRPT      *TLSRPT  `json:"tlsrpt,omitempty"`  // nil: none is wanted
	Certificate string   `json:"certificate"`       // empty for a shared record
	History     []Past   `json:"history,omitempty"` // only for one domain

	// Leaving are MX that policies list which senders may hold still, and the present one does not. Only for one domain.
	Leaving []PlanLeaving `json:"mx_removed,omitempty"`
}

// Past is one policy of a domain's history.
type Past struct {
	Policy  string    `json:"policy"`
	Foreign bool      `json:"foreign,omitempty"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to,omitzero"`
}

// ReloadReport says what a reload did, or would do and did not.
type ReloadReport struct {
	Added    int      `json:"added"`
	Changed  int      `json:"changed"`
	Removed  int      `json:"removed"`
	Restored int      `json:"restored"`
	Forced   []string `json:"forced,omitempty"` // what --force let through: domains, removals, a clock jump
	Plan     *Plan    `json:"plan,omitempty"`   // what was foreseen; nil where a configuration is taken at start
	Warnings []string `json:"warnings,omitempty"`
}
