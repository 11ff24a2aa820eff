package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// fleet is a cluster for two hosters who do not know of each other. What they have came by the API, and a change of an MX
// set of theirs publishes all their domains.
type fleet struct {
	*cluster
	tenants   []*tenant
	rounds    int                       // changes so far
	announced map[string]publish.Status // as each domain was seen live last
}

// tenant is one hoster.
type tenant struct {
	name     string
	token    string
	domains  []string
	mx       []string
	policies []string // that were configured, the last one last
}

// newFleet makes a cluster that nobody uses yet; each tenant will have so many domains.
func newFleet(t *testing.T, kind string, each int) *fleet {
	t.Helper()
	f := &fleet{cluster: newCluster(t, kind), announced: make(map[string]publish.Status)}
	f.settings.acmeTail = "domain_orders = 1000\nper_second = 200\n"
	f.settings.every = "10s"
	f.cluster.change("mx1.provider.test")
	f.aliased = make(map[string]string)
	f.set("*."+hostname, "A", f.ip)
	for _, name := range []string{"alpha", "beta"} {
		tn := &tenant{name: name, mx: []string{"mx1.provider.test"}}
		tn.note()
		for i := range each {
			d := fmt.Sprintf("%s%02d.provider.test", name, i+1)
			f.set("mta-sts."+d, "CNAME", name+"."+hostname+".")
			f.set(d, "MX", "10 mx1.provider.test.")
			f.aliased[d] = publish.RecordName(aliasZone, store.Domain{Name: policygen.Name(d), Tenant: name, Publish: store.PublishAlias})
			tn.domains = append(tn.domains, d)
		}
		f.tenants = append(f.tenants, tn)
	}
	return f
}

// note keeps the policy that the tenant's MX stand for.
func (tn *tenant) note() {
	tn.policies = append(tn.policies, fmt.Sprintf("version: STSv1\r\nmode: enforce\r\nmax_age: 86400\r\nmx: %s\r\n", strings.Join(tn.mx, "\r\nmx: ")))
}

func (tn *tenant) last() string { return tn.policies[len(tn.policies)-1] }

// domains counts those of all tenants.
func (f *fleet) domains() int { return len(f.aliased) }

// enter has the tenants come, each with a token for its panel, and claim their domains; senders begin to look.
func (f *fleet) enter() {
	f.t.Helper()
	ctx := f.t.Context()
	one := f.members[0].admin
	for _, tn := range f.tenants {
		if _, err := one.AddTenant(ctx, httpd.NewTenant{Name: tn.name}); err != nil {
			f.t.Fatal(err)
		}
		token, err := one.As("", tn.name).AddToken(ctx, httpd.NewToken{Role: store.RoleAdmin})
		if err != nil {
			f.t.Fatal(err)
		}
		tn.token = token.Token
		f.put(tn)
		for _, d := range tn.domains {
			if _, err := one.As(tn.token, "").PutDomain(ctx, d, httpd.DomainSpec{MXSet: "own", Publish: store.PublishAlias}, false); err != nil {
				f.t.Fatal(err)
			}
			f.lookOutFor(d, 300*time.Millisecond, func() []string { return tn.policies })
		}
	}
}

// look has a tenant's claims looked at now.
func (f *fleet) look(tn *tenant) {
	f.t.Helper()
	err := f.somewhere(func(c *httpd.Client) error {
		claims, err := c.As(tn.token, "").Claims(context.Background())
		for _, claim := range claims {
			err = errors.Join(err, f.post(tn, "/v1/claims/"+string(claim.Name)+"/look"))
		}
		return err
	})
	if err != nil {
		f.t.Logf("claims of %s not looked at: %v", tn.name, err)
	}
}

// post sends what no command does to the first node, as the panel of a tenant.
func (f *fleet) post(tn *tenant, path string) error {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", f.path(f.members[0].name+".sock"))
	}}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://localhost"+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+tn.token)
	resp, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// somewhere asks nodes in turn until one answers.
func (f *fleet) somewhere(ask func(*httpd.Client) error) error {
	var err error
	for _, m := range f.members {
		if err = ask(m.admin); err == nil {
			return nil
		}
	}
	return err
}

// put has the service know a tenant's MX. A node may be killed at it.
func (f *fleet) put(tn *tenant) {
	f.t.Helper()
	spec := httpd.MXSetSpec{Mode: "enforce", MaxAge: 86400, MX: tn.mx}
	f.until("MX set of "+tn.name, patience, func() (bool, string) {
		err := f.somewhere(func(c *httpd.Client) error {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, err := c.As(tn.token, "").PutMXSet(ctx, "own", spec)
			return err
		})
		return err == nil, errText(err)
	})
}

