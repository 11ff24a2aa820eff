package publish

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
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
	ETag     string `json:"etag,omitempty"` // one of the file has none
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
			account.Owner, account.Provider, account.ETag = store.OwnerAPI, a.Provider(), set.owned.marks[k].version
		}
		all = append(all, account)
	}
	slices.SortFunc(all, func(a, b Account) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// PutAccount declares a DNS account of a tenant by the API. If zone is not empty, the account first has to read there, else
// its provider, where it can, judges its credentials; what came of it is returned in words, and nothing is written. An account
// that does not open or read is an [*InvalidError], one of the file a [*store.OwnedError]. IfMatch is as in
// [Reconciler.PutMXSet]. The ETag is another one each time, and tells nothing of the credentials.
func (r *Reconciler) PutAccount(ctx context.Context, tenant string, a config.Account, zone, ifMatch string) (Account, string, error) {
	if err := cmp.Or(checkLabel("tenant", tenant), checkLabel("name", a.Name)); err != nil {
		return Account{}, "", err
	}
	if err := r.notFiles(tenant, a.Name); err != nil {
		return Account{}, "", err
	}
	if err := checkOwned(a); err != nil {
		return Account{}, "", err
	}
	open, err := r.cfg.OpenAccount(tenant, a)
	if err != nil {
		return Account{}, "", badAccount(tenant, err)
	}
	said, err := r.checkAccount(ctx, tenant, a, zone)
	if err != nil {
		return Account{}, "", err
	}
	kept, err := keptAccount(tenant, a)
	if err != nil {
		return Account{}, "", err
	}
	if err := r.takeAccount(ctx, kept, open, ifMatch); err != nil {
		return Account{}, "", err
	}
	// Those are looked at whom the old account may have failed, and there may be many, so others do not wait for it.
	if err := r.cfg.Store.WakeFaulty(ctx, tenant, a.Name, r.now()); err != nil {
		return Account{}, "", fmt.Errorf("have the domains of account %q looked at: %w", a.Name, err)
	}
	r.poke()
	return Account{a.Name, store.OwnerAPI, a.Provider, kept.Version}, said, nil
}

// keptAccount is an account as the store keeps it, with an ETag that nobody had before.
func keptAccount(tenant string, a config.Account) (store.Account, error) {
	settings, err := json.Marshal(settingsOf(a))
	if err != nil {
		return store.Account{}, fmt.Errorf("keep account %q: %w", a.Name, err)
	}
	version := make([]byte, 16)
	_, _ = rand.Read(version) // it never fails
	return store.Account{
		Tenant: tenant, Name: a.Name, Provider: a.Provider, Settings: settings, Version: hex.EncodeToString(version),
	}, nil
}

// takeAccount has an open account of the API replace the one of its name.
func (r *Reconciler) takeAccount(ctx context.Context, a store.Account, open dnsupdate.Account, ifMatch string) error {
	r.reload.Lock()
	defer r.reload.Unlock()
	if err := r.notFiles(a.Tenant, a.Name); err != nil { // a reload may have come first
		return err
	}
	k := key{a.Tenant, a.Name}
	next := r.settings.Load().with(func(o *owned) { o.accounts[k], o.marks[k] = open, markOf(a) })
	if _, err := r.swap(next, func() (bool, error) { return true, r.cfg.Store.PutAccount(ctx, a, ifMatch) }); err != nil {
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
		return "", badAccount(tenant, err)
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
		return "", badAccount(tenant, err)
	}
	return fmt.Sprintf("not tried: %s; name a zone that the account is to read", toTenant(tenant, err.Error())), nil
}

// badAccount says to a tenant what is wrong with his account.
func badAccount(tenant string, err error) error {
	return invalid("account", "%s", toTenant(tenant, err.Error()))
}

// notFiles refuses an account of the configuration file.
func (r *Reconciler) notFiles(tenant, name string) error {
	if _, there := r.settings.Load().conf.Accounts[name]; there && tenant == Tenant {
		return &store.OwnedError{What: "account", Name: name, Owner: store.OwnerFile}
	}
	return nil
}

// DeleteAccount forgets an account of the API. While a domain needs it, also one that drains, that is a
// [*store.InUseError]. IfMatch is as in [Reconciler.PutMXSet].
func (r *Reconciler) DeleteAccount(ctx context.Context, tenant, name, ifMatch string) error {
	r.reload.Lock()
	defer r.reload.Unlock()
	if err := r.notFiles(tenant, name); err != nil {
		return err
	}
	k := key{tenant, name}
	next := r.settings.Load().with(func(o *owned) {
		delete(o.accounts, k)
		delete(o.marks, k)
	})
	_, err := r.swap(next, func() (bool, error) { return true, r.cfg.Store.DeleteAccount(ctx, tenant, name, ifMatch) })
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
