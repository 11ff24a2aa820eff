package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

// keyMeanings is where it stands what the configurations meant that were declared, the last one first. A node whose own
// means another thing claims nothing: it would undo what the others do.
const keyMeanings = "publish/meanings"

// meaningsKept is how many are remembered, so that an old file is known as one.
const meaningsKept = 16

// otherFile is the subject of the fault of a node that has another configuration than the others.
const otherFile = "configuration of nodes"

// meanings is what stands there.
type meanings struct {
	Node string   `json:"node"` // which declared the first
	Sums []string `json:"sums"`
}

// meaning is a sum over what a configuration says of domains, whatever it says of the node that it is on.
func meaning(conf *config.Config) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(conf.MXSets)) {
		m := conf.MXSets[name]
		fmt.Fprintf(h, "%q %q %s\n", name, m.Policy.Text(), m.Rollout)
	}
	for _, name := range slices.Sorted(maps.Keys(conf.Accounts)) {
		fmt.Fprintf(h, "%q %q\n", name, conf.Accounts[name].Provider)
	}
	fmt.Fprintf(h, "%q %+v %s\n", conf.Alias, conf.Publish, conf.Check.Every)
	for _, d := range conf.Domains {
		fmt.Fprintf(h, "%q\n", []any{d.Name, d.MXSet, d.Publish, d.Account, d.Adopt, d.TLSRPT})
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (r *Reconciler) meanings(ctx context.Context) (meanings, error) {
	var m meanings
	value, err := r.cfg.Store.Value(ctx, keyMeanings)
	if errors.Is(err, store.ErrNotFound) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(value, &m)
	}
	if err != nil {
		return m, fmt.Errorf("read which configuration was declared: %w", err)
	}
	return m, nil
}

// outdated says that another node that lives has declared another configuration after this one's, which was declared
// before: so this one's file is an old one, and is not to undo the other.
func (r *Reconciler) outdated(ctx context.Context, sum string) (bool, error) {
	if r.cfg.Node == "" {
		return false, nil
	}
	m, err := r.meanings(ctx)
	if err != nil || slices.Index(m.Sums, sum) < 1 {
		return false, err
	}
	nodes, err := r.peers(ctx, 0)
	return slices.ContainsFunc(nodes, func(n store.Node) bool { return n.Silent < silentAfter }), err
}

// mark says that a configuration is being declared, before it is: the others claim nothing from then on.
func (r *Reconciler) mark(ctx context.Context, sum string) error {
	if r.cfg.Node == "" {
		return nil
	}
	m, err := r.meanings(ctx)
	if err != nil {
		return err
	}
	m.Node = r.cfg.Node
	m.Sums = slices.Insert(slices.DeleteFunc(m.Sums, func(s string) bool { return s == sum }), 0, sum)
	m.Sums = m.Sums[:min(len(m.Sums), meaningsKept)]
	value, err := json.Marshal(m)
	if err == nil {
		err = r.cfg.Store.SetValue(ctx, keyMeanings, value)
	}
	if err != nil {
		return fmt.Errorf("keep which configuration is declared: %w", err)
	}
	return nil
}

// agrees says whether this node may claim: its configuration is the one that was declared last.
func (r *Reconciler) agrees(ctx context.Context) (bool, error) {
	if r.cfg.Node == "" {
		return true, nil
	}
	m, err := r.meanings(ctx)
	if err != nil {
		return false, err
	}
	if len(m.Sums) == 0 || m.Sums[0] == r.settings.Load().meaning {
		r.fault(otherFile, "")
		return true, nil
	}
	r.fault(otherFile, fmt.Sprintf("node %q took a configuration that says other things of domains than this node's; this one serves all that is "+
		"published, and publishes nothing: bring the same file here, and run: stspub reload", m.Node))
	return false, nil
}