// change has both tenants add an MX.
func (f *fleet) change() {
	f.t.Helper()
	f.rounds++
	for _, tn := range f.tenants {
		tn.mx = append(tn.mx, fmt.Sprintf("mx%d.%s.test", f.rounds+1, tn.name))
		tn.note()
		f.put(tn)
	}
}

// statuses is what a node that answers says of a tenant's domains.
func (f *fleet) statuses(tn *tenant) (map[string]publish.Status, error) {
	all := make(map[string]publish.Status)
	err := f.somewhere(func(c *httpd.Client) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		clear(all)
		return c.As(tn.token, "").Find(ctx, httpd.DomainQuery{}, func(s publish.Status) error {
			all[string(s.Name)] = s
			return nil
		})
	})
	return all, err
}

// live waits until all domains but a few are live under the last policy of their tenant.
func (f *fleet) live(limit time.Duration, but int) {
	f.t.Helper()
	f.settled(limit, but, func(s publish.Status) bool { return true })
}

// lease is after how long a domain is free that nobody works on, when the one who took it had no answer that he did.
const lease = 4 * time.Minute

// settled is live for domains about which more is to be true.
func (f *fleet) settled(limit time.Duration, but int, good func(publish.Status) bool) {
	f.t.Helper()
	f.until(fmt.Sprintf("%d domains live", f.domains()-but), limit+lease, func() (bool, string) {
		there, others := 0, []string(nil)
		for _, tn := range f.tenants {
			all, err := f.statuses(tn)
			if err != nil {
				return false, err.Error()
			}
			for name, s := range all {
				// In the midst of a pass the step is still that before, so another policy has to have another id.
				had := f.announced[name]
				if s.Step == publish.StepLive && s.Intended == "" && s.Policy == tn.last() && (had.Policy == s.Policy || had.ID != s.ID) && good(s) {
					f.announced[name] = s
					there++
				} else {
					others = append(others, fmt.Sprintf("%s: step %s, %s, %+v, id %q before %q, intended %q, policy %q", name, s.Step, s.Reason, s.Findings,
						s.ID, had.ID, s.Intended, s.Policy))
				}
			}
		}
		slices.Sort(others)
		return there >= f.domains()-but, strings.Join(others, "\n")
	})
}

// begin plays the customers, who set the second CNAME when they are told to, until all domains are live. Where a node was
// killed while it looked for the proof of a claim, or while the authority looked at it, the tenant does not wait until that
// is done again by itself: he asks for it.
func (f *fleet) begin(meanwhile func()) {
	f.t.Helper()
	set, again, claimed := make(map[string]bool), make(map[string]int), time.Now()
	f.until("all domains delegated", 2*patience, func() (bool, string) {
		meanwhile()
		var steps []string
		for _, tn := range f.tenants {
			all, err := f.statuses(tn)
			if err != nil {
				return false, err.Error()
			}
			if len(all) < len(tn.domains) && time.Since(claimed) > 15*time.Second {
				claimed = time.Now()
				f.look(tn)
			}
			for name, s := range all {
				steps = append(steps, fmt.Sprintf("%s: %s %s", name, s.Step, s.Reason))
				if s.Step == publish.StepDelegation && !set[name] {
					f.set("_mta-sts."+name, "CNAME", s.Record+".")
					set[name] = true
				}
				if s.Step == publish.StepCert && s.Fault && again[name] < 3 {
					again[name]++
					_ = f.somewhere(func(c *httpd.Client) error { return c.As(tn.token, "").Retry(context.Background(), name) })
				}
			}
		}
		return len(set) == f.domains(), strings.Join(steps, "\n")
	})
	f.live(2*patience, 0)
}

// audit looks into books, DNS and answers when all is over, and returns how many publications there were: ids that were
// verified.
func (f *fleet) audit() int {
	f.t.Helper()
	f.live(patience, 0)
	of := make(map[policygen.Name]*tenant)
	for _, tn := range f.tenants {
		for _, d := range tn.domains {
			of[policygen.Name(d)] = tn
		}
	}
	verified, texts := 0, make(map[string]string)
	err := f.books().EachDomain(f.t.Context(), func(d store.Domain) error {
		tn := of[d.Name]
		if tn == nil || d.Tenant != tn.name {
			return fmt.Errorf("%s belongs to %s", d.Name, d.Tenant)
		}
		delete(of, d.Name)
		verified += f.auditDomain(tn, d, texts)
		return nil
	})
	if err != nil || len(of) > 0 {
		f.t.Errorf("lost: %v, %v", slices.Collect(maps.Keys(of)), err)
	}
	f.auditOrders()
	for _, m := range f.members {
		f.auditApart(m)
	}
	return verified
}

