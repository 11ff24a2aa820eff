package publish

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// Account is a DNS account as the API shows it: without anything secret.
type Account struct {
	Name     string `json:"name"`
	Owner    string `json:"owner"` // "file" or "api"
	Provider string `json:"provider"`
}

// Accounts returns the accounts of a tenant by name.
func (r *Reconciler) Accounts(tenant string) []Account {
	set := r.settings.Load()
	all := []Account{}
	for k, a := range set.accounts {
		if k.tenant != tenant {
			continue
		}
		account := Account{Name: k.name, Owner: store.OwnerFile, Provider: set.conf.Accounts[k.name].Provider}
		if _, own := set.owned.accounts[k]; own {
			account.Owner, account.Provider = store.OwnerAPI, a.Provider()
		}
		all = append(all, account)
	}
	slices.SortFunc(all, func(a, b Account) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// PutAccount declares a DNS account of a tenant by the API. If zone is not empty, the account first has to read there, else
// its provider, where it can, judges its credentials; what came of it is returned in words, and nothing is written. An account that does not open or read is an [*InvalidError],
// one of the file a [*store.OwnedError].
func (r *Reconciler) PutAccount(ctx context.Context, tenant string, a config.Account, zone string) (string, error) {
	if err := cmp.Or(checkLabel("tenant", tenant), checkLabel("name", a.Name)); err != nil {
		return "", err
	}
	if err := r.notFiles(tenant, a.Name); err != nil {
		return "", err
	}
	if err := checkOwned(a); err != nil {
		return "", err
	}
	open, err := r.cfg.OpenAccount(tenant, a)
	if err != nil {
		return "", invalid("account", "%s", err)
	}
	said, err := r.checkAccount(ctx, tenant, a, zone)
	if err != nil {
		return "", err
	}
	settings, err := json.Marshal(settingsOf(a))
	if err != nil {
		return "", fmt.Errorf("keep account %q: %w", a.Name, err)
	}
	kept := store.Account{Tenant: tenant, Name: a.Name, Provider: a.Provider, Settings: settings}
	if err := r.takeAccount(ctx, kept, open); err != nil {
		return "", err
	}
	// Those are looked at whom the old account may have failed, and there may be many, so others do not wait for it.
	if err := r.cfg.Store.WakeFaulty(ctx, tenant, a.Name, r.now()); err != nil {
		return "", fmt.Errorf("have the domains of account %q looked at: %w", a.Name, err)
	}
	r.poke()
	return said, nil
}

// takeAccount has an open account of the API replace the one of its name.
func (r *Reconciler) takeAccount(ctx context.Context, a store.Account, open dnsupdate.Account) error {
	r.reload.Lock()
	defer r.reload.Unlock()
	if err := r.notFiles(a.Tenant, a.Name); err != nil { // a reload may have come first
		return err
	}
	k := key{a.Tenant, a.Name}
	next := r.settings.Load().with(func(o *owned) { o.accounts[k], o.sums[k] = open, sumOf(a) })
	if _, err := r.swap(next, func() (bool, error) { return true, r.cfg.Store.PutAccount(ctx, a) }); err != nil {
		return err
	}
	r.accountFault(k, "")
	r.pokeClaims()
	return nil
}

// accountFault keeps, or with an empty reason clears, the fault of an account of the API.
func (r *Reconciler) accountFault(k key, reason string) {
	r.fault("account "+k.tenant+"/"+k.name, reason)
}

// checkOwned refuses an account that shows its server no key: where the server takes updates by the address that they come
// from, that address is ours, and whoever declares the account would write into zones that are not his.
func checkOwned(a config.Account) error {
	if a.Provider == "rfc2136" && (a.KeyName == "" || a.Key == "") {
		return invalid("key_name", "missing; an account of the API needs the TSIG key of its server, so put key_name and key")
	}
	return nil
}

// checkAccount has an account read, and says what came of it.
func (r *Reconciler) checkAccount(ctx context.Context, tenant string, a config.Account, zone string) (string, error) {
	if r.cfg.CheckAccount == nil {
		return "not tried", nil
	}
	if zone == "" {
		return r.checkCredentials(ctx, tenant, a)
	}
	name, err := policygen.ParseName(zone)
	if err != nil {
		return "", invalidBy("zone", err)
	}
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	if err := r.cfg.CheckAccount(ctx, tenant, a, string(name)); err != nil {
		return "", invalid("account", "%s", err)
	}
	return fmt.Sprintf("the account reads the zone %s", name), nil
}

// checkCredentials has the provider judge the credentials of an account. Only that it refuses them is an error: who names no
// zone may declare the account while the provider is away.
func (r *Reconciler) checkCredentials(ctx context.Context, tenant string, a config.Account) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	err := r.cfg.CheckAccount(ctx, tenant, a, "")
	refused, ok := errors.AsType[*dnsupdate.Error](err)
	switch {
	case err == nil:
		return "the provider takes the credentials; to have a zone read, name one", nil
	case ok && refused.Kind == dnsupdate.KindAuth:
		return "", invalid("account", "%s", err)
	}
	return fmt.Sprintf("not tried: %s; name a zone that the account is to read", err), nil
}

// notFiles refuses an account of the configuration file.
func (r *Reconciler) notFiles(tenant, name string) error {
	if _, there := r.settings.Load().conf.Accounts[name]; there && tenant == Tenant {
		return &store.OwnedError{What: "account", Name: name, Owner: store.OwnerFile}
	}
	return nil
}

// DeleteAccount forgets an account of the API. While a domain needs it, also one that drains, that is a
// [*store.InUseError].
func (r *Reconciler) DeleteAccount(ctx context.Context, tenant, name string) error {
	r.reload.Lock()
	defer r.reload.Unlock()
	if err := r.notFiles(tenant, name); err != nil {
		return err
	}
	k := key{tenant, name}
	next := r.settings.Load().with(func(o *owned) {
		delete(o.accounts, k)
		delete(o.sums, k)
	})
	_, err := r.swap(next, func() (bool, error) { return true, r.cfg.Store.DeleteAccount(ctx, tenant, name) })
	if err == nil {
		r.accountFault(k, "")
	}
	return err
}

// accountSettings are those of a [config.Account] that the store keeps, with its secrets, which do not print otherwise.
type accountSettings struct {
	APIToken     string `json:"api_token,omitempty"`
	APIURL       string `json:"api_url,omitempty"`
	KeyID        string `json:"key_id,omitempty"`
	SubUser      bool   `json:"sub_user,omitempty"`
	Secret       string `json:"secret,omitempty"`
	ConsumerKey  string `json:"consumer_key,omitempty"`
	Server       string `json:"server,omitempty"`
	KeyName      string `json:"key_name,omitempty"`
	KeyAlgorithm string `json:"key_algorithm,omitempty"`
	Key          string `json:"key,omitempty"`
	APIKey       string `json:"api_key,omitempty"`
	ServerID     string `json:"server_id,omitempty"`
}

func settingsOf(a config.Account) accountSettings {
	return accountSettings{
		APIToken: string(a.APIToken), APIURL: a.APIURL, KeyID: a.KeyID, SubUser: a.SubUser, Secret: string(a.Secret),
		ConsumerKey: string(a.ConsumerKey), Server: a.Server, KeyName: a.KeyName, KeyAlgorithm: a.KeyAlgorithm, Key: string(a.Key),
		APIKey: string(a.APIKey), ServerID: a.ServerID,
	}
}

// readSettings is the configuration of an account of the store.
func readSettings(a store.Account) (config.Account, error) {
	var s accountSettings
	if json.Unmarshal(a.Settings, &s) != nil { // its words would quote from a secret
		return config.Account{}, fmt.Errorf("read the settings of account %q: they are no JSON", a.Name)
	}
	return config.Account{
		Name: a.Name, Provider: a.Provider, APIToken: config.Secret(s.APIToken), APIURL: s.APIURL, KeyID: s.KeyID, SubUser: s.SubUser,
		Secret: config.Secret(s.Secret), ConsumerKey: config.Secret(s.ConsumerKey), Server: s.Server, KeyName: s.KeyName,
		KeyAlgorithm: s.KeyAlgorithm, Key: config.Secret(s.Key), APIKey: config.Secret(s.APIKey), ServerID: s.ServerID,
	}, nil
}
