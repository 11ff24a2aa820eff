package httpd

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/stspub/stspub/internal/store"
)

// caller is who sent a request.
type caller struct {
	tenant string // "": the service itself
	role   string // of store.Token
	actor  string // as events call him
	// token is the ID of his token, and expires when that ends; empty: he needs none.
	token   string
	expires time.Time
	// loopback: none is needed where he is until there is one at all.
	loopback bool
	// leave gives back the place of his request among those of his tenant, for one that has another.
	leave func()
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	who, _ := ctx.Value(callerKey{}).(caller)
	return who
}

// forService marks operations of the service as a whole in their metadata.
const forService = "service"

// ofService marks an operation that no tenant may call.
func ofService(op huma.Operation) huma.Operation {
	op.Metadata = map[string]any{forService: true}
	op.Description = "For the service as a whole: not with the token of a tenant."
	return op
}

// authenticate finds out who asks. Probes need not say who they are.
func (a *admin) authenticate(next http.Handler) http.Handler {
	return a.handle(func(w http.ResponseWriter, r *http.Request) error {
		if r.URL.Path != "/healthz" && r.URL.Path != "/readyz" && r.URL.Path != "/servez" {
			who, err := a.identify(r)
			if problem, ok := errors.AsType[*Problem](err); ok && problem.Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="stspub"`) // RFC 6750, Section 3
			}
			if err == nil && r.URL.Path == "/metrics" && who.tenant != "" {
				err = wrongPlace(who)
			}
			who.leave = func() {}
			if err == nil && who.tenant != "" {
				if err = a.shares.request(who.tenant); err == nil {
					who.leave, err = a.shares.underWay.enter(who.tenant)
				}
				if err != nil {
					w.Header().Set("Connection", "close") // there are not many, and others need some
				}
			}
			if err != nil {
				return err
			}
			defer who.leave()
			ctx := store.WithReader(store.WithActor(r.Context(), who.actor), who.tenant)
			r = r.WithContext(context.WithValue(ctx, callerKey{}, who))
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// authorize keeps callers from what their tokens do not allow, before anything of the request is looked at.
func (a *admin) authorize(ctx huma.Context, next func(huma.Context)) {
	who := callerOf(ctx.Context())
	var problem *Problem
	switch {
	case ctx.Operation().Metadata[forService] == true && who.tenant != "":
		problem = wrongPlace(who)
	case who.role != store.RoleAdmin && ctx.Method() != http.MethodGet && ctx.Method() != http.MethodHead:
		problem = &Problem{Status: http.StatusForbidden, Detail: `the token has the role "read", which changes nothing`}
	default:
		next(ctx)
		return
	}
	_, w := humachi.Unwrap(ctx)
	writeProblem(w, problem)
}

func wrongPlace(who caller) *Problem {
	return &Problem{Status: http.StatusForbidden, Detail: fmt.Sprintf("this is of the service as a whole, and the token is of tenant %q", who.tenant)}
}

// identify says who sent a request. On the socket, and on loopback while there was never a token, that is whoever can
// connect; elsewhere a token says it.
func (a *admin) identify(r *http.Request) (caller, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		return a.bearer(r, header)
	}
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	local := ok && addr.Network() == "unix"
	if !local && a.tls == nil {
		has, err := a.tenancy.HasTokens(r.Context())
		if err != nil {
			return caller{}, err
		}
		local = !has
	}
	if !local {
		return caller{}, &Problem{
			Status: http.StatusUnauthorized,
			Detail: `a token is needed here, as "Authorization: Bearer TOKEN"; "stspub token add" makes one`,
		}
	}
	if ok && addr.Network() == "unix" {
		return caller{role: store.RoleAdmin, actor: "socket"}, nil
	}
	return caller{role: store.RoleAdmin, actor: "loopback", loopback: true}, nil
}

// stillIn says why a caller would not be let in any more, for requests that go on.
func (a *admin) stillIn(ctx context.Context, who caller) error {
	why := ""
	switch {
	case who.token != "":
		token, err := a.tenancy.Token(ctx, who.token)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if why = ended(token); err != nil {
			why = unknownToken
		}
	case who.loopback:
		has, err := a.tenancy.HasTokens(ctx)
		if err != nil {
			return err
		}
		if has {
			why = "there are tokens since this request began, and it has none"
		}
	}
	if why == "" {
		return nil
	}
	return &Problem{Status: http.StatusUnauthorized, Detail: why}
}

// tokenPrefix begins every token, so that it is known for what it is where it should not be.
const tokenPrefix = "stspub"

// secretBytes is the length of a token's secret.
const secretBytes = 32

// useNoted is how long the last use of a token is not written again.
const useNoted = time.Minute

// bearer finds the caller of a token. RFC 6750, Section 2.1.
func (a *admin) bearer(r *http.Request, header string) (caller, error) {
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return caller{}, &Problem{Status: http.StatusUnauthorized, Detail: `only "Authorization: Bearer TOKEN" is understood`}
	}
	from := origin(r)
	wait := a.failures.wait(from)
	if wait > 0 { // a good one is let in all the same, and a flood from there asks the store one at a time
		select {
		case a.doubtful <- struct{}{}:
			defer func() { <-a.doubtful }()
		case <-r.Context().Done():
			return caller{}, r.Context().Err()
		}
	}
	token, why, err := a.look(r.Context(), strings.TrimSpace(text))
	switch {
	case err != nil:
		return caller{}, err
	case why == unknownToken && wait > 0:
		return caller{}, &Problem{
			Status: http.StatusTooManyRequests, after: wait,
			Detail: fmt.Sprintf("too many tokens from %s were wrong; try again in %d seconds", from, int(wait/time.Second)+1),
		}
	case why == unknownToken:
		a.failures.note(from)
		fallthrough
	case why != "": // who sends one that has ended knows its secret, and guesses nothing
		a.log.Warn("refused a token", "addr", r.RemoteAddr)
		return caller{}, &Problem{Status: http.StatusUnauthorized, Detail: why}
	}
	if now := time.Now(); now.Sub(token.Used) >= useNoted {
		if err := a.tenancy.UseToken(r.Context(), token.ID, now); err != nil {
			a.log.Warn("use of a token not noted", "id", token.ID, "err", err)
		}
	}
	actor := "token " + token.ID
	if token.Label != "" {
		actor += " (" + token.Label + ")"
	}
	return caller{tenant: token.Tenant, role: token.Role, actor: actor, token: token.ID, expires: token.Expires}, nil
}

// unknownToken is said of a token that nobody made, or of which the secret is wrong.
const unknownToken = "the token is not known here"

// look finds a token by its text, or says why it is none. Only who knows the secret learns more than that it is wrong.
func (a *admin) look(ctx context.Context, text string) (token store.Token, why string, err error) {
	id, secret, ok := splitToken(text)
	if ok {
		token, err = a.tenancy.Token(ctx, id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return token, "", err
		}
	}
	hash := sha256.Sum256(secret)
	if subtle.ConstantTimeCompare(hash[:], token.Hash) != 1 { // the hash of none is empty
		return token, unknownToken, nil
	}
	return token, ended(token), nil
}

// ended says why a token counts no more; empty: it does.
func ended(token store.Token) string {
	switch {
	case !token.Revoked.IsZero():
		return "the token was revoked at " + token.Revoked.UTC().Format(time.RFC3339)
	case !token.Expires.IsZero() && !time.Now().Before(token.Expires):
		return "the token expired at " + token.Expires.UTC().Format(time.RFC3339)
	}
	return ""
}

// newToken makes the text of a token, and what is kept of it.
func newToken() (text, id string, hash []byte, err error) {
	secret := make([]byte, secretBytes)
	if _, err := rand.Read(secret); err != nil {
		return "", "", nil, fmt.Errorf("make a token: %w", err)
	}
	id = strings.ToLower(rand.Text()[:12])
	sum := sha256.Sum256(secret)
	return tokenPrefix + "_" + id + "_" + hex.EncodeToString(secret), id, sum[:], nil
}

// splitToken takes the text of a token apart.
func splitToken(text string) (id string, secret []byte, ok bool) {
	parts := strings.Split(text, "_")
	if len(parts) != 3 || parts[0] != tokenPrefix || parts[1] == "" || len(parts[2]) != hex.EncodedLen(secretBytes) {
		return "", nil, false
	}
	secret, err := hex.DecodeString(parts[2])
	return parts[1], secret, err == nil
}

// origin is where a request is from as failures are counted: an address, or the network that one customer has of IPv6.
// A socket is one origin.
func origin(r *http.Request) netip.Prefix {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	addr := from.Addr().Unmap()
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(addr.WithZone(""), bits).Masked()
}

// Scope is part of what every route of a tenant takes.
type Scope struct {
	Tenant string `query:"tenant" doc:"which tenant, by default \"default\"; a token of a tenant is for that tenant only"`
}

// of returns the tenant that a request is about.
func (s Scope) of(ctx context.Context, a *admin) (string, error) {
	who := callerOf(ctx)
	switch {
	case who.tenant != "" && s.Tenant != "" && s.Tenant != who.tenant:
		return "", &Problem{Status: http.StatusForbidden, Detail: fmt.Sprintf("the token is of tenant %q; leave ?tenant= out", who.tenant)}
	case who.tenant != "":
		return who.tenant, nil
	case s.Tenant == "" || s.Tenant == store.DefaultTenant:
		return store.DefaultTenant, nil
	}
	if _, err := a.tenancy.Tenant(ctx, s.Tenant); err != nil {
		return "", noTenant(s.Tenant, err)
	}
	return s.Tenant, nil
}