// auditDomain compares a domain with DNS and its books. texts are the ids of all domains, and what they stand for.
func (f *fleet) auditDomain(tn *tenant, d store.Domain, texts map[string]string) (verified int) {
	f.t.Helper()
	name := string(d.Name)
	if s := d.State; s.Served != tn.last() || s.Dirty || s.Tainted || s.Record != f.aliased[name] {
		f.t.Errorf("%s: served %q, dirty %t, tainted %t, record %s", name, s.Served, s.Dirty, s.Tainted, s.Record)
	}
	if got := f.txt("_mta-sts." + name); len(got) != 1 || got[0] != value(d.State.ID) {
		f.t.Errorf("%s TXT = %q, want id %s", name, got, d.State.ID)
	}
	ids, err := f.books().IDs(f.t.Context(), d.State.Record)
	if err != nil {
		f.t.Error(err)
	}
	for _, id := range ids {
		if old, twice := texts[id.ID]; twice || !slices.Contains(tn.policies, id.Text) {
			f.t.Errorf("%s: id %s stands for %q and %q", name, id.ID, id.Text, old)
		}
		texts[id.ID] = id.Text
		if !id.Verified.IsZero() {
			verified++
		}
	}
	if i := slices.IndexFunc(ids, func(w store.WrittenID) bool { return w.ID == d.State.ID }); i < 0 || ids[i].Text != tn.last() {
		f.t.Errorf("%s: id %s is not in the books with %q", name, d.State.ID, tn.last())
	}
	history, err := f.books().History(f.t.Context(), d.Name)
	if err != nil || len(history) == 0 || history[len(history)-1].Text != tn.last() {
		f.t.Errorf("%s: history %+v, %v", name, history, err)
	}
	for _, h := range history {
		if !slices.Contains(tn.policies, h.Text) {
			f.t.Errorf("%s: %q was served, which is not of %s", name, h.Text, tn.name)
		}
	}
	return verified
}

// auditOrders compares what the authority got with the journal and the logs: a name is ordered once, and again only where an
// order came to nothing, or a kill cut it off before its end was written down.
func (f *fleet) auditOrders() {
	f.t.Helper()
	entries, err := f.books().Journal(f.t.Context(), 0)
	if err != nil {
		f.t.Fatal(err)
	}
	entered, nothing := make(map[string]int), make(map[string]int)
	for _, e := range entries {
		if entered[e.Name]++; e.Failed && e.Ended.Equal(e.Begun) {
			nothing[e.Name]++
		}
	}
	for _, m := range f.members {
		for line := range strings.Lines(string(f.read(m.name + ".log"))) {
			if strings.Contains(line, `"msg":"no certificate"`) {
				_, rest, _ := strings.Cut(line, `"domain":"`)
				name, _, _ := strings.Cut(rest, `"`)
				nothing[name]++
			}
		}
	}
	sent := f.orders.all()
	for d := range f.aliased {
		name := policygen.Name(d).PolicyHost()
		if n := sent[name]; n == 0 || n > entered[name] || n > 1+nothing[name] {
			f.t.Errorf("%s: %d orders sent, %d entered, %d of them came to nothing", name, n, entered[name], nothing[name])
		}
	}
}

// auditApart sees that a node tells and serves each tenant what is his.
func (f *fleet) auditApart(m *member) {
	f.t.Helper()
	for i, tn := range f.tenants {
		as := m.admin.As(tn.token, "")
		var all []string
		err := as.Find(f.t.Context(), httpd.DomainQuery{}, func(s publish.Status) error {
			all = append(all, string(s.Name))
			if s.Tenant != tn.name {
				return fmt.Errorf("it is told of a domain of %s", s.Tenant)
			}
			return nil
		})
		if slices.Sort(all); err != nil || !slices.Equal(all, tn.domains) {
			f.t.Errorf("%s says to %s: %q, %v", m.name, tn.name, all, err)
		}
		foreign := f.tenants[1-i].domains[0]
		if _, err := as.Domain(f.t.Context(), foreign); !errors.Is(err, store.ErrNotFound) {
			f.t.Errorf("%s says to %s about %s: %v", m.name, tn.name, foreign, err)
		}
		for _, d := range tn.domains {
			if body, err := fetch(m.sender(d, false), d); err != nil || body != tn.last() {
				f.t.Errorf("%s serves for %s %q, %v", m.name, d, body, err)
			}
		}
	}
}
